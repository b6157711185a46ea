"""Heatmaps: where in an image the crops look repainted."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from scipy.special import expit
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.images import load_image, read_header
from cnnsvm.features.crops import MAX_WINDOWS, window_positions, wrap_to
from cnnsvm.features.embedder import CropEmbedder

if TYPE_CHECKING:
    from cnnsvm.detection.detector import InpaintDetector


def explain(detector: "InpaintDetector", image: Any) -> np.ndarray:
    """Show where an image looks repainted.

    A crop slides over the image, the classifiers that fine-tuning trained judge each place,
    and each pixel averages the windows that it lies in. The map says where the evidence of
    `predict_proba` comes from; its values are those of single crops and not calibrated.

    Parameters
    ----------
    image : path, bytes, PIL image or uint8 array

    Returns
    -------
    ndarray of float32, shape (H, W), in [0, 1]
        1 where crops look the least like untouched ones (the class called real or original,
        else ``classes_[0]``), in the image's own pixels: of the size and orientation in which
        it is stored, before any EXIF rotation.

    Raises
    ------
    ValueError
        If no embedder was fine-tuned, or the image cannot be read (`ImageError`).
    """
    check_is_fitted(detector, "classifier_")
    return heatmap(detector.embedder_, image, detector.max_pixels)


def heatmap(
    embedders: Sequence[Any],
    image: Any,
    max_pixels: int | None = None,
    max_windows: int = MAX_WINDOWS,
) -> np.ndarray:
    """Slide a crop over an image and blend what fine-tuned classifiers say of each place.

    Embedders that were fine-tuned on native crops are asked; the log-odds of those with one crop
    size are averaged, and then the maps of different sizes. Where there would be more than
    ``max_windows`` crops, they lie further apart, up to side by side. Returns float32 (H, W) in
    [0, 1], see `InpaintDetector.explain`.
    """
    by_size: dict[int, list[CropEmbedder]] = {}
    for embedder in explaining(embedders):
        by_size.setdefault(int(embedder.crop_size), []).append(embedder)
    if not by_size:
        raise ValueError(
            "explain needs the classifier that fine-tuning trains, and no embedder of this "
            "detector has one. Fit one with finetune='full' or 'head'."
        )
    pixels = load_image(image, max_pixels=max_pixels)
    maps = [_one_size(pixels, size, members, max_windows) for size, members in by_size.items()]
    return as_stored(maps[0] if len(maps) == 1 else np.mean(maps, axis=0), image)


def explaining(embedders: Sequence[Any]) -> list[CropEmbedder]:
    """Return the fitted embedders that can say where: fine-tuned, and on native crops."""
    crops = [each for each in embedders if isinstance(each, CropEmbedder)]
    return [each for each in crops if each.resize is None and each.has_classifier]


def _one_size(
    pixels: np.ndarray, size: int, embedders: Sequence[CropEmbedder], max_windows: int
) -> np.ndarray:
    large = wrap_to(pixels, size)
    height, width = large.shape[:2]
    tops, lefts = window_positions(height, width, size, max(1, size // 4), max_windows)
    places = [(top, left) for top in tops for left in lefts]
    scores = []
    step = embedders[0].batch_size
    for start in range(0, len(places), step):
        part = places[start : start + step]
        crops = np.stack([large[y : y + size, x : x + size] for y, x in part])
        scores.append(np.mean([embedder.score_crops(crops) for embedder in embedders], axis=0))
    values = expit(np.concatenate(scores)).reshape(len(tops), len(lefts))
    return blend_windows(values, tops, lefts, pixels.shape[:2], size)


def blend_windows(
    values: np.ndarray, tops: list[int], lefts: list[int], shape: tuple[int, int], size: int
) -> np.ndarray:
    """Average the values of windows over each pixel, those with it in their middle the most.

    ``values``, (n_tops, n_lefts), are of windows of ``size`` pixels a side that cover the image
    together. Returns float32 of the given shape, (height, width). A window weighs what its rows
    weigh times what its columns do, so that two products of matrices do it.
    """
    rows, columns = (
        _weights(starts, side, size) for starts, side in zip((tops, lefts), shape, strict=True)
    )
    blended = rows.T @ (values.astype(np.float32) @ columns)
    return np.clip(blended, 0, 1, out=blended)


def _weights(starts: list[int], side: int, size: int) -> np.ndarray:
    """Return the weight of each window for each place of a side, float32 (n, side)."""
    distance = np.arange(side) - (np.array(starts)[:, None] + (size - 1) / 2)
    weights = np.clip(1 - np.abs(distance) / ((size + 1) / 2), 0, None)
    return (weights / weights.sum(axis=0)).astype(np.float32)


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
