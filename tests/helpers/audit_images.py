"""Images with the detail of photographs, and histories to give them."""

import io

import cv2
import numpy as np
from PIL import Image

from cnnsvm.data.manifest import make_manifest, make_row

LANCZOS = Image.Resampling.LANCZOS


def draw_image(seed, width=None, height=None):
    """Smooth shapes, texture and noise, in a size of its own."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(150, 290, 2)
    width, height = width or int(drawn[0]), height or int(drawn[1])
    pixels = np.full((height, width, 3), 128.0)
    for cell, strength in ((32, 60), (8, 30)):  # a power of two leaves no line
        coarse = rng.normal(0, strength, (height // cell + 2, width // cell + 2, 3))
        pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)


def lower_half(pixels):
    mask = np.zeros(pixels.shape[:2], dtype=bool)
    mask[pixels.shape[0] // 2 :] = True
    return mask


def repaint(pixels):
    """Inpaint the lower half."""
    mask = lower_half(pixels).astype(np.uint8) * 255
    return cv2.inpaint(np.ascontiguousarray(pixels), mask, 3, cv2.INPAINT_TELEA)


def by_way_of(pixels, side, between=None, kernel=LANCZOS):
    """Resize to a square, do something there, and resize back: the seed project's way."""
    height, width, _ = pixels.shape
    small = np.array(Image.fromarray(pixels).resize((side, side), kernel))
    small = between(small) if between else small
    return np.array(Image.fromarray(small).resize((width, height), kernel))


def as_jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def write(folder, images, ending="png", **options):
    """Write images; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.{ending}" for i in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels).save(path, **options)
    return [str(path) for path in paths]


def manifest_of(reals, fakes, **fake_values):
    """Pair the paths of reals and fakes by their position: one source each."""
    rows = [make_row(path, 0, f"s{i}") for i, path in enumerate(reals)]
    rows += [make_row(path, 1, f"s{i}", **fake_values) for i, path in enumerate(fakes)]
    return make_manifest(rows)


def check_of(result, name):
    return next(check for check in result["checks"] if check["name"] == name)
