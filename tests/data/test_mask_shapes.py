import io

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.mask_shapes import MASK_SCHEMAS, MISSION_SCHEMAS, SIDE_SCHEMAS, classify_mask

SIZES = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 500), (500, 1), (2, 2), (2, 3), (3, 3), (4, 4)]
SIZES += [(5, 7), (300, 2), (2, 300), (31, 32), (33, 33), (100, 481), (321, 100), (512, 512)]
OPPOSITES = [
    ("diagonal_upper_right", "diagonal_lower_left"),
    ("diagonal_upper_left", "diagonal_lower_right"),
    ("top", "bottom"),
    ("left", "right"),
]
HALVES = [name for pair in OPPOSITES for name in pair]
# where a schema's centre of mass lies from the middle: (down, right)
DIRECTIONS = {
    "diagonal_upper_right": (-1, 1),
    "diagonal_lower_left": (1, -1),
    "diagonal_upper_left": (-1, -1),
    "diagonal_lower_right": (1, 1),
    "top": (-1, 0),
    "bottom": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
}
IMAGES = {
    "diagonal_upper_right": (".###", "..##", "...#", "...."),
    "diagonal_lower_left": ("....", "#...", "##..", "###."),
    "diagonal_upper_left": ("###.", "##..", "#...", "...."),
    "diagonal_lower_right": ("....", "...#", "..##", ".###"),
    "top": ("####", "####", "....", "...."),
    "bottom": ("....", "....", "####", "####"),
    "left": ("##..", "##..", "##..", "##.."),
    "right": ("..##", "..##", "..##", "..##"),
}
# the pixels on the line, by the documented rule
ON_THE_LINE = {"diagonal_upper_right": [(0, 0), (1, 1)], "diagonal_lower_left": [(2, 2), (3, 3)]}
ON_THE_LINE |= {"diagonal_upper_left": [(0, 3), (1, 2)], "diagonal_lower_right": [(2, 1), (3, 0)]}


def draw(name, height, width, seed=0):
    return MASK_SCHEMAS[name](height, width, np.random.default_rng(seed))


def test_names_are_those_of_the_mission_and_the_sides():
    diagonals = tuple(HALVES[:4])
    assert set(MISSION_SCHEMAS) == {*diagonals, "random_patches"}
    assert set(SIDE_SCHEMAS) == {"top", "bottom", "left", "right"}
    assert list(MASK_SCHEMAS) == [*MISSION_SCHEMAS, *SIDE_SCHEMAS]


@pytest.mark.parametrize("name", MASK_SCHEMAS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_mask_is_bool_of_the_size_and_never_empty_nor_needlessly_full(name, height, width):
    mask = draw(name, height, width)
    assert mask.dtype == np.bool_
    assert mask.shape == (height, width)
    assert mask.any()
    assert mask.size == 1 or not mask.all()


@pytest.mark.parametrize("name", HALVES)
def test_half_is_this_image(name):
    expected = np.array([[pixel == "#" for pixel in row] for row in IMAGES[name]])
    for pixel in ON_THE_LINE.get(name, []):
        expected[pixel] = True
    np.testing.assert_array_equal(draw(name, 4, 4), expected)


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize(("height", "width"), [(6, 7), (64, 48), (30, 600), (600, 30)])
def test_half_lies_where_its_name_says(name, height, width):
    rows, columns = np.nonzero(draw(name, height, width))
    down = (rows.mean() + 0.5) / height - 0.5
    right = (columns.mean() + 0.5) / width - 0.5
    for offset, direction in zip((down, right), DIRECTIONS[name], strict=True):
        assert np.sign(direction) * offset > 0.1 if direction else abs(offset) < 0.05


@pytest.mark.parametrize("name", HALVES[:4])
@pytest.mark.parametrize(("height", "width"), [(3, 5), (7, 2), (40, 300), (123, 321)])
def test_diagonal_is_what_the_corner_to_corner_line_says_in_floats(name, height, width):
    y = (np.arange(height) + 0.5)[:, None] / height
    x = (np.arange(width) + 0.5)[None, :] / width
    above = x - y if name in HALVES[:2] else 1 - x - y
    above = above if "upper" in name else -above
    clear = np.abs(above) > 1e-9
    np.testing.assert_array_equal(draw(name, height, width)[clear], (above > 0)[clear])


@pytest.mark.parametrize(("first", "second"), OPPOSITES)
@pytest.mark.parametrize(("height", "width"), SIZES[1:])
def test_opposite_halves_make_up_the_image_and_are_equal_to_a_pixel(first, second, height, width):
    one, other = draw(first, height, width), draw(second, height, width)
    np.testing.assert_array_equal(one, ~other)
    assert one.sum() - other.sum() == height * width % 2


def test_single_pixel_is_always_repainted():
    assert all(draw(name, 1, 1).all() for name in MASK_SCHEMAS)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_patches_cover_40_to_60_percent(height, width):
    area = height * width
    for seed in range(8):
        covered = draw("random_patches", height, width, seed).sum()
        if area == 3:
            assert covered in (1, 2)
        elif area > 1:
            assert 0.4 * area <= covered <= 0.6 * area


def test_random_patches_cover_shares_from_the_whole_range():
    shares = [draw("random_patches", 64, 64, seed).mean() for seed in range(40)]
    assert min(shares) < 0.43
    assert max(shares) > 0.57


def test_random_patches_are_rectangles_a_sixteenth_to_a_quarter_wide():
    runs = []
    for seed in range(10):
        mask = draw("random_patches", 64, 160, seed)
        edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
        runs += list(np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1])
    # only rows that a last patch was cut short in may be narrower
    assert np.quantile(runs, 0.02) >= 160 // 16
    assert 20 < np.median(runs) < 34  # patches overlap, so some runs are longer than a quarter


def test_random_patches_follow_the_generator_alone():
    np.testing.assert_array_equal(*(draw("random_patches", 50, 70, 5) for _ in range(2)))
    assert (draw("random_patches", 50, 70, 5) != draw("random_patches", 50, 70, 6)).any()


@pytest.mark.parametrize("name", MASK_SCHEMAS)
@pytest.mark.parametrize(("height", "width"), [(0, 5), (5, 0), (-1, 3)])
def test_image_without_pixels_is_refused(name, height, width):
    with pytest.raises(ValueError, match="at least one pixel"):
        draw(name, height, width)


RECOGNISED_SIZES = [(256, 256), (47, 85), (321, 481), (1500, 700)]


def as_image(mask):
    return Image.fromarray(mask.astype(np.uint8) * 255)


def soften(mask):
    """Scale to 63 % with soft edges and compress, as a mask that was saved carelessly."""
    image, buffer = as_image(mask), io.BytesIO()
    smaller = image.resize((image.width * 63 // 100, image.height * 63 // 100))
    smaller.save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer)) >= 128


@pytest.mark.parametrize("size", RECOGNISED_SIZES)
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
