import numpy as np
import pytest

from cnnsvm.features.crops import crop_positions, fixed_crops, wrap_to


def test_wrapping_repeats_pixels_and_invents_none():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    wrapped = wrap_to(image, 5)
    assert wrapped.shape == (5, 5, 3)
    for i in range(5):
        for j in range(5):
            np.testing.assert_array_equal(wrapped[i, j], image[i % 2, j % 3])


def test_large_images_are_not_copied():
    image = np.zeros((8, 9, 3), np.uint8)
    assert wrap_to(image, 8) is image


@pytest.mark.parametrize(
    ("shape", "n_crops", "expected"),
    [
        ((256, 256), 1, [(64, 64)]),
        ((256, 256), 4, [(0, 0), (0, 128), (128, 0), (128, 128)]),
        ((128, 256), 3, [(0, 0), (0, 64), (0, 128)]),
        ((256, 128), 2, [(0, 0), (128, 0)]),
        ((128, 128), 4, [(0, 0)]),
    ],
)
def test_positions(shape, n_crops, expected):
    assert crop_positions(*shape, 128, n_crops) == expected


@pytest.mark.parametrize("n_crops", range(1, 17))
@pytest.mark.parametrize("shape", [(64, 64), (65, 300), (481, 321), (1000, 80)])
def test_crops_are_native_pixels_inside_the_image(shape, n_crops):
    positions = crop_positions(*shape, 64, n_crops)
    assert 1 <= len(positions) == len(set(positions)) <= n_crops
    for top, left in positions:
        assert 0 <= top <= shape[0] - 64
        assert 0 <= left <= shape[1] - 64


def test_five_crops_of_a_square_reach_all_corners():
    positions = crop_positions(200, 200, 100, 5)
    assert {(0, 0), (0, 100), (100, 0), (100, 100)} <= set(positions)


def test_a_crop_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"does not fit 9x20"):
        crop_positions(20, 9, 10, 1)


def test_fixed_crops_cut_the_image():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    crops = fixed_crops(image, 32, 6)
    for crop, (top, left) in zip(crops, crop_positions(70, 90, 32, 6), strict=True):
        np.testing.assert_array_equal(crop, image[top : top + 32, left : left + 32])


def test_small_images_are_wrapped_not_enlarged():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (crop,) = fixed_crops(image, 32, 4)[:1]
    np.testing.assert_array_equal(crop[:20, :30], image)


def test_mirror_images_stand_behind_the_crops():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    plain, both = fixed_crops(image, 16, 3), fixed_crops(image, 16, 3, mirror=True)
    np.testing.assert_array_equal(both[: len(plain)], plain)
    np.testing.assert_array_equal(both[len(plain) :], plain[:, :, ::-1])
