import os

import numpy as np
import pandas as pd
import pytest
from generation_helpers import Kill, Replace, draw_image, tree
from PIL import Image

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import make_manifest, make_row, read_manifest
from cnnsvm.generation.build import build
from cnnsvm.generation.matching import match_post_processing
from cnnsvm.generation.post_processing import PostProcessingError
from cnnsvm.generation.store import GenerationError


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_record(folder, seed, size=(32, 32), n_fakes=1, source_id=None):
    """Write a JPEG original of 40x24, BMP fakes of a size and a mask; return the rows."""
    source_id = source_id or f"s{seed}"
    rows = [
        make_row(save(folder / "original.jpg", draw_image(seed, 24, 40), quality=70), 0, source_id)
    ]
    half = np.zeros((24, 40), np.uint8)
    half[:, :20] = 255
    mask = save(folder / "mask.png", half)
    for i in range(n_fakes):
        fake = draw_image(1000 + 10 * seed + i, size[1], size[0])
        path = save(folder / f"inpainting_{i}.bmp", fake)
        rows.append(make_row(path, 1, source_id, mask_path=str(mask), engine="vae:x", artist="y"))
    return rows


@pytest.fixture
def manifest(tmp_path):
    rows = [row for i in range(3) for row in write_record(tmp_path / "in" / f"r{i}", i, n_fakes=2)]
    return make_manifest(rows)


def match(manifest, folder, post_processing="png", **values):
    return match_post_processing(manifest, folder, post_processing, **{"n_jobs": 1, **values})


@pytest.mark.parametrize(
    ("post_processing", "format"), [("png", "PNG"), ("jpeg:90", "JPEG"), ("webp:80", "WEBP")]
)
def test_record_has_one_size_codec_and_quality(post_processing, format, manifest, tmp_path):
    matched = match(manifest, tmp_path / "out", post_processing)
    assert len(matched) == len(manifest)
    assert set(matched["format"]) == {format}
    assert set(matched["history"]) == {post_processing}
    assert (matched.groupby("source_id")[["width", "height"]].nunique() == 1).all(axis=None)
    opened = [Image.open(path) for path in matched["path"]]
    assert {image.size for image in opened} == {(32, 32)}
    assert len({str(getattr(image, "quantization", None)) for image in opened}) == 1
    assert len({str(getattr(image, "layer", None)) for image in opened}) == 1


def test_manifest_carries_everything_else_along_and_can_be_read(manifest, tmp_path):
    matched = match(manifest, tmp_path / "out")
    for column in ("label", "source_id", "variant", "engine", "split", "artist"):
        pd.testing.assert_series_equal(matched[column], manifest[column])
    stored = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert list(stored["sha256"]) == list(matched["sha256"])
    assert (matched["path"].map(os.path.dirname) != manifest["path"].map(os.path.dirname)).all()


def test_fakes_stay_pixel_for_pixel_and_originals_are_resized_by_the_kernel(manifest, tmp_path):
    matched = match(manifest, tmp_path / "out", "bicubic,png")
    for old, new, label in zip(manifest["path"], matched["path"], manifest["label"], strict=True):
        pixels = load_image(old)
        if label == 0:
            resized = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
            pixels = np.array(resized)
        np.testing.assert_array_equal(load_image(new), pixels)


def test_nothing_is_resized_where_sizes_agree(tmp_path):
    manifest = make_manifest(write_record(tmp_path / "in", 0, size=(40, 24)))
    matched = match(manifest, tmp_path / "out")
    for old, new in zip(manifest["path"], matched["path"], strict=True):
        np.testing.assert_array_equal(load_image(new), load_image(old))
    with open(manifest["mask_path"][1], "rb") as old, open(matched["mask_path"][1], "rb") as new:
        assert old.read() == new.read()


def test_masks_follow_the_size_by_nearest_neighbour(manifest, tmp_path):
    matched = match(manifest, tmp_path / "out")
    fakes = matched[matched["label"] == 1]
    assert fakes["mask_path"].nunique() == 3  # one a record, though two fakes share it
    expected = np.zeros((32, 32), bool)
    expected[:, :16] = True
    for path in fakes["mask_path"]:
        mask = load_image(path)
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask[:, :, 0] > 127, expected)


def test_working_size_goes_for_both_classes(manifest, tmp_path):
    matched = match(manifest.iloc[:2], tmp_path / "out", "8,box,png")
    for old, new in zip(manifest["path"][:2], matched["path"], strict=True):
        image = Image.fromarray(load_image(old)).resize((32, 32), Image.Resampling.BOX)
        there = image.resize((8, 8), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
        np.testing.assert_array_equal(load_image(new), np.array(there))


def test_names_never_collide(tmp_path):
    rows = []
    names = ["a/x y.png", "b/x_y.png", "c/X_Y.webp", "d/x_y.jpg", "e/record.png", "f/é.png"]
    for i, name in enumerate(names):
        path = save(tmp_path / "in" / name, draw_image(i, 20, 20))
        half = np.repeat(np.uint8([0, 255]), 200).reshape(20, 20)
        mask = save(tmp_path / "in" / "masks" / name, half)
        rows.append(make_row(path, int(i > 0), "one/source: ünïque?", mask_path=str(mask)))
    for i, source_id in enumerate(["p/q", "p_q", "p q", "../../p", ".", "é", "x" * 300]):
        path = save(tmp_path / "in" / f"s{i}" / "x.png", draw_image(50 + i, 9, 9))
        rows.append(make_row(path, 0, source_id))
    matched = match(make_manifest(rows), tmp_path / "out")
    files = [*matched["path"], *matched["mask_path"].dropna()]
    assert len({path.lower() for path in files}) == 6 + 7 + 6
    assert all(os.path.realpath(path).startswith(str(tmp_path / "out")) for path in files)
    for row, new in zip(rows, matched["path"], strict=True):
        np.testing.assert_array_equal(load_image(new), load_image(row["path"]))
    read_manifest(tmp_path / "out" / "manifest.parquet")


def reasons(matched):
    return {
        os.path.join(*s["path"].split(os.sep)[-2:]): s["reason"] for s in matched.attrs["skipped"]
    }


def cut(path):
    """Take the end of the pixels away; of a JPEG or BMP the header can still be read."""
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 30)


def test_bad_fake_is_skipped_alone_and_again_in_the_next_run(manifest, tmp_path):
    cut(manifest["path"][1])
    for _ in range(2):
        matched = match(manifest, tmp_path / "out")
        assert list(reasons(matched)) == ["r0/inpainting_0.bmp"]
        assert len(matched) == len(manifest) - 1
        assert len(pd.read_csv(tmp_path / "out" / "errors.csv")) == 1


@pytest.mark.parametrize("spoil", [cut, os.remove])
def test_record_with_a_bad_original_is_skipped_whole(spoil, manifest, tmp_path):
    spoil(manifest["path"][3])
    matched = match(manifest.iloc[::-1], tmp_path / "out")  # its fakes come first
    assert set(matched["source_id"]) == {"s0", "s2"}
    expected = {"r1/original.jpg", "r1/inpainting_0.bmp", "r1/inpainting_1.bmp"}
    assert reasons(matched).keys() == expected
    assert sum(path.is_dir() for path in (tmp_path / "out").iterdir()) == 2


def test_bad_mask_takes_its_fakes_along(manifest, tmp_path):
    cut(manifest["mask_path"][1])
    assert reasons(match(manifest, tmp_path / "out")).keys() == {
        "r0/inpainting_0.bmp",
        "r0/inpainting_1.bmp",
    }


def test_fakes_of_several_sizes_are_skipped_and_the_sizes_named(manifest, tmp_path):
    extra = save(tmp_path / "in" / "r0" / "large.png", draw_image(70, 48, 64))
    rows = [*manifest.to_dict("records"), make_row(extra, 1, "s0")]
    matched = match(make_manifest(rows), tmp_path / "out")
    assert set(matched["source_id"]) == {"s1", "s2"}
    assert len(reasons(matched)) == 4
    assert all("32x32, 64x48" in reason for reason in reasons(matched).values())


def test_column_record_parts_a_source_into_sizes(tmp_path):
    rows = [*write_record(tmp_path / "a", 0, (32, 32), source_id="s")]
    rows += write_record(tmp_path / "b", 1, (16, 16), source_id="s")
    matched = match(make_manifest(rows).assign(record=["a", "a", "b", "b"]), tmp_path / "out")
    assert list(matched["width"]) == [32, 32, 16, 16]
    assert set(matched["source_id"]) == {"s"}


def test_bad_image_is_raised_if_wanted(manifest, tmp_path):
    cut(manifest["path"][1])
    with pytest.raises(ImageError, match="inpainting_0"):
        match(manifest, tmp_path / "out", skip_bad=False)


def test_nothing_left_is_an_error(manifest, tmp_path):
    for path in manifest["path"]:
        os.remove(path)
    with pytest.raises(GenerationError, match="none of 9 images"):
        match(manifest, tmp_path / "out")


@pytest.mark.parametrize("k", range(1, 17))
def test_killed_at_any_write_completes_when_run_again(k, manifest, tmp_path, monkeypatch):
    part = manifest.iloc[:6]
    real = os.replace
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    counter = Replace(real)
    monkeypatch.setattr(os, "replace", counter)
    match(part, whole)
    # settings, twice (start, 3 images, 2 masks, record), manifest
    assert len(counter.targets) == 16
    monkeypatch.setattr(os, "replace", Replace(real, last=k))
    with pytest.raises(Kill):
        match(part, killed)
    assert not list(killed.rglob("*.png.*.partial"))
    monkeypatch.setattr(os, "replace", real)
    match(part, killed)
    assert tree(killed) == tree(whole)


def test_second_run_writes_only_the_manifest(manifest, tmp_path, monkeypatch):
    first = match(manifest, tmp_path / "out", "jpeg:90")
    counter = Replace(os.replace)
    monkeypatch.setattr(os, "replace", counter)
    second = match(manifest, tmp_path / "out", "jpeg:90")
    assert counter.targets == ["manifest.parquet"]
    pd.testing.assert_frame_equal(first, second)


def test_changed_source_is_made_again(manifest, tmp_path):
    match(manifest, tmp_path / "out")
    save(tmp_path / "in" / "r1" / "original.jpg", draw_image(99, 24, 40))
    again = match(manifest, tmp_path / "out")
    fresh = match(manifest, tmp_path / "fresh")
    assert list(again["sha256"]) == list(fresh["sha256"])
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_other_settings_in_the_same_folder_are_refused(manifest, tmp_path, photos):
    match(manifest, tmp_path / "out", "jpeg:90")
    before = tree(tmp_path / "out")
    with pytest.raises(GenerationError, match="'jpeg:90', not 'jpeg:80'"):
        match(manifest, tmp_path / "out", "jpeg:80")
    with pytest.raises(GenerationError, match="other settings"):
        build(photos, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_bad_arguments_are_refused(manifest, tmp_path):
    with pytest.raises(PostProcessingError):
        match(manifest, tmp_path / "out", "bmp")
    with pytest.raises(GenerationError, match="missing: source_id"):
        match(manifest.drop(columns="source_id"), tmp_path / "out")
    with pytest.raises(GenerationError, match="got 0 rows"):
        match(manifest.iloc[:0], tmp_path / "out")


def test_records_of_build_can_be_recompressed(photos, tmp_path):
    built = build(photos, tmp_path / "built", n_jobs=1, schemas=["left", "top"])
    matched = match(built, tmp_path / "jpeg", "jpeg:75")
    assert set(matched["format"]) == {"JPEG"}
    pd.testing.assert_series_equal(matched["seed"], built["seed"])
    assert (matched[["width", "height"]] == built[["width", "height"]]).all(axis=None)
    assert set(matched["history"]) == {"jpeg:75"}
