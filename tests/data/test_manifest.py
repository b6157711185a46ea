import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import (
    COLUMNS,
    ManifestError,
    describe_file,
    find_bad_rows,
    make_manifest,
    make_row,
    read_manifest,
    write_manifest,
)

FORMATS = ["csv", "parquet"]


def write_image(path, value, size=(9, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value, 3)).save(path, **options)
    return path


@pytest.fixture
def manifest(tmp_path):
    root = tmp_path / "records"
    rows = []
    for k in range(3):
        original = write_image(root / f"{k}/original.png", 10 + k)
        fake = write_image(root / f"{k}/inpainting.png", 50 + k)
        mask = write_image(root / f"{k}/mask.png", 0)
        rows.append(make_row(original, 0, f"00{k}"))
        making = {"engine": "opencv-telea", "mask_schema": "top", "seed": k, "prompt": 'a, "b"'}
        rows.append(make_row(fake, 1, f"00{k}", mask_path=str(mask), **making))
    return make_manifest(rows)


def missing_as_none(table):
    return table.astype(object).where(table.notna(), None)


def problems_of(manifest):
    return "\n".join(text for _, text in find_bad_rows(manifest))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_round_trip_keeps_every_value_and_every_hole(tmp_path, manifest, suffix):
    path = write_manifest(manifest, tmp_path / f"records/manifest.{suffix}")
    again = read_manifest(path)
    assert list(again.columns) == list(manifest.columns)
    pd.testing.assert_frame_equal(
        missing_as_none(again), missing_as_none(manifest), check_dtype=False
    )
    assert again["mask_path"].isna().tolist() == [True, False] * 3
    assert again["source_id"].tolist()[:2] == ["000", "000"]  # no number, for all its digits


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_moved_folder_still_works(tmp_path, manifest, suffix):
    write_manifest(manifest, tmp_path / f"records/manifest.{suffix}")
    shutil.move(tmp_path / "records", tmp_path / "elsewhere")
    again = read_manifest(tmp_path / f"elsewhere/manifest.{suffix}")
    assert again["path"].str.startswith(str(tmp_path / "elsewhere")).all()


def test_on_disk_paths_are_relative_and_writing_leaves_no_rest(tmp_path, manifest):
    before = manifest.copy()
    path = write_manifest(manifest, tmp_path / "records/manifest.csv")
    assert pd.read_csv(path)["path"].tolist()[:2] == ["0/original.png", "0/inpainting.png"]
    assert not list(path.parent.glob(".*"))
    pd.testing.assert_frame_equal(manifest, before)


def test_rows_carry_what_the_file_tells(tmp_path):
    row = make_row(write_image(tmp_path / "a.jpg", 5, (7, 4)), 0, 12)
    assert (row["width"], row["height"], row["format"]) == (7, 4, "JPEG")
    assert row["source_id"] == "12"
    assert row["variant"] == "original"
    assert make_row(row["path"], 1, "12")["variant"] == "regenerated"
    assert make_row(row["path"], 1, "12", variant="spliced")["variant"] == "spliced"
    assert list(make_manifest([row]).columns) == COLUMNS


def test_width_and_height_are_those_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = describe_file(write_image(tmp_path / "a.jpg", 5, (7, 4), exif=exif))
    assert (found["width"], found["height"]) == (4, 7)


def test_no_image_has_no_description(tmp_path):
    (tmp_path / "a.png").write_text("text")
    for name in ("a.png", "none.png"):
        with pytest.raises(ImageError, match=name):
            describe_file(tmp_path / name)


def test_a_good_manifest_has_no_bad_rows(manifest):
    assert find_bad_rows(manifest) == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 2, r"row 2 \(.*\): label must be 0 \(real\) or 1 \(fake\), got 2. Correct"),
        ("label", None, "row 2 .*label must be 0"),
        ("label", pd.NA, "row 2 .*label must be 0"),
        ("source_id", None, "row 2 .*source_id is empty. Name the untouched source"),
        ("source_id", " ", "row 2 .*source_id is empty"),
        ("source_id", pd.NA, "row 2 .*source_id is empty"),
        ("variant", "new", "row 2 .*variant must be one of original, .*got 'new'"),
        ("variant", "original", "row 2 .*label 1 contradicts variant 'original'"),
        ("path", "/none.png", r"row 2 \(/none.png\): path names no file. Restore the file or"),
        ("path", None, "row 2 .*path names no file"),
        ("mask_path", "/none.png", "row 2 .*mask_path .none.png names no file"),
    ],
)
def test_a_bad_value_is_named_with_row_and_remedy(manifest, column, value, message):
    manifest = manifest.astype(object)
    manifest.loc[1, column] = value
    found = find_bad_rows(manifest)
    assert {position for position, _ in found} == {1}
    assert not any("same content" in text for _, text in found)
    assert re.search(message, "\n".join(text for _, text in found))


def test_the_same_file_twice(manifest):
    twice = pd.concat([manifest, manifest.iloc[[1]]], ignore_index=True)
    assert "row 7 " in problems_of(twice)
    assert "the same file as row 2. Drop one of the two." in problems_of(twice)


def test_one_content_under_two_sources(tmp_path, manifest):
    shutil.copy(manifest.path[0], manifest.path[2])
    again = make_manifest(
        make_row(path, label, source)
        for path, label, source in zip(
            manifest.path, manifest.label, manifest.source_id, strict=True
        )
    )
    text = problems_of(again)
    assert "row 3 " in text
    assert "same content as row 1 but source_id '001' is not '000'" in text
    again.loc[again.source_id == "001", "source_id"] = "000"
    assert find_bad_rows(again) == []  # the remedy works


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("column", ["path", "mask_path"])
@pytest.mark.parametrize("check", [True, False])
def test_paths_may_not_leave_the_folder(tmp_path, manifest, suffix, column, check):
    path = write_manifest(manifest, tmp_path / f"records/manifest.{suffix}")
    outside = write_image(tmp_path / "secret.png", 99)
    (tmp_path / "records/link.png").symlink_to(outside)
    reader = pd.read_csv if suffix == "csv" else pd.read_parquet
    leaves = r"leaves the manifest's folder.*Move"
    absolute = r"is absolute\. Write it relative to the manifest's folder"
    for value, expected in (
        ("../secret.png", leaves),
        ("0/../../secret.png", leaves),
        ("link.png", leaves),
        (str(outside), absolute),
        (str(tmp_path / "records" / "0.png"), absolute),
    ):
        table = reader(path)
        table.loc[3, column] = value
        bad = path.with_name(f"bad.{suffix}")
        table.to_csv(bad, index=False) if suffix == "csv" else table.to_parquet(bad)
        with pytest.raises(ManifestError, match=rf"row 4 \(.*{expected}"):
            read_manifest(bad, check=check)


def test_a_manifest_is_not_written_below_its_images(tmp_path, manifest):
    with pytest.raises(ManifestError, match=r"row 1 .*lies outside .*Write it above its images"):
        write_manifest(manifest, tmp_path / "records/1/manifest.csv")


def write_csv(tmp_path, text):
    path = tmp_path / "manifest.csv"
    path.write_text(text)
    return path


def test_three_columns_are_enough(tmp_path):
    write_image(tmp_path / "a.png", 1)
    write_image(tmp_path / "b.png", 2)
    path = write_csv(tmp_path, "path,label,source_id\na.png,0,NA\nb.png,1,NA\n")
    manifest = read_manifest(path)
    assert list(manifest.columns) == COLUMNS
    assert manifest["variant"].tolist() == ["original", "regenerated"]
    assert manifest["source_id"].tolist() == ["NA", "NA"]  # a name, not a hole


def test_duplicates_are_found_without_hashes_in_the_file(tmp_path):
    write_image(tmp_path / "a.png", 1)
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    path = write_csv(tmp_path, "path,label,source_id\na.png,0,one\nb.png,0,two\n")
    with pytest.raises(ManifestError, match=r"row 2 .*same content as row 1"):
        read_manifest(path)


def test_only_the_row_with_the_unknown_label_is_bad(tmp_path):
    write_image(tmp_path / "a.png", 1)
    write_image(tmp_path / "b.png", 2)
    path = write_csv(tmp_path, "path,label,source_id\na.png,0,a\nb.png,fake,b\n")
    with pytest.raises(ManifestError, match=r"1 bad row\(s\).\n  row 2 .*got 'fake'"):
        read_manifest(path)


def test_a_missing_column_is_named(tmp_path):
    path = write_csv(tmp_path, "path,source_id\na.png,a\n")
    with pytest.raises(ManifestError, match=r"column\(s\) label missing.*Found: path, source_id"):
        read_manifest(path)


def test_the_summary_is_cut_short(tmp_path):
    path = write_csv(tmp_path, "path,label,source_id\n" + "none.png,0,a\n" * 20)
    with pytest.raises(ManifestError, match="and 29 more") as caught:
        read_manifest(path)
    assert str(caught.value).count("\n") == 11


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.csv", "no such manifest"), ("a.txt", r"ends in .parquet or .csv")],
)
def test_no_manifest(tmp_path, name, message):
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / name)


def test_an_unreadable_manifest(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"text")
    with pytest.raises(ManifestError, match="cannot be read as a table"):
        read_manifest(tmp_path / "a.parquet")


def test_writing_to_another_suffix_is_refused_and_leaves_nothing(tmp_path, manifest):
    with pytest.raises(ManifestError, match="ends in"):
        write_manifest(manifest, tmp_path / "records/manifest.json")
    assert not list((tmp_path / "records").glob("*manifest*"))


def test_a_table_of_the_required_columns_can_be_written(tmp_path, manifest):
    least = manifest[["path", "label", "source_id"]]
    again = read_manifest(write_manifest(least, tmp_path / "records/m.csv"))
    assert again["sha256"].tolist() == manifest["sha256"].tolist()


def test_labels_stay_integers(tmp_path, manifest):
    again = read_manifest(write_manifest(manifest, tmp_path / "records/m.csv"))
    assert np.issubdtype(again["label"].dtype, np.integer)
