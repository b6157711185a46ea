"""Variants, edges, prompts and batches: what of an engine's output ends up in a record."""

import math

import cv2
import numpy as np
import pytest
from generation_helpers import draw_image
from PIL import Image

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import make_manifest, make_row, read_manifest
from cnnsvm.data.readers import read_records
from cnnsvm.generation import GenerationError, build
from cnnsvm.generation.engines import Engine, EngineError, Task, one_by_one
from cnnsvm.generation.record import blend, blend_weights

TWO = ("left", "random_patches")


def noise(image, mask, seed):
    return np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)


NOISE = Engine("noise", one_by_one(noise))
BLIND = Engine("blind", one_by_one(lambda image, mask, seed: 255 - image), uses_mask=False)


def make(sources, folder, **values):
    return build(sources, folder, **{"n_jobs": 1, "schemas": TWO, "engine": NOISE, **values})


def of(manifest, variant):
    return manifest[manifest["variant"] == variant].reset_index(drop=True)


def grey(path):
    return load_image(path)[:, :, 0]


def test_both_variants_are_made_of_one_output(photos, tmp_path):
    manifest = make([photos / "a.jpg"], tmp_path / "out", variants="both")
    assert list(manifest["variant"]) == ["original"] + ["spliced"] * 2 + ["regenerated"] * 2
    read_manifest(tmp_path / "out" / "manifest.parquet")
    original = load_image(manifest["path"][0])
    pairs = zip(of(manifest, "spliced").itertuples(), of(manifest, "regenerated").itertuples(),
                strict=True)  # fmt: skip
    for spliced, regenerated in pairs:
        assert (spliced.mask_schema, spliced.mask_path, spliced.seed) == (
            regenerated.mask_schema, regenerated.mask_path, regenerated.seed)  # fmt: skip
        mask = grey(spliced.mask_path) == 255
        whole = load_image(regenerated.path)
        np.testing.assert_array_equal(whole, noise(original, mask, regenerated.seed))
        expected = np.where(mask[:, :, None], whole, original)
        np.testing.assert_array_equal(load_image(spliced.path), expected)
        assert (whole[~mask] != original[~mask]).any()


def test_each_variant_alone_is_the_same_as_in_both(photos, tmp_path):
    both = make(photos, tmp_path / "both", variants="both")
    for variant in ("spliced", "regenerated"):
        alone = make(photos, tmp_path / variant, variants=variant)
        assert list(of(alone, variant)["sha256"]) == list(of(both, variant)["sha256"])


@pytest.mark.parametrize("post_processing", ["jpeg:80", "16,webp:70"])
def test_both_variants_share_the_history_of_the_original(post_processing, photos, tmp_path):
    manifest = make(photos, tmp_path / "out", variants="both", post_processing=post_processing)
    for _, rows in manifest.groupby("record"):
        assert (rows[["width", "height", "format", "history"]].nunique() == 1).all()


def test_engine_that_ignores_the_mask_runs_once_a_source(photos, tmp_path):
    calls = []

    def count(image, mask, seed):
        calls.append(mask.all())
        return 255 - image

    engine = Engine("count", one_by_one(count), uses_mask=False)
    manifest = make(photos, tmp_path / "out", engine=engine, variants="both")
    assert calls == [True] * 3
    for _, rows in manifest.groupby("record"):
        assert list(rows["variant"]) == ["original", "spliced", "spliced", "regenerated"]
        last = rows.iloc[-1]
        assert last[["mask_schema", "mask_path"]].isna().all()
        original = load_image(rows["path"].iloc[0])
        np.testing.assert_array_equal(load_image(last["path"]), 255 - original)
        for row in of(rows, "spliced").itertuples():
            mask = grey(row.mask_path)[:, :, None] == 255
            expected = np.where(mask, 255 - original, original)
            np.testing.assert_array_equal(load_image(row.path), expected)
    assert make(photos, tmp_path / "out", engine=engine, variants="both").equals(manifest)
    assert len(calls) == 3


def test_regenerated_alone_without_masks_is_a_record_of_deepfakeart(photos, tmp_path):
    made = make(photos, tmp_path / "out", engine=BLIND, variants="regenerated")
    assert list(made["variant"]) == ["original", "regenerated"] * 3
    read = read_records(tmp_path / "out")
    assert sorted(read["sha256"]) == sorted(made["sha256"])


@pytest.mark.parametrize("blur", [1, 2.5])
def test_soft_edge_blends_and_its_mask_holds_only_what_is_fully_repainted(blur, tmp_path):
    Image.fromarray(draw_image(0, 64, 80)).save(tmp_path / "a.png")
    made = make([tmp_path / "a.png"], tmp_path / "out", edge=f"blur:{blur}", variants="both")
    original = load_image(tmp_path / "a.png")
    for spliced, whole in zip(
        of(made, "spliced").itertuples(), of(made, "regenerated").itertuples(), strict=True
    ):
        folder = tmp_path / "out" / spliced.record
        alpha = grey(folder / f"blend_{spliced.mask_schema}.png")
        mask = grey(spliced.mask_path) == 255
        fake, output = load_image(spliced.path), load_image(whole.path)
        np.testing.assert_array_equal(mask, alpha == 255)
        np.testing.assert_array_equal(fake[mask], output[mask])
        np.testing.assert_array_equal(fake[alpha == 0], original[alpha == 0])
        share = alpha[:, :, None] / 255
        exact = share * output + (1 - share) * original
        assert np.abs(fake - exact).max() <= 0.5 + 1e-9
        assert 0 < ((alpha > 0) & (alpha < 255)).mean() < 1


def test_weights_of_a_soft_edge_are_those_of_a_gaussian():
    mask = np.zeros((40, 120), bool)
    mask[:, 60:] = True
    weights = blend_weights(mask, 4.0)[20] / 255
    x = np.arange(120) - 59.5
    exact = np.array([0.5 * (1 + math.erf(v / (4 * 2**0.5))) for v in x])
    assert np.abs(weights - exact).max() < 0.01
    assert set(np.unique(blend_weights(mask, 0))) == {0, 255}
    assert (blend_weights(np.ones((20, 20), bool), 5.0) == 255).all()  # no ramp at the border


def test_blend_is_exact_at_its_ends():
    original, output = draw_image(1), draw_image(2)
    for alpha, expected in ((0, original), (255, output)):
        weights = np.full(original.shape[:2], alpha, np.uint8)
        np.testing.assert_array_equal(blend(original, output, weights), expected)


def test_edge_that_eats_the_mask_is_an_error_of_that_schema_only(tmp_path):
    Image.fromarray(draw_image(0, 48, 48)).save(tmp_path / "a.png")
    made = make([tmp_path / "a.png"], tmp_path / "out", edge="blur:6",
                schemas=["left", "random_patches"])  # fmt: skip
    assert set(made["mask_schema"].dropna()) == {"left"}
    (entry,) = made.attrs["skipped"]
    assert "random_patches: " in entry["reason"]
    assert "fully repainted" in entry["reason"]


@pytest.mark.parametrize("edge", ["soft", "blur", "blur:0", "blur:-1", "blur:1e9", "blur:x"])
def test_unknown_edge_is_refused(edge, photos, tmp_path):
    with pytest.raises(GenerationError, match=r"blur:R.*blur:4"):
        make(photos, tmp_path / "out", edge=edge)


def test_edge_without_a_splice_is_refused(photos, tmp_path):
    with pytest.raises(GenerationError, match="nothing is pasted"):
        make(photos, tmp_path / "out", edge="blur:3", variants="regenerated")


@pytest.mark.parametrize("variants", ["inpainted", [], ["spliced", "spliced"], "original"])
def test_unknown_variants_are_refused(variants, photos, tmp_path):
    with pytest.raises(GenerationError, match="both"):
        make(photos, tmp_path / "out", variants=variants)


def test_engine_gets_the_masks_of_a_source_in_batches(photos, tmp_path):
    batches = []

    def repaint(tasks):
        batches.append([task.path for task in tasks])
        return [noise(task.image, task.mask, task.seed) for task in tasks]

    engine = Engine("batched", repaint, batch_size=2)
    schemas = ["left", "right", "top", "bottom", "random_patches"]
    made = make(photos, tmp_path / "out", engine=engine, schemas=schemas)
    assert [len(batch) for batch in batches] == [2, 2, 1] * 3
    assert all(len(set(batch)) == 1 for batch in batches)
    single = make(photos, tmp_path / "single", schemas=schemas)
    assert list(made["sha256"]) == list(single["sha256"])


def test_prompt_of_the_manifest_outranks_that_of_the_engine(photos, tmp_path):
    seen = []

    def repaint(tasks):
        seen.extend(task.prompt for task in tasks)
        return [255 - task.image for task in tasks]

    files = sorted(photos.rglob("*.*g"))
    prompts = ["a lake", None, "  "]
    rows = [make_row(f, 0, f"s{i}", prompt=p) for i, (f, p) in
            enumerate(zip(files, prompts, strict=True))]  # fmt: skip
    engine = Engine("painter", repaint, prompt="the rest")
    made = make(make_manifest(rows), tmp_path / "out", engine=engine, schemas=["left"])
    assert seen == ["a lake", "the rest", "the rest"]
    assert list(made[made["label"] == 1]["prompt"]) == seen
    assert made[made["label"] == 0]["prompt"].isna().all()
    seen.clear()
    make(files, tmp_path / "other", engine=engine, schemas=["left"], prompt="trees")
    assert seen == ["trees"] * 3


def test_prompt_for_an_engine_without_one_is_refused(photos, tmp_path):
    with pytest.raises(GenerationError, match=r"'noise' takes no prompt.*'trees'"):
        make(photos, tmp_path / "out", prompt="trees")


def test_engine_names_its_working_size_unless_the_history_does(photos, tmp_path):
    shapes = []

    def repaint(tasks):
        shapes.append(tasks[0].image.shape[:2])
        return [255 - task.image for task in tasks]

    engine = Engine("sized", repaint, size=(24, 16))
    made = make([photos / "a.jpg"], tmp_path / "0", engine=engine, schemas=["left"])
    assert set(made["history"]) == {"24x16,png"}
    other = make([photos / "a.jpg"], tmp_path / "1", engine=engine, schemas=["left"],
                 post_processing="20,jpeg:90")  # fmt: skip
    assert set(other["history"]) == {"20x20,jpeg:90"}
    assert shapes == [(16, 24), (20, 20)]
    assert set(zip(made["width"], made["height"], strict=True)) == {(36, 24)}


def test_one_failing_image_costs_that_image_only(photos, tmp_path):
    def repaint(tasks):
        return [
            ImageError("withheld") if task.mask[0, 0] and not task.mask[0, -1] else 255 - task.image
            for task in tasks
        ]

    engine = Engine("picky", repaint, batch_size=2)
    made = make(photos, tmp_path / "out", engine=engine, schemas=["left", "right"])
    assert set(made["mask_schema"].dropna()) == {"right"}
    reasons = [entry["reason"] for entry in made.attrs["skipped"]]
    assert reasons == ["left: withheld"] * 3
    read_manifest(tmp_path / "out" / "manifest.parquet")
    again = make(photos, tmp_path / "out", engine=Engine("picky", lambda tasks: [
        255 - task.image for task in tasks]), schemas=["left", "right"])  # fmt: skip
    assert set(again["mask_schema"].dropna()) == {"left", "right"}
    assert again.attrs["skipped"] == []


def test_engine_that_fails_on_an_image_does_not_stop_the_others(photos, tmp_path):
    def fail(image, mask, seed):
        if image.shape[0] == 24:
            raise RuntimeError("kernel launch failed")
        return 255 - image

    made = make(photos, tmp_path / "out", engine=Engine("frail", one_by_one(fail)))
    assert made["source_id"].nunique() == 2
    assert "RuntimeError: kernel launch failed" in made.attrs["skipped"][0]["reason"]


@pytest.mark.parametrize("side", [1, 15])
def test_sources_below_16_pixels_are_left_out_with_the_rule(side, photos, tmp_path):
    Image.fromarray(draw_image(5, side, 40)).save(photos / "small.png")
    made = make(photos, tmp_path / "out")
    (entry,) = made.attrs["skipped"]
    assert entry["path"].endswith("small.png")
    assert f"40x{side} pixels; a source has at least 16 a side" in entry["reason"]


@pytest.fixture
def round_trips(tmp_path):
    """Three sources with a finished repainting each, one of another size."""
    for i, size in enumerate([(36, 24), (40, 30), (64, 48)]):
        folder = tmp_path / "in" / f"record{i}"
        folder.mkdir(parents=True)
        image = Image.fromarray(draw_image(i, size[1], size[0]))
        image.save(folder / "original.jpg")
        trip = image.resize((32, 32), Image.Resampling.LANCZOS) if i == 2 else image
        Image.fromarray(cv2.GaussianBlur(np.array(trip), (3, 3), 0)).save(
            folder / "inpainting.webp", lossless=True
        )
    return tmp_path / "in"


def test_file_engine_takes_what_is_on_disk(round_trips, tmp_path):
    originals = sorted(round_trips.rglob("original.jpg"))
    made = make(originals, tmp_path / "out", engine="file:inpainting.webp", variants="both")
    assert set(made["engine"].dropna()) == {"file:inpainting.webp"}
    for source, (_, rows) in zip(originals, made.groupby("record", sort=False), strict=True):
        trip = load_image(source.parent / "inpainting.webp")
        size = (trip.shape[1], trip.shape[0])
        original = Image.fromarray(load_image(source)).resize(size, Image.Resampling.LANCZOS)
        if load_image(source).shape == trip.shape:
            original = Image.fromarray(load_image(source))
            assert rows["resized_from"].isna().all()
        else:
            assert set(rows["resized_from"]) == {"64x48"}
        np.testing.assert_array_equal(load_image(rows["path"].iloc[0]), np.array(original))
        np.testing.assert_array_equal(load_image(rows["path"].iloc[-1]), trip)
        assert set(zip(rows["width"], rows["height"], strict=True)) == {size}


def test_file_engine_without_the_file_leaves_the_source_out(round_trips, tmp_path):
    (round_trips / "record1" / "inpainting.webp").unlink()
    originals = sorted(round_trips.rglob("original.jpg"))
    made = make(originals, tmp_path / "out", engine="file:inpainting.webp")
    assert made["source_id"].nunique() == 2
    assert "inpainting.webp" in made.attrs["skipped"][0]["reason"]


def test_file_engine_finds_files_elsewhere(round_trips, tmp_path):
    (tmp_path / "fakes").mkdir()
    for i in range(3):
        trip = round_trips / f"record{i}" / "inpainting.webp"
        trip.rename(tmp_path / "fakes" / f"record{i}-original.webp")
    made = make(sorted(round_trips.rglob("original.jpg")), tmp_path / "out",
                engine="file:../../fakes/{folder}-{stem}.webp")  # fmt: skip
    assert made["source_id"].nunique() == 3


@pytest.mark.parametrize("pattern", ["file", "file:", "file:{name}.png", "file:{", "file:{}"])
def test_file_engine_refuses_other_patterns(pattern, photos, tmp_path):
    with pytest.raises(EngineError, match=r"Write for example file:"):
        make(photos, tmp_path / "out", engine=pattern)


def test_file_engine_refuses_another_working_size(round_trips, tmp_path):
    with pytest.raises(GenerationError, match="Leave the size out"):
        make(sorted(round_trips.rglob("original.jpg")), tmp_path / "out",
             engine="file:inpainting.webp", post_processing="20,png")  # fmt: skip


def test_engine_that_loses_an_image_is_broken():
    task = Task(draw_image(0), np.eye(24, 36, dtype=bool))
    with pytest.raises(EngineError, match="returned 1 images for 2 tasks"):
        Engine("lossy", lambda tasks: [tasks[0].image], batch_size=2).repaint_all([task, task])
