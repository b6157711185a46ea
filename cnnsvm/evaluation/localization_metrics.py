"""How well a localiser marks repainted pixels: image by image and pooled, with intervals.

Maps may come one at a time: of each image a row of metrics is stored, and of each source two
histograms (`cnnsvm.localization.pixel_scores`), so that memory does not grow with the pixels. What
depends on the fixed threshold is exact. An image without a repainted pixel has no recall, and one
false alarm turns its IoU from 1 to 0: such images are left out of the means over images and
reported apart, by the share of their pixels that is called. Pooled over pixels they take part.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.splits import encode_groups
from cnnsvm.evaluation.bootstrap import check_options, draw_weights, interval_of
from cnnsvm.localization.pixel_scores import (
    SCORES,
    edges_with,
    histogram_scores,
    pixel_histogram,
    ratio,
)

#: Means over the images that have a repainted pixel. The best thresholds are those of each image.
PER_IMAGE = tuple(name for name in SCORES if name not in ("called", "best_threshold"))
#: Over the pixels of all images. The best threshold is one for all.
POOLED = tuple(name for name in SCORES if name != "called")
#: Means over the images without one: the share of pixels that is called, and the share of images
#: in which none is.
UNTOUCHED = ("false_alarm", "clean")
_BATCH = 64  # resamples held at once, 33 kB each times a dozen


@dataclass(frozen=True)
class PixelCounts:
    """Counts of the pixels of maps and masks at a fixed threshold.

    ``rows`` has one row an image, in their order: ``source_id``, ``n_pixels``, ``n_repainted`` and
    the names in `cnnsvm.localization.pixel_scores.SCORES`. ``histograms``, int64 (n_sources, 2,
    n_bins), has the untouched and repainted pixels of each source, the sources sorted as text.
    """

    rows: pd.DataFrame
    histograms: np.ndarray
    threshold: float


def count_pixels(
    masks: Iterable[np.ndarray],
    probabilities: Iterable[np.ndarray],
    source_ids: Iterable[Any] | None = None,
    threshold: float = 0.5,
) -> PixelCounts:
    """Compare maps with masks, one after the other.

    ``masks`` are bool (H, W), True where repainted, and ``probabilities`` the maps of the same
    images, float (H, W) in [0, 1], such as `InpaintLocalizer.predict_proba` gives. ``source_ids``
    name the source of each image; None makes each image its own. ``threshold``, in (0, 1), is the
    probability from which a pixel is called repainted. A ValueError is raised if the numbers of
    masks, maps and sources or the sizes of a pair differ, there are none, a probability lies
    outside [0, 1], or the threshold does.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie in (0, 1), got {threshold!r}; 0.5 is usual.")
    edges = edges_with(threshold)
    kept: dict[str, np.ndarray] = {}
    rows = []
    given: list[Iterable[Any]] = [masks, probabilities]
    if source_ids is not None:
        given.append(source_ids)
    for number, (mask, probability, *source) in enumerate(zip(*given, strict=True)):
        histogram = pixel_histogram(mask, probability, edges)
        scores = histogram_scores(histogram, edges, threshold)
        name = str(source[0]) if source else f"{number:09d}"
        kept[name] = kept[name] + histogram if name in kept else histogram
        sizes = {"n_pixels": int(histogram.sum()), "n_repainted": int(histogram[1].sum())}
        rows.append({"source_id": name, **sizes, **{key: float(scores[key]) for key in SCORES}})
    if not rows:
        raise ValueError("there are no masks to compare with; give at least one image.")
    return PixelCounts(pd.DataFrame(rows), np.stack([kept[k] for k in sorted(kept)]), threshold)


def summarise(
    counts: PixelCounts,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> dict[str, Any]:
    """Score what was counted, with intervals from resampled sources (see `bootstrap_metrics`).

    Returns ``n_images``, ``n_untouched`` (images without a repainted pixel), ``n_sources``,
    ``threshold``, and three dicts of intervals (``value``, ``low``, ``high``): ``per_image`` with
    the names in `PER_IMAGE`, ``pooled`` with those in `POOLED`, ``untouched`` with those in
    `UNTOUCHED`. A mean leaves out the images where a metric is undefined. The best threshold is
    chosen anew in each resample. Undefined values and intervals of a single source are nan.
    """
    check_options(n_resamples, confidence)
    values = _all_scores(counts, np.ones((1, len(counts.histograms))))
    n_sources = len(counts.histograms)
    if n_sources > 1:
        draws = draw_weights(n_sources, n_resamples, _BATCH, random_state)
        resampled = _stacked(_all_scores(counts, weights.astype(float)) for weights in draws)
    else:
        resampled = {part: {k: np.array([np.nan]) for k in found} for part, found in values.items()}
    is_untouched = counts.rows["n_repainted"] == 0
    summary: dict[str, Any] = {"n_images": len(counts.rows), "n_untouched": int(is_untouched.sum())}
    summary |= {"n_sources": n_sources, "threshold": counts.threshold}
    for part, found in values.items():
        summary[part] = {
            name: interval_of(float(value[0]), resampled[part][name], confidence)
            for name, value in found.items()
        }
    return summary


Scores = dict[str, dict[str, np.ndarray]]


def _all_scores(counts: PixelCounts, weights: np.ndarray) -> Scores:
    """Score under weightings of the sources (n_weightings, n_sources), one value a weighting."""
    rows = counts.rows
    of_row = weights[:, encode_groups(rows["source_id"].to_numpy(dtype=object), len(rows))]
    is_untouched = rows["n_repainted"].to_numpy() == 0
    edges = edges_with(counts.threshold)
    flat = counts.histograms.reshape(len(counts.histograms), -1).astype(np.float64)
    pooled = histogram_scores(
        (weights @ flat).reshape(len(weights), *counts.histograms.shape[1:]),
        edges,
        counts.threshold,
    )
    clean = rows.assign(clean=rows["called"].eq(0).astype(float))
    return {
        "per_image": _means(rows, PER_IMAGE, of_row * ~is_untouched),
        "pooled": {name: pooled[name] for name in POOLED},
        "untouched": _means(clean, UNTOUCHED, of_row * is_untouched),
    }


def _means(
    rows: pd.DataFrame, names: tuple[str, ...], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Average columns under weightings of the rows, leaving out what is nan."""
    values = rows[list(names)].to_numpy(dtype=np.float64)
    is_there = np.isfinite(values)
    total = weights @ is_there.astype(np.float64)
    sums = weights @ np.where(is_there, values, 0.0)
    means = ratio(sums, total)
    return {name: means[:, k] for k, name in enumerate(names)}


def _stacked(batches: Iterable[Scores]) -> Scores:
    parts = list(batches)
    return {
        part: {name: np.concatenate([batch[part][name] for batch in parts]) for name in found}
        for part, found in parts[0].items()
    }
