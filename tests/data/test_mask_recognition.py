import io

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.mask_shapes import MASK_SCHEMAS, classify_mask

SIZES = [(256, 256), (47, 85), (321, 481), (1500, 700)]


def as_image(mask):
    return Image.fromarray(mask.astype(np.uint8) * 255)


def soften(mask):
    """Scale to 63 % with soft edges and compress, as a mask that was saved carelessly."""
    image, buffer = as_image(mask), io.BytesIO()
    smaller = image.resize((image.width * 63 // 100, image.height * 63 // 100))
    smaller.save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer)) >= 128


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MASK_SCHEMAS)
def test_every_schema_is_recognised(name, size):
    for seed in range(5 if name == "random_patches" else 1):
        mask = MASK_SCHEMAS[name](*size, np.random.default_rng(seed))
        assert classify_mask(mask) == name
        assert classify_mask(soften(mask)) == name


@pytest.mark.parametrize("name", [name for name in MASK_SCHEMAS if name != "random_patches"])
def test_halves_may_be_a_little_off(name):
    rng = np.random.default_rng(0)
    mask = np.roll(MASK_SCHEMAS[name](200, 200, rng), (4, 4), axis=(0, 1))
    mask[:4], mask[:, :4] = mask[4], mask[:, 4:5]
    mask[rng.random(mask.shape) < 0.01] ^= True
    assert classify_mask(mask) == name


def shapes(size=256):
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    noise = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    return {
        "nothing": np.zeros((size, size), bool),
        "everything": np.ones((size, size), bool),
        "disc": x**2 + y**2 < 0.16,
        "square": (abs(x) < 0.36) & (abs(y) < 0.36),
        "cross": (abs(x) < 0.15) | (abs(y) < 0.15),
        "upper 30 %": y < -0.2,
        "beside the diagonal": x + y < -0.2,
        "stripes": np.floor(y * 8) % 2 == 0,
        "noise": noise > 0,
        "blobs": cv2.GaussianBlur(noise, (0, 0), 12) > 0,
    }


@pytest.mark.parametrize("name", shapes())
def test_other_shapes_are_unknown(name):
    assert classify_mask(shapes()[name]) is None


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_patches_that_cover_too_little_or_too_much_are_unknown(share):
    rng, mask = np.random.default_rng(0), np.zeros((256, 256), bool)
    while mask.mean() < share:
        y, x, height, width = *rng.integers(0, 240, 2), *rng.integers(16, 65, 2)
        mask[y : y + height, x : x + width] = True
    assert classify_mask(mask) is None


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), bool),
        np.zeros((0, 4), bool),
    ],
)
def test_only_masks_are_classified(mask):
    with pytest.raises(ValueError, match="a mask is a bool array of shape"):
        classify_mask(mask)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 3)])
def test_tiny_masks_do_not_fail(size):
    assert classify_mask(np.zeros(size, bool)) is None
