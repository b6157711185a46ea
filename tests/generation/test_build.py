import os
import shutil

import numpy as np
import pandas as pd
import pytest
from generation_helpers import Kill, Replace, draw_image, tree
from PIL import Image

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import make_manifest, make_row, read_manifest
from cnnsvm.data.mask_shapes import MASK_SCHEMAS, MISSION_SCHEMAS
from cnnsvm.generation.build import build
from cnnsvm.generation.engines import Engine, EngineError, get_engine, one_by_one
from cnnsvm.generation.store import GenerationError

TWO = ("left", "random_patches")


def make(sources, folder, **values):
    return build(sources, folder, **{"n_jobs": 1, "schemas": TWO, **values})


def invert(image, mask, seed):
    return 255 - image


def noise(image, mask, seed):
    return np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)


INVERT = Engine("invert", one_by_one(invert), {"model_id": "none/invert"})
NOISE = Engine("noise", one_by_one(noise))


def fakes(manifest):
    return manifest[manifest["label"] == 1]


def masks_of(manifest):
    return [load_image(path)[:, :, 0] > 127 for path in manifest["mask_path"]]


def test_layout_of_a_record(photos, tmp_path):
    manifest = build(photos, tmp_path / "out", n_jobs=1)
    assert len(manifest) == 3 * (1 + len(MISSION_SCHEMAS))
    for record in manifest["record"].unique():
        expected = {"original.png", "record.json"}
        for schema in MISSION_SCHEMAS:
            expected |= {f"{part}_{schema}.png" for part in ("inpainting", "mask", "group")}
        assert {path.name for path in (tmp_path / "out" / record).iterdir()} == expected


def test_manifest_is_valid_and_says_how_each_image_was_made(photos, tmp_path):
    manifest = make(photos, tmp_path / "out", engine=INVERT, post_processing="webp")
    stored = read_manifest(tmp_path / "out" / "manifest.parquet")  # refuses bad rows
    assert list(stored["path"]) == list(manifest["path"])
    assert manifest["source_id"].nunique() == 3
    for _, rows in manifest.groupby("record"):
        assert list(rows["label"]) == [0, 1, 1]
        assert list(rows["variant"]) == ["original", "spliced", "spliced"]
        assert list(rows["mask_schema"])[1:] == list(TWO)
        assert set(rows["history"]) == {"webp"}
        assert set(rows["format"]) == {"WEBP"}
    assert set(fakes(manifest)["engine"]) == {"invert"}
    assert set(fakes(manifest)["model_id"]) == {"none/invert"}
    assert fakes(manifest)["seed"].nunique() == 6
    assert manifest[manifest["label"] == 0][["engine", "model_id", "seed"]].isna().all().all()


def test_recorded_seed_draws_the_mask_again(photos, tmp_path):
    rows = fakes(make(photos, tmp_path / "out"))
    for mask, (_, row) in zip(masks_of(rows), rows.iterrows(), strict=True):
        rng = np.random.default_rng(row["seed"])
        again = MASK_SCHEMAS[row["mask_schema"]](row["height"], row["width"], rng)
        np.testing.assert_array_equal(mask, again)


@pytest.mark.parametrize("engine", [INVERT, "opencv-telea", "opencv-ns"])
def test_spliced_is_the_engine_inside_the_mask_and_the_source_bit_for_bit_outside(
    engine, photos, tmp_path
):
    rows = fakes(make([photos / "a.jpg"], tmp_path / "out", engine=engine))
    source = load_image(photos / "a.jpg")
    for mask, row in zip(masks_of(rows), rows.itertuples(), strict=True):
        fake = load_image(row.path)
        whole = get_engine(engine)(source, mask, row.seed)
        np.testing.assert_array_equal(fake[~mask], source[~mask])
        np.testing.assert_array_equal(fake[mask], whole[mask])
        assert (fake[mask] != source[mask]).any(axis=1).mean() > 0.9


def test_regenerated_is_the_engines_whole_output(photos, tmp_path):
    rows = make([photos / "a.jpg"], tmp_path / "out", engine=INVERT, variants="regenerated")
    source = load_image(photos / "a.jpg")
    assert set(fakes(rows)["variant"]) == {"regenerated"}
    for row in fakes(rows).itertuples():
        np.testing.assert_array_equal(load_image(row.path), 255 - source)


def test_variants_coincide_with_opencv_at_native_size(photos, tmp_path):
    hashes = [
        list(make(photos, tmp_path / variant, variants=variant)["sha256"])
        for variant in ("spliced", "regenerated")
    ]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("post_processing", ["jpeg:80", "webp:70", "png"])
def test_original_and_fakes_share_codec_quality_and_size(post_processing, photos, tmp_path):
    manifest = make(photos, tmp_path / "out", post_processing=post_processing)
    for _, rows in manifest.groupby("record"):
        assert (rows[["width", "height", "format"]].nunique() == 1).all()
        opened = [Image.open(path) for path in rows["path"]]
        assert len({str(getattr(image, "quantization", None)) for image in opened}) == 1
        assert len({str(getattr(image, "layer", None)) for image in opened}) == 1


def test_working_size_reaches_original_and_fake_alike(photos, tmp_path):
    shapes = []

    def keep(image, mask, seed):
        shapes.append((image.shape, mask.shape))
        return image

    engine = Engine("keep", one_by_one(keep))
    manifest = make([photos / "a.jpg"], tmp_path / "out", engine=engine, post_processing="16,png",
                    variants="regenerated")  # fmt: skip
    source = Image.fromarray(load_image(photos / "a.jpg"))
    small = source.resize((16, 16), Image.Resampling.LANCZOS)
    expected = np.array(small.resize(source.size, Image.Resampling.LANCZOS))
    assert shapes == [((16, 16, 3), (16, 16))] * 2
    for path in manifest["path"]:
        np.testing.assert_array_equal(load_image(path), expected)


def test_working_size_leaves_a_splice_untouched_outside_the_mask(photos, tmp_path):
    manifest = make([photos / "a.jpg"], tmp_path / "out", engine=NOISE, post_processing="16,png")
    original = load_image(manifest["path"][0])
    for mask, path in zip(masks_of(fakes(manifest)), fakes(manifest)["path"], strict=True):
        fake = load_image(path)
        np.testing.assert_array_equal(fake[~mask], original[~mask])
        assert (fake[mask] != original[mask]).any(axis=1).all()


def test_group_image_shows_the_three_images(photos, tmp_path):
    manifest = make([photos / "a.jpg"], tmp_path / "out", engine=INVERT, schemas=["left"])
    folder = tmp_path / "out" / manifest["record"][0]
    group = load_image(folder / "group_left.png")
    height, width = 24, 36
    assert group.shape[0] > height
    assert group.shape[1] >= 3 * width
    strips = [load_image(folder / f"{name}.png") for name in ("original", "mask_left")]
    for image_ in [*strips, load_image(folder / "inpainting_left.png")]:
        windows = np.lib.stride_tricks.sliding_window_view(group, image_.shape)
        assert (windows[-1, :, 0] == image_).all(axis=(1, 2, 3)).sum() == 1


def test_order_and_subset_do_not_change_an_image(photos, tmp_path):
    paths = sorted(photos.rglob("*.*g"))
    whole = tree_of_records(make(paths, tmp_path / "whole", engine=NOISE), tmp_path / "whole")
    back = make(paths[::-1], tmp_path / "back", engine=NOISE, n_jobs=2)
    assert tree_of_records(back, tmp_path / "back") == whole
    part = tree_of_records(make(paths[1:2], tmp_path / "part", engine=NOISE), tmp_path / "part")
    assert part
    assert part.items() <= whole.items()


def tree_of_records(manifest, folder):
    return {k: v for k, v in tree(folder).items() if k.split("/")[0] in set(manifest["record"])}


def test_random_state_changes_the_images(photos, tmp_path):
    one = fakes(make(photos, tmp_path / "0", engine=NOISE))
    other = fakes(make(photos, tmp_path / "1", engine=NOISE, random_state=1))
    assert set(one["seed"]).isdisjoint(other["seed"])
    assert set(one["sha256"]).isdisjoint(other["sha256"])


def test_tiles_of_one_photograph_are_records_of_one_group(tmp_path):
    rows = []
    for i in range(3):
        Image.fromarray(draw_image(i)).save(tmp_path / f"tile{i}.png")
        rows.append(make_row(tmp_path / f"tile{i}.png", 0, "photo/1", split="train", artist="x"))
    Image.fromarray(draw_image(9)).save(tmp_path / "fake.png")
    rows.append(make_row(tmp_path / "fake.png", 1, "photo/1"))
    manifest = make(make_manifest(rows), tmp_path / "out")
    assert manifest["record"].nunique() == 3
    assert set(manifest["source_id"]) == {"photo/1"}
    assert set(manifest["split"]) == {"train"}
    assert set(manifest["artist"]) == {"x"}


@pytest.mark.parametrize("k", range(1, 21))
def test_build_killed_at_any_write_completes_when_run_again(k, photos, tmp_path, monkeypatch):
    sources = sorted(photos.rglob("*.*g"))[:2]
    real = os.replace
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    counter = Replace(real)
    monkeypatch.setattr(os, "replace", counter)
    make(sources, whole, engine=NOISE)
    # settings, twice (start, original, two triples, record), manifest
    assert len(counter.targets) == 20
    monkeypatch.setattr(os, "replace", Replace(real, last=k))
    with pytest.raises(Kill):
        make(sources, killed, engine=NOISE)
    again = Replace(real)
    monkeypatch.setattr(os, "replace", again)
    make(sources, killed, engine=NOISE)
    assert tree(killed) == tree(whole)
    written_before = [n for n in counter.targets[: k - 1] if n.startswith("group_")]
    assert sum(n.startswith("group_") for n in again.targets) == 4 - len(written_before)


def test_what_a_hard_kill_leaves_behind_is_cleared(photos, tmp_path):
    manifest = make(photos, tmp_path / "out")
    before = tree(tmp_path / "out")
    record = tmp_path / "out" / manifest["record"][0]
    (record / "record.json").unlink()
    (record / ".record.json.1073741824-2.partial").write_bytes(b"half")
    (tmp_path / "out" / ".manifest.parquet.1073741824-1.partial").write_bytes(b"half")
    make(photos, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_second_run_does_nothing_twice(photos, tmp_path):
    calls = []

    def count(image, mask, seed):
        calls.append(seed)
        return 255 - image

    first = make(photos, tmp_path / "out", engine=Engine("count", one_by_one(count)))
    assert len(calls) == 6
    second = make(photos, tmp_path / "out", engine=Engine("count", one_by_one(count)))
    assert len(calls) == 6
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("name", ["original.png", "mask_left.png", "inpainting_left.png"])
def test_damaged_file_of_a_finished_record_is_made_again(name, photos, tmp_path):
    manifest = make(photos, tmp_path / "out")
    before = tree(tmp_path / "out")
    Image.fromarray(draw_image(77)).save(tmp_path / "out" / manifest["record"][0] / name)
    make(photos, tmp_path / "out")
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "opencv-ns"},
        {"schemas": ["left"]},
        {"variants": "regenerated"},
        {"post_processing": "jpeg:90"},
        {"random_state": 1},
    ],
)
def test_other_settings_in_the_same_folder_are_refused(change, photos, tmp_path):
    make(photos, tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(GenerationError, match="other settings"):
        make(photos, tmp_path / "out", **change)
    assert tree(tmp_path / "out") == before


def test_folder_with_a_foreign_manifest_is_refused(photos, tmp_path):
    make(photos, tmp_path / "out")
    (tmp_path / "out" / "settings.json").unlink()
    with pytest.raises(GenerationError, match="Choose another folder"):
        make(photos, tmp_path / "out")


def spoil(photos):
    whole = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.png").write_text("no image")
    Image.fromarray(draw_image(0, 1, 1)).save(photos / "dot.png")
    shutil.copy(photos / "a.jpg", photos / "copy.jpg")


def test_bad_sources_are_named_and_skipped(photos, tmp_path, caplog):
    good = make(photos, tmp_path / "good")
    spoil(photos)
    manifest = make([*sorted(photos.rglob("*.*g")), photos / "gone.png"], tmp_path / "out")
    assert set(manifest["sha256"]) == set(good["sha256"])
    reasons = {os.path.basename(s["path"]): s["reason"] for s in manifest.attrs["skipped"]}
    assert reasons.keys() == {"cut.jpg", "text.png", "dot.png", "copy.jpg", "gone.png"}
    assert "same content" in reasons["copy.jpg"]
    assert "1x1" in reasons["dot.png"]
    listed = pd.read_csv(tmp_path / "out" / "errors.csv")
    assert listed.to_dict("records") == manifest.attrs["skipped"]
    assert all(name in caplog.text for name in reasons)
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == set(manifest["record"])


def test_list_of_skipped_goes_when_nothing_is(photos, tmp_path):
    (photos / "text.png").write_text("no image")
    make(photos, tmp_path / "out")
    (photos / "text.png").unlink()
    assert make(photos, tmp_path / "out").attrs["skipped"] == []
    assert not (tmp_path / "out" / "errors.csv").exists()


def test_same_pixels_under_two_sources_are_used_once(photos, tmp_path):
    pixels = load_image(photos / "a.jpg")
    Image.fromarray(pixels).save(photos / "a.png")
    manifest = make([photos / "a.jpg", photos / "a.png"], tmp_path / "out")
    assert manifest["source_id"].nunique() == 1
    assert [s["path"] for s in manifest.attrs["skipped"]] == [str(photos / "a.png")]
    read_manifest(tmp_path / "out" / "manifest.parquet")


@pytest.mark.parametrize("name", ["cut.jpg", "text.png", "dot.png", "copy.jpg"])
def test_bad_source_is_raised_if_wanted(name, photos, tmp_path):
    spoil(photos)
    with pytest.raises(ImageError, match=name):
        make([photos / "a.jpg", photos / name], tmp_path / "out", skip_bad=False)


def test_nothing_but_bad_sources_is_an_error(photos, tmp_path):
    spoil(photos)
    with pytest.raises(GenerationError, match="none of 2 sources"):
        make([photos / "text.png", photos / "cut.jpg"], tmp_path / "out")
    with pytest.raises(GenerationError, match="no source"):
        make([], tmp_path / "out")


def test_output_below_the_sources_is_no_source(photos):
    first = make(photos, photos / "out")
    second = make(photos, photos / "out")
    pd.testing.assert_frame_equal(first, second)


def test_broken_engine_stops_the_build(photos, tmp_path):
    with pytest.raises(EngineError, match="'broken'"):
        make(photos, tmp_path / "out", engine=Engine("broken", one_by_one(lambda i, m, s: i[1:])))


@pytest.mark.parametrize(
    "values",
    [
        {"schemas": ["top_left_white"]},
        {"schemas": []},
        {"schemas": ["top", "top"]},
        {"variants": "original"},
        {"random_state": None},
        {"random_state": -1},
        {"engine": "magic"},
        {"post_processing": "bmp"},
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(values, photos, tmp_path):
    with pytest.raises(ValueError, match=r"."):
        make(photos, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_hole_at_the_working_size_holds_whatever_the_mask_touches(photos, tmp_path):
    holes = []

    def keep(image, mask, seed):
        holes.append(mask)
        return image

    rows = make(
        [photos / "a.jpg"],
        tmp_path / "out",
        engine=Engine("keep", one_by_one(keep)),
        post_processing="9x5,png",
    )
    for hole, mask in zip(holes, masks_of(fakes(rows)), strict=True):
        for row, column in np.argwhere(mask):
            assert hole[row * 5 // 24, column * 9 // 36]
