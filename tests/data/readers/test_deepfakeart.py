import logging

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.manifest import check_manifest
from cnnsvm.data.mask_shapes import MASK_SCHEMAS
from cnnsvm.data.readers import DatasetError, read_records

KAGGLE = ("original.png", "inpainting.png", "mask.png", "group.png")


def write_record(folder, names=KAGGLE, schema="right"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(sum(str(folder.name).encode()))
    for name in names:
        if name.startswith("mask"):
            pixels = MASK_SCHEMAS[schema](40, 40, rng).astype(np.uint8) * 255
        else:
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def table(manifest, *columns):
    values = manifest[list(columns)].astype(object)
    values = values.where(values.notna(), None)
    return {
        "/".join(path.split("/")[-2:]): tuple(row)
        for path, row in zip(manifest["path"], values.to_numpy(), strict=True)
    }


@pytest.mark.parametrize(
    "place", ["", "inpainting", "similar/inpainting", "archive/similar/inpainting"]
)
def test_the_kaggle_layout_is_found_at_every_depth(tmp_path, place):
    for record in ("7", "12"):
        write_record(tmp_path / place / record)
    manifest = read_records(tmp_path)
    assert table(manifest, "label", "source_id", "variant", "engine", "mask_schema") == {
        "12/original.png": (0, "12", "original", None, None),
        "12/inpainting.png": (1, "12", "regenerated", "unknown", "right"),
        "7/original.png": (0, "7", "original", None, None),
        "7/inpainting.png": (1, "7", "regenerated", "unknown", "right"),
    }
    assert manifest["mask_path"].tolist()[1].endswith(f"{place}/12/mask.png")
    assert manifest.attrs["skipped"] == []
    check_manifest(manifest)


def test_the_seed_layout_has_its_original_once(tmp_path):
    folder = tmp_path / "3"
    write_record(folder, ["original.png"])
    for schema in MASK_SCHEMAS:
        extra = tmp_path / "extra" / schema
        write_record(extra, [f"{role}_{schema}.png" for role in ("inpainting", "mask")], schema)
        for path in extra.iterdir():
            path.rename(folder / path.name)
        extra.rmdir()
    (tmp_path / "extra").rmdir()
    manifest = read_records(tmp_path, variant="spliced", engine="vae:x")
    assert (manifest["label"] == 0).sum() == 1
    fakes = manifest[manifest["label"] == 1]
    assert set(fakes["mask_schema"]) == set(MASK_SCHEMAS)
    assert set(fakes["engine"]) == {"vae:x"}
    for _, row in fakes.iterrows():
        assert row["path"].endswith(f"inpainting_{row['mask_schema']}.png")
        assert row["mask_path"].endswith(f"mask_{row['mask_schema']}.png")


def test_the_image_of_the_mask_outranks_its_name(tmp_path, caplog):
    names = ["original.png", "inpainting_top.png", "mask_top.png"]
    write_record(tmp_path / "1", names, schema="bottom")
    write_record(tmp_path / "2", names, schema="diagonal_upper_left")
    write_record(tmp_path / "3", names, schema="top")
    manifest = read_records(tmp_path)
    found = manifest.loc[manifest.label == 1, "mask_schema"].tolist()
    assert found == ["bottom", "diagonal_upper_left", "top"]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "2 mask image(s) contradict their file's name" in caplog.text


def test_an_unknown_shape_has_no_schema_whatever_its_name(tmp_path):
    folder = write_record(tmp_path / "1", ["original.png", "inpainting_top.png"])
    Image.new("L", (40, 40)).save(folder / "mask_top.png")
    assert read_records(tmp_path)["mask_schema"].isna().all()


def test_without_a_mask_the_name_counts_if_it_is_a_schema(tmp_path):
    write_record(tmp_path / "1", ["original.png", "inpainting_top.png", "inpainting_odd.png"])
    found = table(read_records(tmp_path), "mask_schema", "mask_path")
    assert found["1/inpainting_top.png"] == ("top", None)
    assert found["1/inpainting_odd.png"] == (None, None)


def test_one_mask_for_several_inpaintings_of_other_formats(tmp_path):
    names = ["original.jpg", "inpainting_1.webp", "inpainting_2.webp", "mask.png"]
    write_record(tmp_path / "a", names, schema="left")
    fakes = read_records(tmp_path).query("label == 1")
    assert fakes["mask_schema"].tolist() == ["left", "left"]
    assert fakes["mask_path"].nunique() == 1


def test_incomplete_records_are_skipped_and_reported(tmp_path, caplog):
    write_record(tmp_path / "good")
    write_record(tmp_path / "no_original", ["inpainting.png", "mask.png"])
    write_record(tmp_path / "no_inpainting", ["original.png"])
    write_record(tmp_path / "two_originals", ["original.png", "original.jpg", "inpainting.png"])
    write_record(tmp_path / "damaged")
    (tmp_path / "damaged" / "inpainting.png").write_text("text")
    manifest = read_records(tmp_path)
    assert set(manifest["source_id"]) == {"good"}
    skipped = {
        entry["path"].rpartition("/")[2]: entry["reason"] for entry in manifest.attrs["skipped"]
    }
    assert set(skipped) == {"no_original", "no_inpainting", "two_originals", "damaged"}
    assert "needs an inpainting" in skipped["no_inpainting"]
    assert "original.jpg, original.png" in skipped["two_originals"]
    assert "inpainting.png" in skipped["damaged"]
    assert "4 record(s) or mask(s) left out" in caplog.text


def test_a_damaged_mask_is_left_out_but_not_its_record(tmp_path):
    folder = write_record(tmp_path / "1", ["original.png", "inpainting_top.png"])
    (folder / "mask_top.png").write_text("text")
    manifest = read_records(tmp_path)
    assert table(manifest, "mask_schema", "mask_path")["1/inpainting_top.png"] == ("top", None)
    assert manifest.attrs["skipped"][0]["path"].endswith("mask_top.png")


def test_other_files_and_folders_are_not_records(tmp_path):
    folder = write_record(tmp_path / "1")
    (folder / "notes.txt").touch()
    (folder / "original_small.png").touch()
    write_record(tmp_path / "Fake", ["inpainting_1.png"])
    write_record(tmp_path / ".hidden")
    (tmp_path / "empty").mkdir()
    manifest = read_records(tmp_path)
    assert len(manifest) == 2
    assert manifest.attrs["skipped"] == []


def test_no_records_and_no_complete_record(tmp_path):
    with pytest.raises(DatasetError, match=r"no records. Give the folder"):
        read_records(tmp_path)
    (write_record(tmp_path / "1") / "original.png").unlink()
    with pytest.raises(DatasetError, match=r"none is complete.*needs one original.*Restore"):
        read_records(tmp_path)


def test_originals_alone_are_enough(tmp_path):
    write_record(tmp_path / "inpainting" / "1", ["original.png"])
    write_record(tmp_path / "inpainting" / "2", ["original.png"])
    assert read_records(tmp_path)["source_id"].tolist() == ["1", "2"]
    write_record(tmp_path / "inpainting" / "3", ["inpainting.png"])
    write_record(tmp_path / "inpainting" / "4")
    manifest = read_records(tmp_path, only_originals=True)
    assert manifest["source_id"].tolist() == ["1", "2", "4"]
    assert (manifest["label"] == 0).all()
    assert len(manifest.attrs["skipped"]) == 1
