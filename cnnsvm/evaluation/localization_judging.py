"""Maps of a fitted localiser against the truth, by kinds of images."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.images import load_image
from cnnsvm.evaluation.bootstrap import as_columns
from cnnsvm.evaluation.localization_metrics import (
    PER_IMAGE,
    POOLED,
    UNTOUCHED,
    PixelCounts,
    count_pixels,
    summarise,
)
from cnnsvm.evaluation.localization_records import ORIGINAL, kinds_of, load_truth
from cnnsvm.evaluation.runs import CARRIED
from cnnsvm.generation.post_processing import PostProcessing
from cnnsvm.localization.localizer import InpaintLocalizer

_PARTS = {"per_image": PER_IMAGE, "pooled": POOLED, "untouched": UNTOUCHED}
_COUNTED = ("n_images", "n_untouched", "n_sources", "threshold")
_AT_ONCE = 16  # images whose maps are held
#: Called with the position of a row and its map.
Watcher = Callable[[int, np.ndarray], None]


def judge(
    localizer: InpaintLocalizer,
    table: pd.DataFrame,
    *,
    policy: str | None = None,
    quality: int | None = None,
    watch: Watcher | None = None,
) -> PixelCounts:
    """Compare the maps of a fitted localiser with the truth, at its own threshold.

    ``table`` is one of `cnnsvm.evaluation.localization_records.with_truth`, of sources not trained
    on; the rows that are returned are in its order and also have the columns in `CARRIED`, ``kind``
    and ``reading``. ``policy`` says which greys of a mask count (None takes the localiser's),
    ``quality`` is that of a JPEG (4:2:0) that the images go through in memory, and ``watch`` is
    called with the position of each row and its map. A ValueError is raised if the table is empty,
    an image cannot be read (`ImageError`) or a mask has another size than its image (`MaskError`).
    """
    truths = (load_truth(row, policy or localizer.mask_policy) for row in table.to_dict("records"))
    maps = _maps(localizer, list(table["path"]), quality, watch)
    counts = count_pixels(truths, maps, table["source_id"], float(localizer.threshold_))
    carried = table[[*CARRIED, "kind", "reading"]].reset_index(drop=True)
    scores = counts.rows.drop(columns="source_id")
    return PixelCounts(pd.concat([carried, scores], axis=1), counts.histograms, counts.threshold)


def judge_kinds(
    localizer: InpaintLocalizer,
    table: pd.DataFrame,
    n_resamples: int = 1000,
    random_state: int | None = 0,
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Judge each kind of image apart, and the untouched ones, with intervals (see `summarise`).

    Returns the rows of `judge`, one an image and reading, and by kind what `flatten` returns.
    """
    parts, summaries = [], {}
    for kind in (*kinds_of(table), ORIGINAL):
        own = table[table["kind"] == kind]
        if len(own):
            counts = judge(localizer, own)
            parts.append(counts.rows)
            found = summarise(counts, n_resamples, random_state=random_state)
            summaries[kind] = flatten(found)
    return pd.concat(parts, ignore_index=True), summaries


def flatten(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Spread what `summarise` returns over the columns of a table.

    These are ``n_images``, ``n_untouched``, ``n_sources``, ``threshold``, and each score with its
    interval, as ``per_image_iou``, ``per_image_iou_low`` and ``per_image_iou_high``. What is
    undefined is None.
    """
    flat = {name: summary[name] for name in _COUNTED}
    for part, names in _PARTS.items():
        scores = as_columns({f"{part}_{name}": summary[part][name] for name in names})
        flat |= {k: float(v) if np.isfinite(v) else None for k, v in scores.items()}
    return flat


def compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Send pixels (H, W, 3) through a JPEG of a quality, 4:2:0, in memory."""
    jpeg = PostProcessing(codec="jpeg", quality=quality)
    return jpeg.decode(jpeg.encode(pixels))


def _maps(
    localizer: InpaintLocalizer, paths: list[Any], quality: int | None, watch: Watcher | None
) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), _AT_ONCE):
        images = [load_image(path) for path in paths[start : start + _AT_ONCE]]
        if quality is not None:
            images = [compress(image, quality) for image in images]
        for offset, found in enumerate(localizer.predict_proba(images)):
            if watch is not None:
                watch(start + offset, found)
            yield found
