import itertools

import cv2
import numpy as np
import pytest
from generation_helpers import draw_image
from skimage.transform import AffineTransform
from skimage.transform import warp as skimage_warp

from cnnsvm.generation import build
from cnnsvm.generation.engines import Engine, EngineError, get_engine, one_by_one, opencv
from cnnsvm.generation.engines.opencv import KERNELS, MAX_ANGLE, MAX_SHIFT, SCALES, draw_warp
from cnnsvm.generation.store import GenerationError


def warp(image, seed):
    return get_engine("self-blend")(image, np.eye(*image.shape[:2], dtype=bool), seed)


def test_it_is_never_the_image_itself():
    image = draw_image(0, 40, 56)
    for seed in range(20):
        assert (warp(image, seed) != image).any(axis=2).mean() > 0.5


def test_equals_scikit_image_with_a_reflected_border(monkeypatch):
    monkeypatch.setattr(opencv, "KERNELS", (cv2.INTER_LINEAR,))
    image = draw_image(0, 60, 90)
    for seed in range(5):
        matrix, _ = draw_warp(90, 60, np.random.default_rng([seed, opencv._STREAM]))
        back = AffineTransform(np.vstack([matrix, [0, 0, 1]])).inverse
        wanted = skimage_warp(image, back, order=1, mode="symmetric", preserve_range=True)
        # OpenCV rounds positions to 1/32 pixel
        assert np.abs(warp(image, seed) - wanted).max() < 2


def test_kernels_differ(monkeypatch):
    image = draw_image(0, 40, 56)
    outputs = []
    for kernel in KERNELS:
        monkeypatch.setattr(opencv, "KERNELS", (kernel,))
        outputs.append(warp(image, 0))
    assert all((a != b).any() for a, b in itertools.combinations(outputs, 2))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 301), (17, 16)])
def test_any_size(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    output = warp(image, 3)
    assert (output.shape, output.dtype) == (image.shape, np.uint8)
    if size == (1, 1):
        np.testing.assert_array_equal(output, image)  # reflected, it is all there is


def test_flat_stays_flat_as_the_border_is_reflected():
    image = np.full((30, 50, 3), (10, 120, 240), np.uint8)
    for seed in range(10):
        assert np.abs(warp(image, seed).astype(int) - image).max() <= 1


def test_draws_keep_to_their_limits_and_fill_them():
    rng = np.random.default_rng(0)
    draws = [draw_warp(101, 61, rng) for _ in range(400)]
    scales = [np.hypot(*matrix[0, :2]) for matrix, _ in draws]
    angles = [np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])) for matrix, _ in draws]
    shifts = np.array([matrix @ (50, 30, 1) - (50, 30) for matrix, _ in draws])
    for values, low, high in (
        (scales, *SCALES),
        (angles, -MAX_ANGLE, MAX_ANGLE),
        (shifts[:, 0], -MAX_SHIFT, MAX_SHIFT),
        (shifts[:, 1], -MAX_SHIFT, MAX_SHIFT),
    ):
        margin = 0.03 * (high - low)
        assert low - 1e-9 <= min(values) < low + margin
        assert high - margin < max(values) <= high + 1e-9
    assert {kernel for _, kernel in draws} == set(KERNELS)


def test_takes_no_argument():
    with pytest.raises(EngineError, match="takes no argument, got '5'"):
        get_engine("self-blend:5")


@pytest.mark.parametrize("variants", ["regenerated", "both", ("regenerated", "spliced")])
def test_a_turned_original_is_no_regenerated_fake(tmp_path, photos, variants):
    message = (
        r"'self-blend' makes spliced fakes only, got variants .*regenerated.*Choose "
        r"variants='spliced' or another engine"
    )
    with pytest.raises(GenerationError, match=message):
        build(photos, tmp_path / "out", engine="self-blend", variants=variants)
    assert not (tmp_path / "out").exists()


def test_an_engine_may_refuse_to_be_spliced_too(tmp_path, photos):
    engine = Engine("whole", one_by_one(lambda image, *_: image), variants=("regenerated",))
    with pytest.raises(GenerationError, match="'whole' makes regenerated fakes only"):
        build(photos, tmp_path / "out", engine=engine)
    made = build(photos, tmp_path / "out", engine=engine, variants="regenerated", schemas="top")
    assert set(made["variant"]) == {"original", "regenerated"}
    assert get_engine("opencv-ns").variants == ("regenerated", "spliced")


def test_every_schema_of_a_source_gets_a_draw_of_its_own(tmp_path, photos):
    from cnnsvm.data.images import load_image

    made = build(photos, tmp_path / "out", engine="self-blend", schemas=("left", "left:0.4-0.6"))
    fakes = made[made["label"] == 1]
    assert len(fakes) == 6
    assert set(fakes["engine"]) == {"self-blend"}
    for _, pair in fakes.groupby("source_id"):
        first, second = (load_image(path) for path in pair["path"])
        assert (first != second).any()
