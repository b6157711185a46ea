from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.audit.anomalies import CHECKS
from cnnsvm.audit.exploration import (
    FILE_FEATURES,
    PIXEL_FEATURES,
    choose_sample,
    describe_file,
    describe_mask,
    describe_pixels,
    estimate_quality,
    explore,
)
from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import make_manifest, make_row


def noise(seed, width=40, height=30):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def make_record(folder, i, split="train"):
    """A source with two fakes: a mask over its left quarter, and one over its upper half."""
    name = f"s{i}"
    rows = [make_row(save(folder / f"{name}.png", noise(i)), 0, name, split=split)]
    for j, schema in enumerate(("left", "top")):
        mask = np.zeros((30, 40), dtype=bool)
        mask[(slice(None), slice(10)) if schema == "left" else slice(15)] = True
        path = save(folder / f"{name}_{schema}.jpg", noise(10 * i + j + 100), quality=70 + 10 * j)
        made = {"variant": "spliced", "engine": "opencv-ns", "mask_schema": schema, "split": split}
        mask_path = save(folder / f"{name}_{schema}_mask.png", mask)
        rows.append(make_row(path, 1, name, mask_path=str(mask_path), **made))
    return rows


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    splits = ["train"] * 4 + ["test"] * 2
    return make_manifest(row for i in range(6) for row in make_record(folder, i, splits[i]))


@pytest.fixture(scope="module")
def found(records):
    return explore(records, progress=False)


def checks_of(found, check):
    return [entry for entry in found["anomalies"] if entry["check"] == check]


def test_images_sources_and_classes_are_counted(found):
    assert [found[f"n_{name}"] for name in ("images", "sources", "real", "fake")] == [18, 6, 6, 12]
    assert found["fakes_a_source"] == {2: 6}
    assert found["balance"].loc["all"].tolist() == [6, 12, 6]
    assert found["balance"].loc["test"].tolist() == [2, 4, 2]
    kinds = found["kinds"].set_index("mask_schema")
    assert kinds["images"].to_dict() == {"left": 6, "top": 6}
    assert set(kinds["engine"]) == {"opencv-ns"}
    assert found["anomalies"] == []


def test_sizes_and_bits_are_those_of_the_files(found, records):
    files = found["files"]
    assert set(zip(files["width"], files["height"], strict=True)) == {(40, 30)}
    np.testing.assert_allclose(files["aspect"], 4 / 3)
    np.testing.assert_allclose(files["megapixels"], 0.0012)
    lengths = [Path(path).stat().st_size for path in records["path"]]
    assert files["bytes"].tolist() == lengths
    np.testing.assert_allclose(files["bits_a_pixel"], 8 * np.array(lengths) / 1200)


def test_jpeg_qualities_are_found(found):
    quality = found["files"].groupby("mask_schema")["quality"].unique()
    assert [list(values) for values in quality] == [[70], [80]]
    assert found["files"].loc[found["files"]["format"] == "PNG", "quality"].isna().all()


def test_coverage_and_mean_masks_are_those_drawn(found):
    coverage = found["masks"].groupby("mask_schema")["coverage"].unique()
    assert [list(values) for values in coverage] == [[0.25], [0.5]]
    left, top = found["mean_masks"]["left"], found["mean_masks"]["top"]
    assert left.shape == (64, 64)
    np.testing.assert_allclose(left.mean(axis=0), np.arange(64) < 16)
    np.testing.assert_allclose(top.mean(axis=1), np.arange(64) < 32)


def test_pixel_statistics_of_known_images(tmp_path):
    grey = describe_pixels(save(tmp_path / "grey.png", np.full((9, 9, 3), 100, np.uint8)))
    assert grey == pytest.approx(dict.fromkeys(PIXEL_FEATURES, 0) | {"brightness": 100}, abs=1e-4)
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 200
    found = describe_pixels(save(tmp_path / "stripes.png", stripes))
    assert found == pytest.approx(
        {"brightness": 100, "contrast": 100, "colourfulness": 0, "detail": 200}, abs=1e-3
    )
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    # rg = 255, yb = 127.5 everywhere: M3 = 0.3 * sqrt(255**2 + 127.5**2)
    measured = describe_pixels(save(tmp_path / "red.png", red))["colourfulness"]
    assert measured == pytest.approx(0.3 * np.hypot(255, 127.5), abs=1e-3)


def test_separation_is_none_of_a_feature_that_all_share_and_full_of_one_that_parts(found):
    separation = found["separation"]
    assert separation["width"]["gap"] == 0
    assert separation["width"]["roc_auc"] == 0.5
    assert separation["bits_a_pixel"]["gap"] == 1  # PNG against JPEG
    assert separation["bits_a_pixel"]["roc_auc"] == 0
    assert "quality" not in separation  # no real image has one
    assert set(separation) <= set(FILE_FEATURES) | set(PIXEL_FEATURES)
    assert separation["width"]["chance"] == pytest.approx(1.36 * np.sqrt(1 / 6 + 1 / 12))


def test_the_sample_is_whole_sources_seeded_and_within_its_limits(records, found):
    files = found["files"]
    first = choose_sample(files, 10, 99, 3)
    assert len(first) == 9
    assert (first.groupby("source_id").size() == 3).all()
    pd.testing.assert_frame_equal(first, choose_sample(files, 10, 99, 3))
    others = [set(choose_sample(files, 10, 99, seed)["source_id"]) for seed in range(8)]
    assert len(set(map(frozenset, others))) > 1
    assert len(choose_sample(files, 100, 0.0075, 0)) == 6  # 0.0036 megapixels a source
    assert len(choose_sample(files, 1, 99, 0)) == 1
    small = explore(records, max_images=3, progress=False)
    assert small["sample"] == {"n_images": 3, "n_sources": 1}
    assert (len(small["files"]), len(small["pixels"]), len(small["masks"])) == (18, 3, 2)


def test_the_order_of_the_rows_does_not_change_the_sample(found):
    files = found["files"]
    sources = [
        set(choose_sample(table, 6, 99, 5)["source_id"]) for table in (files, files.iloc[::-1])
    ]
    assert sources[0] == sources[1]


def test_bad_files_are_listed_and_stop_nothing(tmp_path):
    rows = [row for i in range(3) for row in make_record(tmp_path, i)]
    (tmp_path / "s0_left.jpg").unlink()
    (tmp_path / "s1_left.jpg").write_bytes(b"no image")
    png = (tmp_path / "s2.png").read_bytes()
    (tmp_path / "s2.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "s0_top_mask.png").unlink()
    mask = (tmp_path / "s1_top_mask.png").read_bytes()
    (tmp_path / "s1_top_mask.png").write_bytes(mask[:50])
    manifest = make_manifest(rows)
    manifest.attrs["skipped"] = [{"path": "x/y.png", "reason": "x/y.png: truncated"}]
    found = explore(manifest, progress=False)
    names = [(entry["path"].rpartition("/")[2], entry["source_id"]) for entry in found["anomalies"]]
    assert names == [
        *[("y.png", ""), ("s0_left.jpg", "s0"), ("s1_left.jpg", "s1"), ("s2.png", "s2")],
        *[("s0_top_mask.png", "s0"), ("s1_top_mask.png", "s1")],
    ]
    reasons = [entry["reason"] for entry in found["anomalies"]]
    assert [reason.partition(".")[0] for reason in reasons[:2]] == ["truncated", "no such file"]
    assert not any(str(tmp_path) in reason for reason in reasons)
    assert (found["n_images"], len(found["files"]), len(found["pixels"])) == (9, 7, 6)


def test_columns_of_ones_own_do_no_harm(tmp_path):
    rows = [row for i in range(3) for row in make_record(tmp_path, i)]
    plain = explore(make_manifest(rows), progress=False)
    own = make_manifest(rows).assign(problem="x", brightness=-1, mask_width=7, megapixels=0)
    found = explore(own, progress=False)
    assert found["anomalies"] == plain["anomalies"]
    assert found["separation"] == plain["separation"]


def test_a_whole_image_that_an_engine_made_needs_no_mask(tmp_path):
    rows = [row for i in range(3) for row in make_record(tmp_path, i)]
    for variant, expected in (("regenerated", []), ("spliced", ["s1"])):
        rows[5] |= {"variant": variant, "mask_schema": None, "mask_path": None}
        found = explore(make_manifest(rows), progress=False)
        assert [e["source_id"] for e in checks_of(found, "fakes without a mask")] == expected


def test_anomalies_of_masks_and_sizes_are_found(tmp_path):
    rows = [row for i in range(3) for row in make_record(tmp_path, i)]
    save(tmp_path / "s0_left_mask.png", np.zeros((30, 40), dtype=bool))
    save(tmp_path / "s0_top_mask.png", np.ones((30, 40), dtype=bool))
    save(tmp_path / "s1_left_mask.png", np.eye(30, 20, dtype=bool))
    rows[5]["mask_path"] = None
    save(tmp_path / "s2_left.jpg", noise(7, 12, 50))
    found = explore(make_manifest(rows), progress=False)
    said = {entry["reason"] for entry in found["anomalies"]}
    blank = [entry["reason"] for entry in checks_of(found, "blank masks")]
    assert blank == ["all black", "all white"]
    assert [e["source_id"] for e in checks_of(found, "fakes without a mask")] == ["s1"]
    assert {"mask 20x30, fake 40x30", "mask 40x30, fake 12x50"} < said
    assert "12x50, its original 40x30" in said
    assert [e["reason"] for e in checks_of(found, "tiny images")] == ["12x50"]


def test_duplicates_splits_and_lonely_sources_are_found(tmp_path):
    rows = [row for i in range(3) for row in make_record(tmp_path, i)]
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "s0.png").read_bytes())
    rows.append(make_row(copy, 1, "s9"))
    twin = tmp_path / "twin.png"
    twin.write_bytes((tmp_path / "s1_left.jpg").read_bytes())
    rows.append(make_row(twin, 1, "s1"))
    rows[4]["split"] = "test"
    found = explore(make_manifest(rows), progress=False)
    (leak,) = checks_of(found, "leaking copies")
    assert leak["reason"].endswith("s0.png, another source, the other class")
    (same,) = checks_of(found, "identical files")
    assert same["path"].endswith("twin.png")
    assert same["reason"].endswith("s1_left.jpg")
    (lonely,) = checks_of(found, "one class only")
    assert (lonely["source_id"], lonely["reason"]) == ("s9", "only fake")
    (several,) = checks_of(found, "several splits")
    assert (several["source_id"], several["reason"]) == ("s1", "test, train")
    assert set(found["kinds"]["engine"]) == {"opencv-ns", "not stated"}


def test_rows_without_label_or_source_are_left_out(records):
    bad = records.astype({"label": object}).copy()
    bad.loc[1, "label"] = "maybe"
    bad.loc[2, "source_id"] = None
    found = explore(bad, progress=False)
    assert [e["reason"] for e in checks_of(found, "unusable rows")] == [
        "row 2, label 'maybe'",
        "row 3, label 1",
    ]
    assert found["n_images"] == 16


def test_sources_alone_are_explored_too(records):
    found = explore(records[records["label"] == 0], progress=False)
    assert (found["n_real"], found["n_fake"]) == (6, 0)
    assert found["kinds"].empty
    assert found["masks"].empty
    assert found["separation"] == {}
    assert found["anomalies"] == []


def test_every_check_has_a_meaning_and_order(found):
    assert all(CHECKS.values())
    assert len(CHECKS) == len(set(CHECKS.values())) + 1  # images and masks fail alike


def test_a_grey_mask_is_cut_at_half(tmp_path):
    levels = np.repeat(np.array([[0, 127, 128, 255]], np.uint8), 4, axis=0)
    assert describe_mask(save(tmp_path / "m.png", levels))["coverage"] == 0.5


def test_wrong_limits_and_empty_data_are_refused(records, tmp_path):
    with pytest.raises(ValueError, match="max_images must be at least 1"):
        explore(records, max_images=0)
    with pytest.raises(ValueError, match="none of 0 rows can be used"):
        explore(records.iloc[:0])
    gone = records.assign(path=str(tmp_path / "gone.png"))
    with pytest.raises(ImageError, match="none of 18 images can be read"):
        explore(gone, progress=False)


@pytest.mark.parametrize("quality", [5, 50, 75, 90, 100])
def test_quality_is_exact_for_libjpeg_and_near_for_its_neighbours(tmp_path, quality):
    path = str(tmp_path / "a.jpg")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 72, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=quality)
    assert describe_file(path)["quality"] == quality
    with Image.open(path) as image:
        table = np.array(image.quantization[0])
    assert abs(estimate_quality(np.maximum(table - 1, 1)) - quality) <= 3
