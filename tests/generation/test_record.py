import numpy as np
import pytest

from cnnsvm.generation.record import MAX_SIDE, draw_panel

NAMES = ("original", "mask", "inpainting")


def panel(height, width):
    red = np.zeros((height, width, 3), np.uint8)
    red[:, :, 0] = 255
    return draw_panel(list(zip(NAMES, (red, np.ones((height, width), bool), red), strict=True)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 32), (80, 600), (400, 80), (321, 481)])
def test_every_image_is_there_at_its_size(height, width):
    drawn = panel(height, width)
    assert drawn.dtype == np.uint8
    assert (drawn == (255, 0, 0)).all(axis=2).sum() == 2 * height * width
    assert drawn.shape[0] > height
    assert drawn.shape[1] >= 3 * width


def test_labels_fit_into_their_cells():
    drawn = panel(32, 32)
    strip = drawn[:20]
    text = np.flatnonzero((strip == 255).any(axis=(0, 2)) | (strip.min(axis=(0, 2)) > 200))
    gaps = np.flatnonzero((strip > 250).all(axis=(0, 2)))
    assert len(gaps) == 8  # two white gaps of 4, no text runs into them
    for gap in (gaps[0] - 1, gaps[3] + 1, gaps[4] - 1, gaps[7] + 1):
        assert gap not in text


def test_labels_tell_the_images_apart():
    red = np.zeros((50, 100, 3), np.uint8)
    one, other = (draw_panel([(name, red)]) for name in NAMES[:2])
    assert one.shape == other.shape
    assert (one[:22] != other[:22]).any()
    np.testing.assert_array_equal(one[22:], other[22:])


def test_large_images_are_shown_smaller():
    assert panel(1000, 2000).shape[1] <= 3 * MAX_SIDE + 8
