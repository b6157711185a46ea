"""Recognise from a mask image which schema drew it."""

from functools import lru_cache

import cv2
import numpy as np

from cnnsvm.generation.masks.shapes import MASK_SCHEMAS

_MAX_SIDE = 512  # larger masks are subsampled: the shapes do not need more
_MIN_IOU = 0.9
_MIN_AREA, _MAX_AREA = 0.36, 0.64  # of the image; patches are drawn until 40-60 % is reached
_MIN_CORNERS = 14  # patches of at most w/4 by h/4 need seven to cover 40 %; the least seen is 56
# Of the outline. Measured: patches 0.68 (47x85, scaled to 63 %, JPEG 40) and more; discs, blobs,
# diagonals and noise 0.50 and less.
_MIN_STRAIGHT = 0.6


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
