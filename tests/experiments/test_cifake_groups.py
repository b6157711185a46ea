from dataclasses import replace

import numpy as np
import pytest
from dataset_files import cifake_files, jpeg, pack

from cifake_study import groups as module
from cifake_study.files import auxiliary_labels, extract_files
from cifake_study.groups import count_duplicates, outside, with_near_duplicates
from cnnsvm.data.readers import DatasetError, read_cifake

TRAIN = ("train/REAL", "train/FAKE")


def read(files, place):
    pack(files, place)
    return read_cifake(place)


@pytest.fixture
def both(tmp_path):
    """A test image is a copy of a training one, and two training images are copies."""
    train, test = cifake_files(TRAIN, n=4), cifake_files(("test/REAL", "test/FAKE"), n=2)
    test = {name: jpeg(100 + k) for k, name in enumerate(test)}
    names = list(train)
    train[names[1]] = train[names[0]]
    test[next(iter(test))] = train[names[4]]
    found = [read(files, tmp_path / f"{k}.zip") for k, files in enumerate((train, test))]
    return found[0].join(found[1]), names


def test_splits_are_joined_and_grouped_anew(both):
    joined, names = both
    assert joined.split.tolist() == ["train"] * 8 + ["test"] * 4
    group = dict(zip(joined.names, joined.groups, strict=True))
    assert group[names[0]] == group[names[1]]
    assert len(set(joined.groups)) == 10


def test_a_name_in_both_parts_is_refused(both):
    joined, _names = both
    with pytest.raises(DatasetError, match=r"12 image\(s\) are in both parts"):
        joined.join(joined)


def test_copies_of_what_is_judged_are_not_trained_on(both):
    joined, _names = both
    train, test = (np.flatnonzero(joined.split == name) for name in ("train", "test"))
    kept = outside(joined, train, test)
    assert len(kept) == 7
    assert set(joined.groups[kept]).isdisjoint(joined.groups[test])


def test_duplicates_are_counted_by_class_and_across_the_splits(both):
    counted = count_duplicates(both[0])
    assert counted.loc["REAL", "images"] + counted.loc["FAKE", "images"] == 12
    assert counted["copies"].to_dict()["train and test"] == 2
    copies = counted["copies"].to_dict()
    assert (copies["REAL"], copies["FAKE"]) == (3, 1)  # of the last pair, one of each class
    assert counted["near"].to_dict() == copies
    assert counted["groups"].to_dict() == {"REAL": 2, "FAKE": 1, "train and test": 1}


def test_near_duplicates_are_looked_for_once(both, tmp_path, monkeypatch):
    joined, _ = both
    first = with_near_duplicates(joined, tmp_path / "kept")
    monkeypatch.setattr(module, "group_near_duplicates", lambda *_: pytest.fail("again"))
    np.testing.assert_array_equal(
        with_near_duplicates(joined, tmp_path / "kept").groups, first.groups
    )
    with pytest.raises(pytest.fail.Exception):  # other images are other groups
        with_near_duplicates(replace(joined, sha256=joined.sha256[::-1]), tmp_path / "kept")


def test_the_manifest_says_what_is_known(both):
    manifest = both[0].manifest
    assert manifest["path"].tolist() == both[0].names.tolist()
    assert set(manifest.loc[manifest["label"] == 0, "variant"]) == {"original"}
    assert manifest.loc[manifest["label"] == 0, "engine"].isna().all()
    fakes = manifest[manifest["label"] == 1]
    assert set(fakes["engine"]) == {"diffusion:CompVis/stable-diffusion-v1-4"}


@pytest.mark.parametrize("kind", ["folder", "data.zip", "data.tar.xz"])
def test_files_are_extracted_as_they_are(kind, tmp_path):
    files = cifake_files(TRAIN, n=3)
    pack(files, tmp_path / kind)
    wanted = [list(files)[4], next(iter(files))]
    found = extract_files(tmp_path / kind, wanted, tmp_path / "out")
    assert [file.read_bytes() for file in found] == [files[name] for name in wanted]
    with pytest.raises(DatasetError, match=r"1 file\(s\) are not there, such as train/REAL/no"):
        extract_files(tmp_path / kind, [*wanted, "train/REAL/no.jpg"], tmp_path / "out")


def read_names(tmp_path, names):
    files = {f"train/{kind}/{name}": jpeg(3) for kind in ("REAL", "FAKE") for name in names}
    return read_cifake(pack(files, tmp_path / "x.zip"))


def test_a_name_tells_what_an_image_shows(tmp_path):
    objects = {"0001.jpg": "airplane", "0001 (2).jpg": "automobile", "17 (7).jpg": "frog"}
    objects["0001 (10).jpg"] = "truck"
    found = read_names(tmp_path, objects)
    rows = np.arange(len(found.names))
    shown = dict(zip(found.names, auxiliary_labels(found, rows), strict=True))
    for name, thing in objects.items():
        assert shown[f"train/REAL/{name}"] == f"{thing} 0"
        assert shown[f"train/FAKE/{name}"] == f"{thing} 1"
    assert auxiliary_labels(found, rows[:1], np.array([0])).tolist() == ["truck 0"]


@pytest.mark.parametrize("name", ["0001 (11).jpg", "0001 (0).jpg", "cat.jpg", "0001 (x).jpg"])
def test_a_name_that_does_not_tell_is_named(tmp_path, name):
    found = read_names(tmp_path, [name])
    with pytest.raises(DatasetError, match=r"train/FAKE/.*: no number from 1 to 10"):
        auxiliary_labels(found, np.arange(2))
