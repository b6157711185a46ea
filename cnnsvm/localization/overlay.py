"""A picture with what a localiser says of it drawn on it."""

import cv2
import numpy as np

_STRENGTH = 0.6  # of the colour where the probability is 1
_HEAT = np.array((255, 0, 0), dtype=np.float32)
_OUTLINE = np.array((255, 220, 0), dtype=np.uint8)


def draw_overlay(pixels: np.ndarray, probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw a map and the outline of a mask on a picture.

    The picture is made grey, so that its own red is not taken for the map's.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)
    probability : ndarray of float in [0, 1], shape (H, W)
        Red, the more the higher.
    mask : ndarray of bool, shape (H, W)
        The inner border of its parts is yellow.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None]
    weight = _STRENGTH * probability.astype(np.float32)[:, :, None]
    drawn = np.rint((1 - weight) * grey + weight * _HEAT).astype(np.uint8)
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    drawn[mask & ~inside] = _OUTLINE
    return drawn
