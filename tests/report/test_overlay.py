"""A heatmap that can be read: colours, contour, strip, at every size."""

import colorsys

import numpy as np
import pytest

from cnnsvm.report.overlay import (
    LEAST_SHOWN,
    MOST_SHOWN,
    NOTHING_STANDS_OUT,
    _coloured,
    _wrapped,
    blend,
    draw_overlay,
)

GREY = np.full((40, 60, 3), 120, np.uint8)


def spot(height, width):
    heat = np.full((height, width), 0.1, np.float32)
    heat[height // 4 : height // 2, width // 4 : width // 2] = 0.9
    return heat


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (300, 40), (200, 5000), (4200, 30)])
def test_the_image_is_not_covered_at_any_size(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    bare = draw_overlay(pixels, spot(*size), 0.5)
    said = draw_overlay(pixels, spot(*size), 0.5, "A part was repainted (0.93). " * 20)
    longest, factor = max(size), 1.0
    if longest > MOST_SHOWN:
        factor = MOST_SHOWN / longest
    elif longest < LEAST_SHOWN:
        factor = LEAST_SHOWN // longest
    height = round(size[0] * factor)
    np.testing.assert_array_equal(said[:height], bare[:height])
    assert said.shape[0] > bare.shape[0] > height
    assert said.shape[1] == bare.shape[1] >= round(size[1] * factor)
    assert max(said.shape[:2]) < 2 * MOST_SHOWN


def test_the_colours_keep_their_order_without_hue():
    ramp = np.linspace(0, 1, 100, dtype=np.float32)[None]
    shown = _coloured(np.full(ramp.shape, 128, np.uint8), ramp)[0] / 255
    red, green, blue = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4).T
    lightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    assert lightness[-1] > 2 * lightness[50]
    assert (np.diff(lightness[30:]) > 0).all()
    saturation = [colorsys.rgb_to_hsv(*colour)[1] for colour in shown]
    assert min(saturation[30:]) > 0.2  # no grey that could be the image's own


def test_the_contour_is_the_threshold():
    drawn = blend(GREY, spot(40, 60), 0.5)
    plain = blend(GREY, spot(40, 60))
    changed = (drawn != plain).any(axis=2)
    inside = np.zeros_like(changed)
    inside[8:22, 13:32] = True
    assert changed.any()
    assert not changed[~inside].any()
    assert not changed[14:16, 20:25].any()
    assert (blend(GREY, spot(40, 60), 0.95) == plain).all()


def test_it_says_that_nothing_stands_out(monkeypatch):
    said = []
    monkeypatch.setattr(
        "cnnsvm.report.overlay._strip",
        lambda width, threshold, caption: said.append(caption) or np.zeros((1, width, 3), np.uint8),
    )
    for threshold in (0.95, 0.9, None):
        draw_overlay(GREY, spot(40, 60), threshold, "Unsure.")
    assert said == [f"Unsure. {NOTHING_STANDS_OUT}", "Unsure.", "Unsure."]


def test_lines_are_no_wider_than_the_strip():
    from PIL import ImageFont

    font = ImageFont.load_default(13)
    text = "some words and " + "a-very-long-id" * 20
    lines = _wrapped(text, font, 200)
    assert max(font.getlength(line) for line in lines) <= 200
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert _wrapped("", font, 200) == []
