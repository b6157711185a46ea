"""What is reached without looking at an image: the least that a localiser has to beat.

Where masks cover half of an image, calling every pixel repainted has an F1 of two thirds; where
they tend to lie in the same places, knowing those places does better still.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from cnnsvm.evaluation.localization_judging import flatten
from cnnsvm.evaluation.localization_metrics import count_pixels, summarise
from cnnsvm.evaluation.localization_records import load_truth
from cnnsvm.localization.pixel_scores import histogram_scores, pixel_histogram

EVERY_PIXEL = "every pixel"
MEAN_MASK = "where masks lie"
CONTROLS = (EVERY_PIXEL, MEAN_MASK)
_SIDE = 64  # of the mean mask


def judge_controls(
    seen: pd.DataFrame,
    unseen: pd.DataFrame,
    kinds: Sequence[str],
    policy: str,
    n_resamples: int = 1000,
    random_state: int | None = 0,
) -> pd.DataFrame:
    """Judge two answers that are the same for all images of a kind.

    "every pixel" calls all repainted. "where masks lie" is the mean of the training masks of the
    kind, brought to the size of each image, with the threshold of the best IoU on those masks.

    Parameters
    ----------
    seen, unseen : DataFrame
        Training part and judged part of
        `cnnsvm.evaluation.localization_records.with_truth`.
    kinds : sequence of str
        Of repainted images; each is in both parts.
    policy : str
        Greys of a mask that count.
    n_resamples, random_state
        Of the intervals, see `cnnsvm.evaluation.localization_metrics.summarise`.

    Returns
    -------
    DataFrame
        One row a kind and control: ``control``, ``judged_on``, and what
        `cnnsvm.evaluation.localization_judging.flatten` gives.
    """
    rows = []
    for kind in kinds:
        mean, best = _mean_mask(seen[seen["kind"] == kind], policy)
        table = unseen[unseen["kind"] == kind]
        shapes = list(zip(table["height"], table["width"], strict=True))
        maps = {EVERY_PIXEL: (np.ones((1, 1), np.float32), 0.5), MEAN_MASK: (mean, best)}
        for control, (answer, threshold) in maps.items():
            truths = (load_truth(row, policy) for row in table.to_dict("records"))
            answers = (_resized(answer, shape) for shape in shapes)
            counts = count_pixels(truths, answers, table["source_id"], threshold)
            found = flatten(summarise(counts, n_resamples, random_state=random_state))
            rows.append({"control": control, "judged_on": kind} | found)
    return pd.DataFrame(rows)


def _mean_mask(table: pd.DataFrame, policy: str) -> tuple[np.ndarray, float]:
    """Average masks at a common size, and find the threshold at which that fits them best."""
    masks = (load_truth(row, policy) for row in table.to_dict("records"))
    small = np.stack([_resized(mask.astype(np.float32), (_SIDE, _SIDE)) for mask in masks])
    mean = small.mean(axis=0)
    truth = small >= 0.5
    histogram = pixel_histogram(truth, np.broadcast_to(mean, truth.shape))
    if not histogram[1].any():
        return mean, 0.5
    return mean, float(histogram_scores(histogram)["best_threshold"])


def _resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring a map to a shape; averaging where it shrinks, so that values stay in [0, 1]."""
    if values.shape == (1, 1):
        return np.broadcast_to(values, shape)
    height, width = int(shape[0]), int(shape[1])
    kernel = cv2.INTER_AREA if values.size > height * width else cv2.INTER_LINEAR
    return np.clip(cv2.resize(values, (width, height), interpolation=kernel), 0, 1)
