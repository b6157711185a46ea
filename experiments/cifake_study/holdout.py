"""One split instead of many: for data so large that a single held-out part says enough."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.splits import grouped_folds
from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.evaluation.detectors import (
    describe_fold,
    detector_settings,
    judge_images,
    learning_curve,
)
from cnnsvm.evaluation.protocol import CrossValidation
from cnnsvm.evaluation.runs import CARRIED, RunDirectory, fingerprint_of
from resumable import fit_resumable


def hold_out(
    labels: np.ndarray, groups: np.ndarray, n_images: int, random_state: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Set images aside, by whole groups and with both classes in their proportion.

    Parameters
    ----------
    labels, groups : ndarray of shape (n,)
    n_images : int
        How many, about: one fold of as many as are nearest to that size.
    random_state : int
        Seed of the draw.

    Returns
    -------
    train, test : ndarray of int
        Sorted positions.

    Raises
    ------
    ValueError
        If that is none, or more than half of the images.
    """
    if not 0 < n_images <= len(labels) / 2:
        raise ValueError(
            f"the images held out must be between 1 and half of all {len(labels):,}, got "
            f"{n_images!r}: the others are trained on."
        )
    n_splits = max(2, round(len(labels) / n_images))
    train, test = grouped_folds(labels, groups, n_splits, random_state)[0]
    return np.sort(train), np.sort(test)


def draw_groups(groups: np.ndarray, n_images: int, random_state: int = 0) -> np.ndarray:
    """Draw whole groups until there are so many images, or no group is left.

    Parameters
    ----------
    groups : ndarray of shape (n,)
    n_images, random_state : int

    Returns
    -------
    ndarray of int
        Sorted positions, ``n_images`` of them or hardly more.
    """
    _, codes = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(random_state).permutation(codes.max() + 1)
    total = np.cumsum(np.bincount(codes)[order])
    taken = order[: int(np.searchsorted(total, n_images)) + 1]
    return np.flatnonzero(np.isin(codes, taken))


def evaluate_held_out(
    detector: InpaintDetector,
    manifest: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    *,
    images: Sequence[Any] | np.ndarray | None = None,
    folder: Path | None = None,
    auxiliary_labels: np.ndarray | None = None,
) -> tuple[CrossValidation, InpaintDetector]:
    """Fit a detector on one part of a data set and judge another.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted; it must calibrate.
    manifest : DataFrame
        See `cnnsvm.data.manifest`.
    train, test : ndarray of int
        Rows; no source may be in both.
    images : sequence of image inputs, optional
        What stands for the manifest's paths, such as pixels out of an archive.
    auxiliary_labels : ndarray of shape (len(train),), optional
        Of the training images, see `InpaintDetector.fit`.
    folder : Path or None
        Run directory: a second call resumes there.

    Returns
    -------
    found : CrossValidation
        With one fold, the judged rows only. Its ``seconds`` are those of the fit since it was
        last resumed (nan if unknown), ``images_a_second`` is how fast it judges.
    fitted : InpaintDetector

    Raises
    ------
    ValueError
        If a source is in both parts.
    RunMismatchError
        If the folder holds results of other data or settings.
    """
    frame = manifest.reset_index(drop=True)
    shared = set(frame["source_id"].iloc[train]) & set(frame["source_id"].iloc[test])
    if shared:
        raise ValueError(
            f"{len(shared)} source(s) are trained on and judged too, such as {min(shared)!r}. "
            "Split by sources, as hold_out does."
        )
    labels = () if auxiliary_labels is None else tuple(auxiliary_labels.tolist())
    rows = frame.iloc[np.concatenate([train, test])]
    fingerprint = fingerprint_of(detector_settings(detector), (len(train), *labels), rows)
    run = RunDirectory(folder, fingerprint, results="model/*")
    inputs = frame["path"].tolist() if images is None else images
    seen, unseen = frame.iloc[train], frame.iloc[test].reset_index(drop=True)
    fitted = [inputs[i] for i in train]
    model = fit_resumable(detector, seen, run, images=fitted, auxiliary_labels=auxiliary_labels)
    started = time.perf_counter()
    scores = judge_images(model, [inputs[i] for i in test])
    rate = len(test) / (time.perf_counter() - started)
    predictions = pd.concat([unseen[list(CARRIED)], scores], axis=1).assign(fold=0)
    summary = {"fold": 0} | describe_fold(model, seen, predictions)
    summary |= {"seconds": run.seconds.get("model", np.nan), "images_a_second": rate}
    curve = learning_curve(0, list(model.history_))
    return CrossValidation(predictions, [summary], [curve]), model
