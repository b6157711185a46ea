"""One split instead of many: for data so large that a single held-out part says enough."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.splits import grouped_folds
from cnnsvm.evaluation.cross_validation import CrossValidation
from cnnsvm.evaluation.judging import judge_images
from cnnsvm.evaluation.metrics import binary_metrics
from cnnsvm.evaluation.runs import CARRIED, claim, fingerprint_of, fitted, settings_of
from cnnsvm.features.trainer import best_epoch
from cnnsvm.io.bundle import CONFIG


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
    detector: Any,
    manifest: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    *,
    images: Sequence[Any] | np.ndarray | None = None,
    folder: Path | None = None,
    auxiliary_labels: np.ndarray | None = None,
) -> tuple[CrossValidation, Any]:
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
        What the network is taught, see `InpaintDetector.fit`.
    folder : Path or None
        Keeps the state of a running fit, and then the detector; a second call goes on there.

    Returns
    -------
    found : CrossValidation
        With one fold, the judged rows only. Its ``seconds`` are those of the fit, of a fit that
        was interrupted since it was last taken up; ``images_a_second`` is how fast it judges.
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
    if folder is not None:
        rows = frame.iloc[np.concatenate([train, test])]
        taught = () if auxiliary_labels is None else tuple(auxiliary_labels.tolist())
        settings = (len(train), *taught)
        claim(folder, fingerprint_of(settings_of(detector), settings, rows), "model/*")
    inputs = frame["path"].tolist() if images is None else images
    part = frame.iloc[train]
    model, seconds = _fit(detector, part, folder, [inputs[i] for i in train], auxiliary_labels)
    started = time.perf_counter()
    judged = judge_images(model, [inputs[i] for i in test])
    rate = len(test) / (time.perf_counter() - started)
    kept = frame.iloc[test][list(CARRIED)].reset_index(drop=True)
    predictions = pd.concat([kept, judged.reset_index(drop=True)], axis=1).assign(fold=0)
    summary = {
        "fold": 0,
        "n_train": len(train),
        "n_test": len(test),
        "n_sources_train": int(frame["source_id"].iloc[train].nunique()),
        "n_sources_test": int(frame["source_id"].iloc[test].nunique()),
        "metrics": binary_metrics(
            *(predictions[c].to_numpy() for c in ("label", "probability", "prediction"))
        ),
        "best_params": dict(model.svm_.best_params_),
        "inner_auc": float(model.svm_.best_score_),
        "threshold": float(model.threshold_),
        "seconds": seconds,
        "images_a_second": rate,
    }
    history = getattr(model, "history_", [])
    curve = {"fold": 0, "history": history, "best_epoch": best_epoch(history)}
    return CrossValidation(predictions, [summary], [curve]), model


def _fit(
    detector: Any,
    seen: pd.DataFrame,
    folder: Path | None,
    images: list[Any],
    auxiliary_labels: np.ndarray | None,
) -> tuple[Any, float]:
    """Fit, or take up what is finished, and tell how long the fit took then; nan if unknown."""
    is_finished = folder is not None and (folder / "model" / CONFIG).is_file()
    started = time.perf_counter()
    model = fitted(detector, seen, folder, images=images, auxiliary_labels=auxiliary_labels)
    seconds = time.perf_counter() - started
    if folder is None:
        return model, seconds
    file = folder / "seconds.json"
    if is_finished:
        return model, json.loads(file.read_text("utf-8")) if file.is_file() else float("nan")
    file.write_text(json.dumps(seconds), encoding="utf-8")
    return model, seconds
