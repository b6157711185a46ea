import numpy as np
import pytest
from audit_images import LANCZOS, as_jpeg, by_way_of, draw_image, repaint
from PIL import Image

from cnnsvm.features.traces import (
    FREQUENCIES,
    double_compression,
    grid_features,
    line_heights,
    resampling_spectrum,
)


def height_at(spectrum, frequency):
    return spectrum[round(abs(frequency - round(frequency)) * 4096)]


@pytest.mark.parametrize("kernel", ["LANCZOS", "BICUBIC", "BILINEAR"])
def test_a_resize_leaves_lines_where_the_sizes_say(kernel):
    pixels = draw_image(0, 280, 233)
    trip = by_way_of(pixels, 192, kernel=Image.Resampling[kernel])
    for axis, side in enumerate((280, 233)):
        assert height_at(resampling_spectrum(trip)[axis], 192 / side) > 4
        assert height_at(resampling_spectrum(pixels)[axis], 192 / side) < 3


def test_one_way_too():
    pixels = np.asarray(Image.fromarray(draw_image(1, 200, 200)).resize((260, 290), LANCZOS))
    spectrum = resampling_spectrum(pixels)
    assert height_at(spectrum[0], 200 / 260) > 5
    assert height_at(spectrum[1], 200 / 290) > 5


def test_without_a_resize_lines_are_rare():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(10)]
    heights = np.stack([resampling_spectrum(pixels) for pixels in noise])
    assert (heights > 3).mean() < 0.02
    assert heights.max() < 6


def test_what_an_engine_may_leave_is_not_seen():
    pixels = draw_image(2, 256, 256)
    doubled = pixels[:128, :128].repeat(2, axis=0).repeat(2, axis=1)
    blocks = pixels[:32, :32].repeat(8, axis=0).repeat(8, axis=1)
    for made in (doubled, blocks, as_jpeg(pixels, 30)):
        for multiple in range(5):
            assert not resampling_spectrum(made)[:, multiple * 512].any()


def test_a_line_beside_a_sixteenth_is_told_from_one_on_it():
    """481 pixels by way of 512 have theirs at 31/481, not a resolution cell from 1/16."""
    places = np.arange(481)
    noise = np.random.default_rng(0).normal(0, 1, 481)
    beside = line_heights(3 * np.cos(2 * np.pi * 31 / 481 * places) + noise)
    on = line_heights(3 * np.cos(2 * np.pi / 16 * places) + noise)
    assert height_at(beside, 31 / 481) > 5
    assert height_at(on, 31 / 481) == 0


def test_images_too_small_for_lines_have_none():
    for width, height in ((1, 1), (5, 200), (63, 63), (2, 2)):
        spectrum = resampling_spectrum(np.full((height, width, 3), 7, dtype=np.uint8))
        assert spectrum.shape == (2, len(FREQUENCIES))
        assert not spectrum.any()


def test_an_image_that_was_a_jpeg_is_known_by_its_coefficients():
    for seed in range(4):
        pixels = draw_image(seed)
        assert double_compression(pixels) < 0.3
        assert double_compression(repaint(pixels)) < 0.3
        for quality in (95, 75, 50):
            assert double_compression(as_jpeg(pixels, quality)) > 0.5


def test_an_image_without_enough_blocks_has_no_past():
    for side in (1, 7, 8, 20):
        assert double_compression(np.full((side, side, 3), 9, dtype=np.uint8)) <= 0


def test_grid_features_see_blocks_and_nothing_else():
    pixels = draw_image(3, 200, 200)
    plain, compressed = grid_features(pixels), grid_features(as_jpeg(pixels, 20))
    assert np.abs(plain - 1).max() < 0.15
    assert compressed[7] > 1.2  # from the last column of a block to the first of the next
    assert grid_features(pixels[:3, :3]).shape == plain.shape
