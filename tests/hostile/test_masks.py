"""Masks as tools write them: each covers what it means, or is refused with the reason."""

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsvm.audit.exploration import describe_mask
from cnnsvm.audit.outside import compare_outside
from cnnsvm.data.mask_files import MaskError, read_mask_levels
from cnnsvm.generation.matching import _File, _mask_content

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
    "1 in one channel": colours((0, 0, 0), (1, 0, 0)),
    "a soft edge": cv2.GaussianBlur(grey(0, 255), (3, 3), 0.5),
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
    "numbers of classes": np.where(np.arange(30) < 12, grey(0, 2), grey(1, 1)),
    "classes and what is void": np.where(np.arange(30) < 12, grey(0, 255), grey(15, 15)),
    "a trimap": np.where(np.arange(30) < 12, grey(0, 255), grey(128, 128)),
    "classes in one channel": np.stack([np.diag([1, 2, 0])] * 9).astype(np.uint8),
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


@pytest.mark.parametrize("quality", [25, 60, 90])
def test_a_mask_that_was_a_jpeg_has_no_classes(quality, tmp_path):
    large = np.kron(grey(0, 255), np.ones((8, 8), np.uint8))
    Image.fromarray(large).save(tmp_path / "mask.jpg", quality=quality)
    with Image.open(tmp_path / "mask.jpg") as opened:
        opened.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_levels(tmp_path / "mask.png") >= 128, large > 0)


def test_a_mask_is_the_same_for_the_audit_the_study_and_the_match(tmp_path):
    """Black and blue has nothing in the channel that a quick look would take."""
    Image.fromarray(colours((0, 0, 0), (0, 0, 255))).save(tmp_path / "mask.png")
    assert describe_mask(str(tmp_path / "mask.png"))["coverage"] == HOLE.mean()
    file = _File(str(tmp_path / "mask.png"), (30, 20), "", tmp_path / "new.png")
    (tmp_path / "new.png").write_bytes(_mask_content(file, (60, 40)))
    assert (read_mask_levels(tmp_path / "new.png") >= 128).mean() == HOLE.mean()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "real.png")
    pair = {"path_real": tmp_path / "real.png", "mask_path_fake": tmp_path / "mask.png"}
    pixels[HOLE] = 0
    Image.fromarray(pixels).save(tmp_path / "fake.png")
    pair |= {"path_fake": tmp_path / "fake.png", "lossy_fake": False, "lossy_real": False}
    found = compare_outside(pair | {"source_id_fake": "a"})
    assert found is None or found.changed == 0
