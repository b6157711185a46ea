"""Masks drawn at random: rectangles and free-hand strokes.

Both first draw the share of the image to cover, uniformly from the limits, and then fit the drawing
to it, so that all shares are equally frequent and narrow limits can be met.
"""

import math

import cv2
import numpy as np

from cnnsvm.generation.masks import (
    Limits,
    MaskSchema,
    Scene,
    SchemaError,
    schema_name,
    split_argument,
)

DEFAULT_COVERAGE = (0.05, 0.5)
_LEAST_SIDE = 1 / 8  # 64 of 512 pixels
_MOST_RECTANGLES = 3  # where their number is drawn
_N_HALVINGS = 16  # of the range of their scale: sides are met to 1/8,000 of the image's
_MOST_STROKES = 60  # covers 99 % at the greatest width
_STEP = 1 / 100  # of a stroke, like all lengths of one in sides of a square of the image's area
_WIDTHS = (1 / 60, 1 / 9)
_SHIFT = 6  # OpenCV takes points in 64ths of a pixel


def rectangles_schema(argument: str) -> MaskSchema:
    """Make the schema ``rectangles[:N][,LOW-HIGH]``; the limits are 0.05-0.5 by default.

    ``N`` is the number of rectangles, by default 1 to 3, drawn anew for each mask. Any other
    argument is a `SchemaError`.
    """
    options, coverage = split_argument("rectangles", argument, DEFAULT_COVERAGE)
    if len(options) > 1 or not all(option.isdecimal() and int(option) > 0 for option in options):
        raise SchemaError(
            f"rectangles:{argument}: besides the limits of coverage, rectangles take their number, "
            "a whole number of at least 1, once. Write for example rectangles:2,0.1-0.5."
        )
    n = int(options[0]) if options else None

    def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
        return draw_rectangles(*scene.shape, rng, n=n, coverage=coverage)

    own = [] if n is None else [str(n)]
    return MaskSchema(schema_name("rectangles", own, coverage, DEFAULT_COVERAGE), draw, coverage)


def strokes_schema(argument: str) -> MaskSchema:
    """Make the schema ``strokes[:LOW-HIGH]``; 0.05-0.5 by default (else `SchemaError`)."""
    options, coverage = split_argument("strokes", argument, DEFAULT_COVERAGE)
    if options:
        raise SchemaError(
            f"strokes:{argument}: strokes take limits of coverage only, got {options[0]!r}. Write "
            "for example strokes:0.1-0.5."
        )

    def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
        return draw_strokes(*scene.shape, rng, coverage=coverage)

    return MaskSchema(schema_name("strokes", [], coverage, DEFAULT_COVERAGE), draw, coverage)


def draw_rectangles(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    n: int | None = None,
    coverage: Limits = DEFAULT_COVERAGE,
) -> np.ndarray:
    """Draw ``n`` (None: 1 to 3) upright rectangles as bool (height, width).

    Their sides are at least 1/8 of the image's, and they may overlap and touch the border. Number,
    places, proportions (1:3 to 3:1, of the image's own) and relative sizes are drawn; then all are
    enlarged together until the share, drawn from ``coverage``, is met. Rectangles of the least size
    may cover more.
    """
    share = rng.uniform(*coverage)
    n = int(rng.integers(1, _MOST_RECTANGLES + 1)) if n is None else n
    places = rng.random((n, 2))
    stretch = np.exp(rng.uniform(-0.5, 0.5, n) * math.log(3))
    sides = rng.uniform(0.5, 1, (n, 1)) * np.stack([stretch, 1 / stretch], axis=1)
    low, high = 0.0, 4.0  # at 4 every side is that of the image
    best, least_off = np.zeros((height, width), dtype=bool), math.inf
    for _ in range(_N_HALVINGS):
        scale = (low + high) / 2
        mask = _fill_rectangles(height, width, places, scale * sides)
        off = np.count_nonzero(mask) / mask.size - share
        if abs(off) < least_off:
            best, least_off = mask, abs(off)
        low, high = (low, scale) if off > 0 else (scale, high)
    return best


def draw_strokes(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    coverage: Limits = DEFAULT_COVERAGE,
) -> np.ndarray:
    """Draw a few free-hand strokes of varying width as bool (height, width).

    After the Quick Draw irregular mask set (Iskakov 2018): about four pen strokes (normal, standard
    deviation two), each of a width of its own. The pen wanders with smoothly changing curvature and
    some sharp turns, and is turned back at the border. The width follows from the share to cover,
    drawn from ``coverage``; strokes are added, and the last is cut short, where the share is met.
    Lengths and widths scale with the square root of the area.
    """
    side = math.sqrt(height * width)
    share = rng.uniform(*coverage)
    missing = max(round(share * height * width), 1)
    lengths = rng.uniform(0.4, 2.0, int(np.clip(np.round(rng.normal(4, 2)), 1, 8)))
    # strokes of random place cover 1 - exp(-length * width), as each crosses the others
    mean_width = -math.log1p(-min(share, 0.999)) / lengths.sum()
    mask = np.zeros((height, width), dtype=np.uint8)
    for i in range(_MOST_STROKES):
        points = walk(height, width, lengths[i % len(lengths)], rng)
        pen = np.clip(mean_width * rng.uniform(0.6, 1.4), *_WIDTHS) * side
        missing = _paint(mask, points, pen * _waver(len(points), 6, 0.3, rng), missing)
        if missing <= 0:
            break
    return mask.astype(bool)


def walk(height: int, width: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Let a pen wander over the image for a length in square roots of the image's area.

    Returns float (n, 2): x and y in pixels, 0 to width - 1 and 0 to height - 1, 1/100 of that unit
    apart.
    """
    n_steps = max(round(length / _STEP), 1)
    knots = rng.normal(0, 6, 3 + round(3 * length))  # radians a side: a circle every side or so
    bends = _STEP * np.interp(np.linspace(0, 1, n_steps), np.linspace(0, 1, len(knots)), knots)
    corners = rng.uniform(-2.5, 2.5, n_steps) * (rng.random(n_steps) < 1.5 * _STEP)
    heading = rng.uniform(0, 2 * math.pi) + np.cumsum(bends + corners)
    steps = _STEP * math.sqrt(height * width) * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    room = np.array([width - 1, height - 1], dtype=float)
    free = rng.random(2) * room + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    # folded at the border, the way stays in one piece
    return np.maximum(room - np.abs(room - np.mod(free, np.maximum(2 * room, 1e-9))), 0)


def _waver(n: int, n_knots: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Return n positive factors around 1 that change slowly."""
    knots = np.exp(rng.normal(0, spread, n_knots))
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, n_knots), knots)


def _paint(mask: np.ndarray, points: np.ndarray, widths: np.ndarray, missing: int) -> int:
    """Draw along the points until enough pixels are covered; return how many are missing then."""
    fine = np.round(points * 2**_SHIFT).astype(int).tolist()
    for i, pen in enumerate(np.maximum(np.round(widths[1:]), 1).astype(int).tolist()):
        window = mask[_around(points[i : i + 2], pen)]
        before = cv2.countNonZero(window)
        # a line wider than a pixel has round ends, so that lines of one stroke join smoothly
        cv2.line(mask, fine[i], fine[i + 1], 1, pen, cv2.LINE_8, _SHIFT)
        missing -= cv2.countNonZero(window) - before
        if missing <= 0:
            break
    return missing


def _around(points: np.ndarray, pen: int) -> tuple[slice, slice]:
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - pen, 0).tolist()
    right, bottom = (np.ceil(points.max(axis=0)).astype(int) + pen + 1).tolist()
    return slice(top, bottom), slice(left, right)


def _fill_rectangles(height: int, width: int, places: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Fill rectangles of relative sides, each at a place between the borders: 0 left, 1 right.

    Larger sides cover all that smaller ones do, since a place shifts by less than a side grows.
    """
    mask = np.zeros((height, width), dtype=bool)
    size = np.array([height, width])
    pixels = np.clip(np.round(sides * size), np.ceil(size * _LEAST_SIDE), size)
    starts = np.round(places * (size - pixels)).astype(int)
    for (top, left), (bottom, right) in zip(starts, starts + pixels.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    return mask
