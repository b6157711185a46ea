"""Mask schemas that are pure geometry: how each is drawn, and how a mask image is recognised.

Every schema is a function ``(height, width, rng) -> mask``; the mask is a bool array of shape
(height, width), True where the image is repainted, and a schema is named by that part. The eight
halves ignore ``rng``.

A half is what lies on one side of a line through the middle of the image: from corner to corner
for the diagonals, whatever the aspect ratio. The centres of pixels are compared with the line in
integers. Centres on the line itself are shared out: those in the upper half of the image (for
``top`` and ``bottom``: in its left half) go to the upper or left mask, the others to its
counterpart, and the very middle pixel to the upper or left mask. So two opposite halves make up
the image without overlap and differ by one pixel at most, at every size but 1x1, where a mask
can only be the whole image. An image one pixel high has no top: there ``top`` is the left half
and ``bottom`` the right one, and for one pixel wide ``left`` and ``right`` are top and bottom.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

MaskSchema = Callable[[int, int, np.random.Generator], np.ndarray]

_N_TRIES = 32  # positions drawn at once: with 60 % covered, one of them is all but surely free
_MAX_SIDE = 512  # larger masks are subsampled: the shapes do not need more
_MIN_IOU = 0.9
_MIN_AREA, _MAX_AREA = 0.36, 0.64  # of the image; patches are drawn until 40-60 % is reached
_MIN_CORNERS = 14  # patches of at most w/4 by h/4 need seven to cover 40 %; the least seen is 56
# Of the outline. Measured: patches 0.68 (47x85, scaled to 63 %, JPEG 40) and more; discs, blobs,
# diagonals and noise 0.50 and less.
_MIN_STRAIGHT = 0.6


def diagonal_upper_right(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask what lies above the diagonal from the top left to the bottom right corner."""
    y, x = _offsets(height, width)
    return _comes_first(y * width, x * height, tie=y)


def diagonal_lower_left(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask what lies below the diagonal from the top left to the bottom right corner."""
    return _rest(diagonal_upper_right(height, width, rng))


def diagonal_upper_left(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask what lies above the diagonal from the bottom left to the top right corner."""
    y, x = _offsets(height, width)
    return _comes_first(y * width, -x * height, tie=y)


def diagonal_lower_right(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask what lies below the diagonal from the bottom left to the top right corner."""
    return _rest(diagonal_upper_left(height, width, rng))


def random_patches(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask random rectangles that cover 40-60 % of the image between them.

    The rectangles are 1/16 to 1/4 of the image wide and high, as in DeepfakeArt (Aboutalebi et
    al. 2023). How many pixels to cover is drawn first, uniformly from what 40-60 % allows;
    rectangles are placed until that many are covered, and the last one is cut short there.

    Parameters
    ----------
    height, width : int, at least 1
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of bool, shape (height, width)
        Covers 40-60 %, except where no whole number of pixels does: 1 or 2 of 3 pixels, and the
        only one of a 1x1 image.

    Raises
    ------
    ValueError
        If height or width is less than 1.
    """
    _check_size(height, width)
    mask = np.zeros((height, width), dtype=bool)
    missing = _draw_area(height * width, rng)
    while missing:  # ends: every patch holds a free pixel
        patch = _draw_patch(mask, rng)
        free = np.flatnonzero(~patch)[:missing]
        patch[np.unravel_index(free, patch.shape)] = True
        missing -= len(free)
    return mask


def top(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask the upper half."""
    y, x = _offsets(height, width)
    return _comes_first(y, np.zeros_like(x), tie=x)


def bottom(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask the lower half."""
    return _rest(top(height, width, rng))


def left(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask the left half."""
    y, x = _offsets(height, width)
    return _comes_first(x, np.zeros_like(y), tie=y)


def right(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask the right half."""
    return _rest(left(height, width, rng))


#: Every schema by name.
MASK_SCHEMAS: dict[str, MaskSchema] = {
    "diagonal_upper_right": diagonal_upper_right,
    "diagonal_lower_left": diagonal_lower_left,
    "diagonal_upper_left": diagonal_upper_left,
    "diagonal_lower_right": diagonal_lower_right,
    "random_patches": random_patches,
    "top": top,
    "bottom": bottom,
    "left": left,
    "right": right,
}
#: The five that a record of the seed project holds.
MISSION_SCHEMAS: tuple[str, ...] = tuple(MASK_SCHEMAS)[:5]
#: The four that DeepfakeArt has besides.
SIDE_SCHEMAS: tuple[str, ...] = tuple(MASK_SCHEMAS)[5:]


def classify_mask(mask: np.ndarray) -> str | None:
    """Name the schema that a mask was drawn with.

    One of the eight halves when the intersection over union is at least 0.9. Otherwise
    ``random_patches`` when the mask looks like a union of many axis-aligned rectangles: it covers
    40-60 % (give or take 4 %), its outline runs straight, and it has the corners of more than a
    few rectangles. Resized or JPEG-compressed masks, thresholded at half, are recognised.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
        True where repainted.

    Returns
    -------
    str or None
        A key of ``MASK_SCHEMAS``; None for any other shape.

    Raises
    ------
    ValueError
        If the mask is not a bool array of two dimensions with at least one pixel.
    """
    if mask.dtype != bool or mask.ndim != 2 or not mask.size:
        raise ValueError(
            f"a mask is a bool array of shape (H, W), got {mask.dtype} {mask.shape}. Compare its "
            "grey levels with 128."
        )
    step = -(-max(mask.shape) // _MAX_SIDE)
    small = np.ascontiguousarray(mask[::step, ::step])
    name, overlap = _best_half(small)
    if overlap >= _MIN_IOU:
        return name
    return "random_patches" if _is_patchwork(small) else None


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(
            f"a mask needs at least one pixel, got height {height!r}, width {width!r}."
        )


def _offsets(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return twice the distance of the pixel centres from the middle, as a column and a row."""
    _check_size(height, width)
    y = 2 * np.arange(height, dtype=np.int64) + 1 - height
    x = 2 * np.arange(width, dtype=np.int64) + 1 - width
    return y[:, None], x[None, :]


def _comes_first(value: np.ndarray, line: np.ndarray, tie: np.ndarray) -> np.ndarray:
    return (value < line) | ((value == line) & (tie <= 0))


def _rest(mask: np.ndarray) -> np.ndarray:
    return ~mask if mask.size > 1 else mask


def _draw_area(n_pixels: int, rng: np.random.Generator) -> int:
    least, most = -(-2 * n_pixels // 5), 3 * n_pixels // 5
    low, high = sorted((least, most))  # they cross for 1 and 3 pixels: take the nearest
    return int(rng.integers(max(low, 1), high + 1))


def _draw_patch(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a view of a random rectangle of the mask around a pixel that is still free."""
    windows = []
    for length, position in zip(mask.shape, _draw_free_pixel(mask, rng), strict=True):
        side = int(rng.integers(max(length // 16, 1), max(length // 4, 1) + 1))
        start = int(rng.integers(max(position - side + 1, 0), min(position, length - side) + 1))
        windows.append(slice(start, start + side))
    return mask[tuple(windows)]


def _draw_free_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    rows, columns = (rng.integers(length, size=_N_TRIES) for length in mask.shape)
    free = np.flatnonzero(~mask[rows, columns])
    if len(free):
        return int(rows[free[0]]), int(columns[free[0]])
    row, column = np.unravel_index(mask.argmin(), mask.shape)  # the first free one
    return int(row), int(column)


def _best_half(mask: np.ndarray) -> tuple[str, float]:
    shapes = _halves(*mask.shape)
    overlaps = {
        name: np.count_nonzero(mask & shape) / np.count_nonzero(mask | shape)
        for name, shape in shapes.items()
    }
    name = max(overlaps, key=lambda key: overlaps[key])
    return name, overlaps[name]


@lru_cache(maxsize=8)
def _halves(height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)  # the contract asks for one; halves do not use it
    return {
        name: draw(height, width, rng)
        for name, draw in MASK_SCHEMAS.items()
        if name != "random_patches"
    }


def _is_patchwork(mask: np.ndarray) -> bool:
    if not _MIN_AREA <= mask.mean() <= _MAX_AREA:
        return False
    return _count_corners(mask) >= _MIN_CORNERS and _straight_share(mask) >= _MIN_STRAIGHT


def _count_corners(mask: np.ndarray) -> int:
    """Count the 2x2 windows in which the outline turns: an odd number of their pixels is set."""
    columns = mask[:, 1:] ^ mask[:, :-1]
    return int(np.count_nonzero(columns[1:] ^ columns[:-1]))


def _straight_share(mask: np.ndarray) -> float:
    """Return the share of the outline that lies in horizontal or vertical runs, not in steps."""
    total, straight = 0, 0
    for picture in (mask, mask.T):
        edge = np.ascontiguousarray(picture[:, 1:] ^ picture[:, :-1]).astype(np.uint8)
        length = max(picture.shape[0] // 48, 3)
        runs = cv2.morphologyEx(edge, cv2.MORPH_OPEN, np.ones((length, 1), np.uint8))
        total += int(edge.sum())
        straight += int(runs.sum())
    return straight / total if total else 0.0
