"""Masks as tools write them: each covers what it means, or is refused with the reason."""

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.mask_files import MaskError, read_mask_levels

HOLE = np.zeros((20, 30), dtype=bool)
HOLE[4:9, 6:20] = True


def grey(black, white, dtype=np.uint8):
    return np.where(HOLE, dtype(white), dtype(black))


def colours(*levels):
    return np.array(levels, dtype=np.uint8)[HOLE.astype(int)]


def palette(first, second):
    image = Image.fromarray(HOLE.astype(np.uint8), "P")
    image.putpalette([*first, *second])
    return image


def with_alpha(rgb, inside, outside):
    alpha = np.where(HOLE, inside, outside)[:, :, None].astype(np.uint8)
    return np.concatenate([np.broadcast_to(np.uint8(rgb), (*HOLE.shape, 3)), alpha], axis=2)


MEANT = {
    "grey": grey(0, 255),
    "grey with some grey": grey(40, 200),
    "0 and 1": grey(0, 1),
    "16 bits": Image.fromarray(grey(0, 65535, np.uint16)),
    "1 bit": Image.fromarray(HOLE),
    "red on black": colours((0, 0, 0), (255, 0, 0)),
    "dark blue on black": colours((0, 0, 0), (0, 0, 90)),
    "palette of black and white": palette((0, 0, 0), (255, 255, 255)),
    "palette of black and green": palette((0, 0, 0), (0, 128, 0)),
    "palette of white": palette((10, 10, 10), (250, 250, 250)),
    "constant alpha": np.dstack([np.repeat(grey(0, 255)[:, :, None], 3, 2), grey(255, 255)]),
}


@pytest.mark.parametrize("mask", MEANT.values(), ids=MEANT)
def test_what_is_meant_is_covered(mask, tmp_path):
    np.testing.assert_array_equal(read_mask_levels(mask) >= 128, HOLE)
    image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_levels(tmp_path / "mask.png") >= 128, HOLE)


AMBIGUOUS = {
    "red on green": colours((0, 255, 0), (255, 0, 0)),
    "three colours": np.stack([np.eye(3, dtype=np.uint8) * 255] * 2),
    "a hole of transparency": with_alpha((90, 90, 90), 0, 255),
    "a mask of opacity": with_alpha((255, 255, 255), 255, 0),
}


@pytest.mark.parametrize("mask", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_ambiguous_is_refused_with_the_remedy(mask, tmp_path):
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for given in (mask, tmp_path / "mask.png"):
        with pytest.raises(MaskError, match="Save it as grey, white where"):
            read_mask_levels(given)


def test_the_tint_of_a_jpeg_is_no_colour(tmp_path):
    Image.fromarray(grey(0, 255)).convert("RGB").save(tmp_path / "mask.jpg", quality=30)
    found = read_mask_levels(tmp_path / "mask.jpg") >= 128
    assert (found == HOLE).mean() > 0.9


def test_all_black_is_untouched():
    assert not read_mask_levels(np.zeros((9, 9), np.uint8)).any()
