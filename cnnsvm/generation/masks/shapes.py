"""Mask schemas: named ways to choose the part of an image that is repainted.

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

import numpy as np

MaskSchema = Callable[[int, int, np.random.Generator], np.ndarray]

_N_TRIES = 32  # positions drawn at once: with 60 % covered, one of them is all but surely free


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
