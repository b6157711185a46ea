import numpy as np
import pytest
from audit_images import draw_image, manifest_of, write
from PIL import Image

from cnnsvm.audit.check import DataSet
from cnnsvm.audit.tables import (
    check_balance,
    check_duplicates,
    check_labels,
    check_splits,
    find_copies,
)
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.data.near_duplicates import DuplicatePair


@pytest.fixture
def manifest(tmp_path):
    images = [draw_image(seed, 96, 80) for seed in range(12)]
    reals = write(tmp_path / "real", images)
    return manifest_of(reals, write(tmp_path / "fake", [p[:, ::-1] for p in images]))


def add(manifest, folder, pixels, source, label=0, **options):
    path = folder / f"extra{len(manifest)}.{options.pop('ending', 'png')}"
    Image.fromarray(pixels).save(path, **options)
    row = make_row(path, label, source)
    return make_manifest([*manifest.to_dict("records"), row])


def duplicates(manifest):
    return check_duplicates(DataSet(manifest, copies=find_copies(manifest)))


def splits(manifest):
    return check_splits(DataSet(manifest, copies=find_copies(manifest)))


def balance(manifest):
    return check_balance(DataSet(manifest))


def halves(manifest):
    number = manifest["source_id"].str[1:].astype(int)
    return manifest.assign(split=np.where(number < 6, "train", "test"))


def test_a_balanced_table_passes(manifest):
    check = balance(manifest)
    assert check.verdict == "pass"
    assert check.details["n_real"] == check.details["n_fake"] == 12


def test_sources_of_one_class_and_rare_classes_are_warned_of(manifest):
    apart = manifest.assign(source_id=[f"s{i}" for i in range(len(manifest))])
    assert "no source has both classes" in balance(apart).summary
    assert "1 of 12 sources" in balance(manifest.iloc[1:]).summary
    assert "rare" in balance(manifest.iloc[11:]).summary
    assert "all images are real" in balance(manifest[manifest["label"] == 0]).summary


def test_without_splits_there_is_nothing_to_check(manifest):
    assert splits(manifest).verdict == "not checked"
    assert splits(manifest.assign(split="train")).verdict == "not checked"


def test_a_source_in_two_splits_is_a_leak(manifest):
    divided = halves(manifest)
    assert splits(divided).verdict == "pass"
    divided.loc[0, "split"] = "test"  # the original of s0; its fake stays in train
    check = splits(divided)
    assert check.verdict == "leak"
    assert check.details["straddling"] == ["s0"]
    assert "s0" in check.summary


def test_a_file_or_a_copy_of_it_in_two_splits_is_a_leak(manifest, tmp_path):
    divided = halves(manifest)
    for options in ({}, {"ending": "jpg", "quality": 80}):
        copied = add(divided, tmp_path, draw_image(0, 96, 80), "s99", **options)
        copied.loc[len(copied) - 1, "split"] = "test"
        assert splits(copied).verdict == "leak"
        copied.loc[len(copied) - 1, "split"] = "train"
        assert splits(copied).verdict == "pass"


def test_a_split_that_lacks_a_class_is_warned_of(manifest):
    divided = halves(manifest)
    check = splits(divided[(divided["split"] == "train") | (divided["label"] == 1)])
    assert check.verdict == "warning"
    assert "test lacks a class" in check.summary


def test_different_images_are_no_duplicates(manifest):
    assert duplicates(manifest).verdict == "pass"


def test_one_file_under_two_sources_is_a_leak(manifest, tmp_path):
    check = duplicates(add(manifest, tmp_path, draw_image(3, 96, 80), "s99"))
    assert check.verdict == "leak"
    assert check.details["identical"] == [["s3", "s99"]]
    assert "merge_near_duplicates" in check.remedy


def test_a_smaller_copy_under_another_source_is_a_leak(manifest, tmp_path):
    small = np.asarray(Image.fromarray(draw_image(3, 96, 80)).resize((64, 53)))
    check = duplicates(add(manifest, tmp_path, small, "s99"))
    assert check.verdict == "leak"
    assert check.details["copy"] == [["s3", "s99"]]


def test_a_fake_whose_original_has_another_source_is_found(tmp_path):
    """A Real/Fake tree read without groups."""
    images = [draw_image(seed, 96, 80) for seed in range(6)]
    reals = write(tmp_path / "real", images)
    manifest = manifest_of(reals, write(tmp_path / "fake", [p // 2 + 60 for p in images]))
    manifest["source_id"] = manifest["path"]
    check = duplicates(manifest)
    assert check.verdict == "leak"
    assert check.details["n_copy"] == 6


def test_few_copies_among_many_sources_are_a_warning(manifest, monkeypatch, tmp_path):
    small = np.asarray(Image.fromarray(draw_image(3, 96, 80)).resize((64, 53)))
    monkeypatch.setattr("cnnsvm.audit.tables.MANY", 0.5)
    assert duplicates(add(manifest, tmp_path, small, "s99")).verdict == "warning"


def test_images_that_merely_resemble_each_other_are_a_warning(manifest):
    alike = [DuplicatePair("s1", "s2", identical=False, distance=6)]
    copies = {"identical": [], "copy": [], "alike": alike}
    check = check_duplicates(DataSet(manifest, copies=copies))
    assert check.verdict == "warning"
    assert check.remedy.startswith("Look at the pairs")
    assert (
        check_splits(DataSet(halves(manifest), copies=copies)).verdict == "pass"
    )  # both are in train


def test_fakes_that_are_their_original_are_found_whatever_the_file(manifest, tmp_path):
    assert labels(manifest).verdict == "pass"
    original = np.asarray(Image.open(manifest["path"][0]).convert("RGB"))
    changed = original.copy()
    changed[0, 0] ^= 1
    source = manifest["source_id"][0]
    spoilt = add(manifest, tmp_path, changed, source, label=1)
    assert labels(spoilt).verdict == "pass"
    spoilt = add(spoilt, tmp_path, original, source, label=1, ending="bmp")
    check = labels(spoilt)
    assert (check.verdict, check.details["n_copies"]) == ("leak", 1)
    assert check.details["copies"][0].endswith(".bmp")
    other = add(manifest, tmp_path, original, "another", label=1, ending="bmp")
    assert labels(other).verdict == "pass"  # check_duplicates tells that


def labels(manifest):
    return check_labels(DataSet(manifest))
