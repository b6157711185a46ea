"""Heatmaps: where in an image the crops look repainted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import expit

from cnnsvm.data.images import load_image, read_header
from cnnsvm.features.crops import window_positions, wrap_to
from cnnsvm.features.embedder import CropEmbedder


def heatmap(embedders: Sequence[Any], image: Any) -> np.ndarray:
    """Slide a crop over an image and blend what fine-tuned classifiers say of each place.

    Embedders that were fine-tuned on native crops are asked; the log-odds of those with one crop
    size are averaged, and then the maps of different sizes. Returns float32 (H, W) in [0, 1], see
    `InpaintDetector.explain`.
    """
    by_size: dict[int, list[CropEmbedder]] = {}
    for embedder in embedders:
        is_local = isinstance(embedder, CropEmbedder) and embedder.resize is None
        if is_local and embedder.has_classifier:
            by_size.setdefault(int(embedder.crop_size), []).append(embedder)
    if not by_size:
        raise ValueError(
            "explain needs the classifier that fine-tuning trains, and no embedder of this "
            "detector has one. Fit one with finetune='full' or 'head'."
        )
    pixels = load_image(image)
    maps = [_one_size(pixels, size, members) for size, members in by_size.items()]
    return as_stored(np.mean(maps, axis=0), image)


def _one_size(pixels: np.ndarray, size: int, embedders: Sequence[CropEmbedder]) -> np.ndarray:
    large = wrap_to(pixels, size)
    tops, lefts = window_positions(large.shape[0], large.shape[1], size, max(1, size // 4))
    places = [(top, left) for top in tops for left in lefts]
    scores = []
    step = embedders[0].batch_size
    for start in range(0, len(places), step):
        part = places[start : start + step]
        crops = np.stack([large[y : y + size, x : x + size] for y, x in part])
        scores.append(np.mean([embedder.score_crops(crops) for embedder in embedders], axis=0))
    blended = blend_windows(expit(np.concatenate(scores)), places, large.shape[:2], size)
    return blended[: pixels.shape[0], : pixels.shape[1]]


def blend_windows(
    values: np.ndarray, places: list[tuple[int, int]], shape: tuple[int, int], size: int
) -> np.ndarray:
    """Average the values of windows over each pixel, those with it in their middle the most.

    ``values`` has one for each of ``places``, (top, left) of windows of ``size`` pixels a side that
    cover the image together. Returns float32 of the given shape, (height, width).
    """
    ramp = 1 - np.abs(np.linspace(-1, 1, size + 2)[1:-1])
    window = np.outer(ramp, ramp)
    total, weight = np.zeros(shape), np.zeros(shape)
    for value, (top, left) in zip(values, places, strict=True):
        area = (slice(top, top + size), slice(left, left + size))
        total[area] += value * window
        weight[area] += window
    return np.clip(total / weight, 0, 1).astype(np.float32)


def as_stored(upright: np.ndarray, image: Any) -> np.ndarray:
    """Turn a map of the upright image back to how the file stores its pixels."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(read_header(image).orientation)
    if undo is None:
        return upright
    return np.array(Image.fromarray(upright).transpose(undo))
