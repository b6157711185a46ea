import io

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.evaluation import corruptions
from cnnsvm.evaluation.corruptions import (
    CORRUPTIONS,
    MEANINGS,
    check_corruptions,
    corrupt,
    kind_of,
)

SIDES = (101, 150)  # odd ones, so that rounding shows


@pytest.fixture(scope="module")
def sample_image():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (13, 19, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(SIDES[::-1], Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def blockiness(image, offset):
    """Mean step over the borders of 8x8 blocks that start at an offset, by that elsewhere."""
    steps = np.abs(np.diff(image.astype(float), axis=1)).mean(axis=(0, 2))
    borders = (np.arange(1, len(steps) + 1) - offset) % 8 == 0
    return steps[borders].mean() / steps[~borders].mean()


def places(small, large):
    """Find where a crop was cut from."""
    found = cv2.matchTemplate(large, small, cv2.TM_SQDIFF)
    return np.unravel_index(found.argmin(), found.shape)


def test_clean_comes_first_and_the_promised_ones_are_there():
    promised = {
        *("clean", "jpeg-95", "jpeg-90", "jpeg-75", "jpeg-60", "jpeg-40", "webp-80", "webp-60"),
        *("resize-0.5", "resize-0.75", "resize-1.5", "resize-2.0", "blur-0.5", "blur-1.0"),
        *("noise-2", "noise-5", "crop", "screenshot"),
    }
    assert promised <= set(CORRUPTIONS)
    assert next(iter(CORRUPTIONS)) == "clean"
    assert {kind_of(name) for name in CORRUPTIONS} == set(MEANINGS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_seed_repeats_and_the_input_stays(sample_image, name):
    before = sample_image.copy()
    first = corrupt(sample_image, name, 3)
    np.testing.assert_array_equal(first, corrupt(sample_image, name, 3))
    np.testing.assert_array_equal(sample_image, before)
    assert first.dtype == np.uint8
    assert not np.shares_memory(first, sample_image)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2), (8, 8), (16, 3)])
def test_the_smallest_images_survive(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(4):
        height, width, channels = corrupt(pixels, name, seed).shape
        assert min(height, width) >= 1
        assert channels == 3


@pytest.mark.parametrize("name", ["noise-2", "noise-5", "crop", "screenshot"])
def test_another_seed_draws_something_else(sample_image, name):
    results = [corrupt(sample_image, name, seed).tobytes() for seed in range(5)]
    assert len(set(results)) == 5


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if kind_of(name) != "noise"])
def test_a_source_and_its_fake_keep_the_pixels_that_they_share(sample_image, name):
    """Where nothing was repainted, both come out alike: cut, scaled and noised in one place."""
    fake = sample_image.copy()
    fake[80:, 120:] = 128
    for seed in range(3):
        real, other = corrupt(sample_image, name, seed), corrupt(fake, name, seed)
        assert real.shape == other.shape
        height, width = real.shape[0] // 3, real.shape[1] // 3
        moved = np.abs(real[:height, :width].astype(int) - other[:height, :width]).mean()
        assert moved <= (8 if kind_of(name) in ("webp", "screenshot") else 0)  # WebP adapts
        assert (real != other).any()


def test_noise_is_the_same_for_a_source_and_its_fake():
    dark, light = (np.full((40, 30, 3), value, dtype=np.uint8) for value in (90, 140))
    moved = [corrupt(image, "noise-5", 1).astype(int) - image for image in (dark, light)]
    np.testing.assert_array_equal(*moved)


def test_clean_keeps_every_pixel(sample_image):
    np.testing.assert_array_equal(corrupt(sample_image, "clean", 0), sample_image)


@pytest.mark.parametrize("quality", [95, 90, 75, 60, 40])
def test_jpeg_is_that_of_pillow(sample_image, quality):
    buffer = io.BytesIO()
    Image.fromarray(sample_image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as written:
        expected = np.asarray(written.convert("RGB"))
    np.testing.assert_array_equal(corrupt(sample_image, f"jpeg-{quality}", 0), expected)


def test_stronger_compression_loses_more(sample_image):
    for kind, qualities in (("jpeg", (95, 90, 75, 60, 40)), ("webp", (80, 60))):
        losses = [psnr(corrupt(sample_image, f"{kind}-{q}", 0), sample_image) for q in qualities]
        assert losses == sorted(losses, reverse=True)
        assert 20 < losses[-1] < losses[0] < 50


def test_strong_jpeg_leaves_its_grid(sample_image):
    assert blockiness(corrupt(sample_image, "jpeg-40", 0), 0) > 1.3 * blockiness(sample_image, 0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resize-0.5", (50, 75)),
        ("resize-0.75", (75, 112)),
        ("resize-1.5", (151, 225)),
        ("resize-2.0", (202, 300)),
        ("crop", (76, 112)),
    ],
)
def test_sizes_change_as_told(sample_image, name, shape):
    assert corrupt(sample_image, name, 0).shape == (*shape, 3)


def test_resizing_is_pillows_bicubic(sample_image):
    expected = Image.fromarray(sample_image).resize((75, 50), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(corrupt(sample_image, "resize-0.5", 0), np.asarray(expected))


def test_what_would_become_too_large_is_cut_first(sample_image, monkeypatch):
    monkeypatch.setattr(corruptions, "MAX_PIXELS", 20_000)
    large = corrupt(sample_image, "resize-2.0", 0)
    height, width, _ = large.shape
    assert 19_000 < height * width <= 20_000
    assert width / height == pytest.approx(150 / 101, rel=0.03)
    whole = np.asarray(Image.fromarray(sample_image).resize((300, 202), Image.Resampling.BICUBIC))
    inner = large[8:-8, 8:-8]
    top, left = places(inner, whole)
    np.testing.assert_array_equal(
        whole[top : top + inner.shape[0], left : left + inner.shape[1]], inner
    )
    assert abs(top + inner.shape[0] / 2 - 101) <= 2  # the middle


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_blur_spreads_a_point_by_its_sigma(sigma):
    point = np.zeros((31, 31, 3), dtype=np.uint8)
    point[15, 15] = 255
    weights = corrupt(point, f"blur-{sigma}", 0)[:, :, 0].astype(float)
    across = np.arange(31) - 15
    spread = np.sqrt((weights.sum(axis=0) * across**2).sum() / weights.sum())
    assert spread == pytest.approx(sigma, rel=0.1)
    assert weights.sum() == pytest.approx(255, rel=0.05)


@pytest.mark.parametrize("sigma", [2, 5])
def test_noise_has_its_sigma_and_no_drift(sigma):
    grey = np.full((1100, 60, 3), 128, dtype=np.uint8)  # several strips
    noise = corrupt(grey, f"noise-{sigma}", 0).astype(float) - 128
    assert noise.std() == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.02)  # and rounding
    assert abs(noise.mean()) < 0.05
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02
    assert not np.array_equal(noise[:512], noise[512:1024])


def test_noise_is_clipped_and_does_not_wrap():
    for value in (0, 255):
        flat = np.full((40, 40, 3), value, dtype=np.uint8)
        assert np.abs(corrupt(flat, "noise-5", 0).astype(int) - value).max() < 30


def test_crops_lie_off_the_grid_and_everywhere(sample_image):
    corners = [places(corrupt(sample_image, "crop", seed), sample_image) for seed in range(40)]
    tops, lefts = np.array(corners).T
    assert (tops % 8 > 0).all()
    assert (lefts % 8 > 0).all()
    for starts, room in ((tops, 101 - 76), (lefts, 150 - 112)):
        assert starts.min() <= room // 5
        assert starts.max() >= room - room // 5


def test_a_screenshot_is_resized_and_loses_the_grid(sample_image):
    shapes = {corrupt(sample_image, "screenshot", seed).shape for seed in range(30)}
    ratios = np.array([shape[:2] for shape in shapes]) / SIDES
    assert ratios.min() > 0.8
    assert ratios.max() < 1.1
    assert np.ptp(ratios, axis=0).min() > 0.1
    rough = np.kron(sample_image[:100, :144], np.ones((2, 2, 1))).astype(np.uint8)
    blocked = corrupt(rough, "jpeg-40", 0)
    assert blockiness(corrupt(blocked, "screenshot", 0), 0) < 0.8 * blockiness(blocked, 0)


def test_a_screenshot_is_compressed_twice_on_two_grids(sample_image, monkeypatch):
    codecs, cuts = [], []
    recompress, written = corruptions._recompress, [sample_image]

    def watch(image, rng, *, codec, quality):
        codecs.append((codec, quality))
        cuts.append(np.subtract(written[-1].shape, image.shape)[:2])
        written.append(recompress(image, rng, codec=codec, quality=quality))
        return written[-1]

    monkeypatch.setattr(corruptions, "_recompress", watch)
    for seed in range(40):
        corrupt(sample_image, "screenshot", seed)
    assert set(codecs[::2]) == {("jpeg", 85)}
    assert set(codecs[1::2]) == {("jpeg", 75), ("webp", 80)}
    assert set(np.ravel(cuts[1::2])) == set(range(1, 8))


def test_what_can_be_loaded_can_be_degraded(sample_image, tmp_path):
    Image.fromarray(sample_image).save(tmp_path / "a.png")
    expected = corrupt(sample_image, "screenshot", 1)
    np.testing.assert_array_equal(corrupt(tmp_path / "a.png", "screenshot", 1), expected)
    assert corrupt(sample_image[..., 0], "jpeg-75", 0).shape == sample_image.shape


def test_an_unknown_name_is_told_the_choices(sample_image):
    with pytest.raises(
        ValueError, match=r"no corruption 'jpeg-50'. There is: clean, jpeg-95.*crop"
    ):
        corrupt(sample_image, "jpeg-50", 0)
    with pytest.raises(ValueError, match="'crop' is listed more than once"):
        check_corruptions(["crop", "clean", "crop"])
    with pytest.raises(ValueError, match="no corruption is listed"):
        check_corruptions([])


def test_an_image_that_a_codec_cannot_hold_is_named(tmp_path):
    path = tmp_path / "long.png"
    Image.new("RGB", (16400, 1)).save(path)
    with pytest.raises(ImageError, match=r"long\.png: webp-80: 16400x1 .* Choose another codec"):
        corrupt(path, "webp-80", 0)
    with pytest.raises(ImageError, match="float64"):
        corrupt(np.zeros((4, 4, 3)), "clean", 0)
