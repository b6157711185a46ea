"""Mask schemas that are pure geometry: how each is drawn, and how a mask image is recognised.

A schema is a function ``(height, width, rng) -> mask``; the mask is a bool array of shape
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
from functools import lru_cache, partial

import cv2
import numpy as np

MaskSchema = Callable[[int, int, np.random.Generator], np.ndarray]

_COUNTERPARTS = {
    "diagonal_lower_left": "diagonal_upper_right",
    "diagonal_lower_right": "diagonal_upper_left",
    "bottom": "top",
    "right": "left",
}
_N_TRIES = 32  # positions drawn at once: with 60 % covered, one of them is all but surely free
_MAX_SIDE = 512  # larger masks are subsampled to be recognised: the shapes do not need more
_MIN_IOU = 0.9
_MIN_AREA, _MAX_AREA = 0.36, 0.64  # of the image; patches are drawn until 40-60 % is reached
_MIN_CORNERS = 14  # patches of at most w/4 by h/4 need seven to cover 40 %; the least seen is 56
# Of the outline. Measured: patches 0.68 (47x85, scaled to 63 %, JPEG 40) and more; discs, blobs,
# diagonals and noise 0.50 and less.
_MIN_STRAIGHT = 0.6


def random_patches(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Mask random rectangles that cover 40-60 % of the image between them.

    The rectangles are 1/16 to 1/4 of the image wide and high, as in DeepfakeArt (Aboutalebi et al.
    2023). How many pixels to cover is drawn first, uniformly from what 40-60 % allows; rectangles
    are placed until that many are covered, and the last one is cut short there. Where no whole
    number of pixels covers 40-60 %, it is 1 or 2 of 3 pixels, and the only one of a 1x1 image.
    Returns bool (height, width), True where to repaint; a ValueError says that a side is below 1.
    """
    _check_size(height, width)
    mask = np.zeros((height, width), dtype=bool)
    least, most = -(-2 * mask.size // 5), 3 * mask.size // 5
    low, high = sorted((least, most))  # they cross for 1 and 3 pixels: take the nearest
    missing = int(rng.integers(max(low, 1), high + 1))
    while missing:  # ends: every patch holds a free pixel
        patch = _draw_patch(mask, rng)
        free = np.flatnonzero(~patch)[:missing]
        patch[np.unravel_index(free, patch.shape)] = True
        missing -= len(free)
    return mask


def _draw_half(name: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    _check_size(height, width)
    # twice the distance of the pixel centres from the middle
    y, x = np.ogrid[1 - height : height : 2, 1 - width : width : 2]
    side, tie = {
        "diagonal_upper_right": (y * width - x * height, y),
        "diagonal_upper_left": (y * width + x * height, y),
        "top": (y, x),
        "left": (x, y),
    }[_COUNTERPARTS.get(name, name)]
    mask = (side < 0) | ((side == 0) & (tie <= 0))
    return ~mask if name in _COUNTERPARTS and mask.size > 1 else mask


#: The five that a record of the seed project holds.
MISSION_SCHEMAS = (
    *("diagonal_upper_right", "diagonal_lower_left", "diagonal_upper_left", "diagonal_lower_right"),
    "random_patches",
)
#: The four that DeepfakeArt has besides.
SIDE_SCHEMAS = ("top", "bottom", "left", "right")
#: Every schema by name.
MASK_SCHEMAS: dict[str, MaskSchema] = {
    name: random_patches if name == "random_patches" else partial(_draw_half, name)
    for name in (*MISSION_SCHEMAS, *SIDE_SCHEMAS)
}


def classify_mask(mask: np.ndarray) -> str | None:
    """Name the schema that a mask was drawn with: a key of `MASK_SCHEMAS`, or None.

    The mask is bool (H, W), True where repainted. One of the eight halves when the intersection
    over union is at least 0.9. Otherwise ``random_patches`` when the mask looks like a union of
    many axis-aligned rectangles: it covers 40-60 % (give or take 4 %), its outline runs straight,
    and it has the corners of more than a few rectangles. Resized or JPEG-compressed masks,
    thresholded at half, are recognised. A ValueError says that the mask is no bool array of two
    dimensions with at least one pixel.
    """
    if mask.dtype != bool or mask.ndim != 2 or not mask.size:
        raise ValueError(
            f"a mask is a bool array of shape (H, W), got {mask.dtype} {mask.shape}. Compare its "
            "grey levels with 128."
        )
    step = -(-max(mask.shape) // _MAX_SIDE)
    small = np.ascontiguousarray(mask[::step, ::step])
    overlaps = {
        name: np.count_nonzero(small & half) / np.count_nonzero(small | half)
        for name, half in _halves(*small.shape).items()
    }
    best = max(overlaps, key=lambda name: overlaps[name])
    if overlaps[best] >= _MIN_IOU:
        return best
    return "random_patches" if _is_patchwork(small) else None


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(
            f"a mask needs at least one pixel, got height {height!r}, width {width!r}."
        )


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


@lru_cache(maxsize=8)
def _halves(height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)  # halves do not use it
    halves = (name for name in MASK_SCHEMAS if name != "random_patches")
    return {name: MASK_SCHEMAS[name](height, width, rng) for name in halves}


def _is_patchwork(mask: np.ndarray) -> bool:
    if not _MIN_AREA <= mask.mean() <= _MAX_AREA:
        return False
    # in a corner, the outline turns: an odd number of the pixels of a 2x2 window is set
    columns = mask[:, 1:] ^ mask[:, :-1]
    n_corners = np.count_nonzero(columns[1:] ^ columns[:-1])
    return bool(n_corners >= _MIN_CORNERS and _straight_share(mask) >= _MIN_STRAIGHT)


def _straight_share(mask: np.ndarray) -> float:
    """Return the share of the outline that lies in horizontal or vertical runs, not in steps."""
    total, straight = 0, 0
    for image in (mask, mask.T):
        edge = np.ascontiguousarray(image[:, 1:] ^ image[:, :-1]).astype(np.uint8)
        length = max(image.shape[0] // 48, 3)
        runs = cv2.morphologyEx(edge, cv2.MORPH_OPEN, np.ones((length, 1), np.uint8))
        total += int(edge.sum())
        straight += int(runs.sum())
    return straight / total if total else 0.0
