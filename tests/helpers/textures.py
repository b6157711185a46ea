"""Noisy images, and fakes of them that are smooth in their left half."""

import numpy as np
from PIL import Image


def texture(seed, height=72, width=80):
    """A noisy image; the left half of a fake one is smoothed, as an engine would."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 12, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def repaint(pixels):
    """Smooth the left half of an image."""
    import cv2

    fake = pixels.copy()
    half = pixels.shape[1] // 2
    fake[:, :half] = cv2.GaussianBlur(pixels, (0, 0), 1.5)[:, :half]
    return fake
