import cv2
import numpy as np
import pytest

from cnnsvm.generation.masks import Scene, get_schema, strokes
from cnnsvm.generation.masks.strokes import (
    DEFAULT_COVERAGE,
    _paint,
    draw_rectangles,
    draw_strokes,
    walk,
)

SIZES = [(16, 16), (17, 200), (200, 17), (64, 64), (333, 100), (600, 1000)]
TINY = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (3, 5), (1, 300), (300, 1), (7, 7)]
DRAWS = {"strokes": draw_strokes, "rectangles": draw_rectangles}


def draw(name, height, width, seed=0):
    scene = Scene(np.zeros((height, width, 3), dtype=np.uint8))
    return get_schema(name)(scene, np.random.default_rng(seed))


def n_pieces(mask):
    return cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


def runs(mask):
    """Lengths of the horizontal runs of a mask."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    return np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]


@pytest.mark.parametrize("kind", DRAWS)
def test_two_pixels_are_enough(kind):
    assert all(draw(kind, 1, 2, seed).sum() == 1 for seed in range(5))


@pytest.mark.parametrize("kind", DRAWS)
def test_shares_come_from_the_whole_range_evenly(kind):
    shares = [DRAWS[kind](128, 128, np.random.default_rng(seed)).mean() for seed in range(200)]
    low, high = DEFAULT_COVERAGE
    counts, _ = np.histogram(shares, bins=3, range=(low, high))
    assert counts.sum() >= 195
    assert counts.min() > 45  # of 200 in thirds: 66.7, standard deviation 6.7


@pytest.mark.parametrize("kind", DRAWS)
def test_every_part_of_the_image_is_repainted_now_and_then(kind):
    total = sum(draw(kind, 60, 80, seed).astype(float) for seed in range(200)) / 200
    blocks = total.reshape(6, 10, 8, 10).mean(axis=(1, 3))
    assert blocks.min() > 0.02
    assert blocks.max() < 0.7


@pytest.mark.parametrize("kind", DRAWS)
def test_look_goes_with_the_image_and_not_with_its_pixels(kind):
    # an area keeps its share, and a width its part of the side
    thickness = []
    for height, width in ((200, 300), (1600, 2400)):
        masks = [DRAWS[kind](height, width, np.random.default_rng(seed)) for seed in range(8)]
        thickness.append([np.median(runs(mask)) / width for mask in masks])
        shares = [mask.mean() for mask in masks]
    np.testing.assert_allclose(np.mean(thickness[0]), np.mean(thickness[1]), rtol=0.15)
    for seed, share in enumerate(shares):
        small = DRAWS[kind](200, 300, np.random.default_rng(seed))
        assert abs(small.mean() - share) < 0.02


@pytest.mark.parametrize(("height", "width"), [*SIZES, (9, 9), (1, 40)])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_rectangles_are_as_many_as_asked_for_and_no_side_is_below_an_eighth(height, width, n):
    for seed in range(5):
        mask = draw_rectangles(
            height, width, np.random.default_rng(seed), n=n, coverage=(0.02, 0.1)
        )
        assert n_pieces(mask) <= n
        assert runs(mask).min() >= width / 8
        assert runs(mask.T).min() >= height / 8


def test_one_rectangle_is_filled_and_of_many_proportions_and_places():
    proportions, places = [], []
    for seed in range(100):
        rows, columns = np.nonzero(draw("rectangles:1", 240, 240, seed))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width
        proportions.append(height / width)
        places.append((rows.min() / max(240 - height, 1), columns.min() / max(240 - width, 1)))
    assert min(proportions) < 0.5
    assert max(proportions) > 2
    assert max(proportions) < 3.3
    np.testing.assert_allclose(np.mean(places, axis=0), 0.5, atol=0.1)


def test_number_of_rectangles_is_drawn_from_one_to_three():
    pieces = [n_pieces(draw("rectangles:0.05-0.1", 256, 256, seed)) for seed in range(60)]
    assert set(pieces) == {1, 2, 3}


@pytest.mark.parametrize(("height", "width"), [*SIZES, *TINY])
def test_stroke_stays_in_the_image_and_in_one_piece(height, width):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points = walk(height, width, rng.uniform(0.4, 2), rng)
        assert (points >= 0).all()
        assert (points <= [width - 1, height - 1]).all()
        mask = np.zeros((height, width), dtype=np.uint8)
        widths = rng.uniform(0.5, 0.1 * min(height, width) + 1, len(points))
        missing = _paint(mask, points, widths, height * width + 1)
        assert missing == height * width + 1 - mask.sum()
        assert n_pieces(mask) == 1


def test_stroke_bends_and_its_length_is_the_one_asked_for():
    for seed in range(20):
        points = walk(500, 500, 1.5, np.random.default_rng(seed))
        steps = np.diff(points, axis=0)
        lengths = np.hypot(*steps.T)
        assert lengths.max() <= 5 + 1e-9  # 1/100 of a side; less only where the border turns it
        assert lengths.sum() == pytest.approx(750, rel=0.03)
        turns = np.abs(np.diff(np.unwrap(np.arctan2(*steps.T))))
        assert turns[turns < 0.4].sum() > 1.5  # radians: a curve, not straight lines with corners
        assert np.median(turns) < 0.15  # and no scribble either


def test_paint_stops_where_nothing_is_missing():
    points = walk(400, 400, 1, np.random.default_rng(0))
    mask = np.zeros((400, 400), dtype=np.uint8)
    left = _paint(mask, points, np.full(len(points), 20.0), 3000)
    assert -150 < left <= 0  # a step of 4 pixels at 20 across
    assert mask.sum() == 3000 - left


def test_strokes_are_irregular():
    # a pen's track has a long outline: the isoperimetric ratio of a disc is 1, of a square 0.79
    ratios = []
    for seed in range(30):
        mask = draw("strokes", 256, 256, seed)
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        length = sum(cv2.arcLength(curve, closed=True) for curve in outline)
        ratios.append(4 * np.pi * mask.sum() / length**2)
    assert np.median(ratios) < 0.15
    assert max(ratios) < 0.6


def test_width_varies_along_and_between_strokes(monkeypatch):
    painted = []

    def paint(mask, points, widths, missing):
        painted.append(widths)
        return _paint(mask, points, widths, missing)

    monkeypatch.setattr(strokes, "_paint", paint)
    for seed in range(20):
        draw("strokes:0.1-0.3", 500, 500, seed)
    along = [widths.max() / widths.min() for widths in painted]
    assert np.median(along) > 1.5
    assert max(np.abs(np.diff(np.log(widths))).max() for widths in painted) < 0.3  # no jumps
    means = [widths.mean() for widths in painted]
    assert max(means) > 3 * min(means)
