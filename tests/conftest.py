import os

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small tensors on few cores: more threads only wait for each other."""
    import torch

    torch.set_num_threads(1)


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


@pytest.fixture(scope="session")
def labelled_images():
    """Twelve sources with two fakes each: (images, y, groups)."""
    images, y, groups = [], [], []
    for source in range(12):
        real = texture(source)
        for label, image in ((0, real), (1, repaint(real)), (1, repaint(real)[::-1].copy())):
            images.append(image)
            y.append(label)
            groups.append(f"source {source}")
    return images, np.array(y), np.array(groups)
