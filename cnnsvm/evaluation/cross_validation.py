"""Grouped nested cross-validation of a detector, fold by fold and resumable."""

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from cnnsvm.data.splits import Fold, grouped_folds
from cnnsvm.detection.checks import PRECOMPUTED
from cnnsvm.evaluation.judging import judge_images
from cnnsvm.evaluation.metrics import binary_metrics
from cnnsvm.evaluation.runs import CARRIED, claim, fingerprint_of, settings_of
from cnnsvm.features.trainer import best_epoch
from cnnsvm.io.files import write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidation:
    """Results on images that training did not see.

    Parameters
    ----------
    predictions : DataFrame
        One row an image, in the manifest's order: path, source_id, label, variant, engine,
        mask_schema, fold, score (log-odds above the threshold's), probability (of fake),
        prediction.
    folds : list of dict
        What each fold was and how it did.
    curves : list of dict
        Fine-tuning history of each fold.
    """

    predictions: pd.DataFrame
    folds: list[dict[str, Any]]
    curves: list[dict[str, Any]]


def outer_folds(manifest: pd.DataFrame, n_splits: int, random_state: int) -> list[Fold]:
    """Split a manifest so that no source is in two folds (see `grouped_folds`)."""
    labels, sources = (manifest[name].to_numpy() for name in ("label", "source_id"))
    return grouped_folds(labels, sources, n_splits, random_state)


def cross_validate_detector(
    detector: Any,
    manifest: pd.DataFrame,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    folder: str | os.PathLike[str] | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    name: str = "fold",
) -> CrossValidation:
    """Fit on all folds but one, judge that one, and so on round.

    Everything that is fitted is fitted inside the training part, by a clone of ``detector`` that
    is given the sources of its images as groups.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted; it must calibrate.
    manifest : DataFrame
        See `cnnsvm.data.manifest`; both labels must occur.
    n_splits, random_state : int
        Number of outer folds and the seed of their shuffle.
    folder : path or None
        Keeps each finished fold and the state of the running one; a second call with the same
        arguments goes on there.
    labels : array-like of {0, 1}, shape (n_images,), optional
        Replaces the manifest's labels, such as shuffled ones for a control.
    embeddings : ndarray of float, shape (n_images, n_embedding), optional
        What the detector's frozen network makes of the images (`cnnsvm.evaluation.frozen`), so
        that no fold does it again.
    name : str
        What the log calls a fold.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ValueError
        If there are fewer sources than folds, or only one class.
    RunMismatchError
        If the folder holds results of other data or settings.
    """
    if not detector.calibrate:
        raise ValueError("cross-validation reports probabilities; use calibrate=True.")
    frame = manifest[list(CARRIED)].reset_index(drop=True)
    if labels is not None:
        frame["label"] = np.asarray(labels)
    splits = outer_folds(frame, n_splits, random_state)
    sources = frame["source_id"].to_numpy()
    for train, _ in splits:  # better now than after the first fine-tuning
        grouped_folds(frame["label"].to_numpy()[train], sources[train], detector.cv)
    keep = None if folder is None else Path(folder)
    if keep is not None:
        judged = manifest.assign(label=frame["label"].to_numpy())
        run = fingerprint_of(settings_of(detector), (n_splits, random_state), judged)
        claim(keep, run, "fold_*/fold.json")
    inputs = frame["path"].to_numpy(dtype=object) if embeddings is None else embeddings
    if embeddings is not None:
        detector = clone(detector).set_params(backbone=PRECOMPUTED)
    parts, folds, curves = [], [], []
    for k, (train, test) in enumerate(splits):
        fold_folder = None if keep is None else keep / f"fold_{k}"
        part, summary, history = _run_fold(detector, inputs, frame, train, test, fold_folder)
        parts.append(part.assign(fold=k))
        folds.append({"fold": k} | summary)
        curves.append({"fold": k, "history": history, "best_epoch": best_epoch(history)})
        auc, seconds = summary["metrics"]["roc_auc"], summary["seconds"]
        logger.info("%s %d of %d: ROC AUC %.3f, %.0f s", name, k + 1, n_splits, auc, seconds)
    return CrossValidation(pd.concat(parts).sort_index(), folds, curves)


def shuffled_labels(manifest: pd.DataFrame, random_state: int = 0) -> np.ndarray:
    """Permute the labels within each source, or over all images where sources hold one class.

    Returns
    -------
    ndarray of int, shape (n_images,)
        As many of each label as before; the classes no longer differ in anything.
    """
    rng = np.random.default_rng(random_state)
    labels = manifest["label"].to_numpy(dtype=int).copy()
    sources = manifest["source_id"].to_numpy()
    mixed = manifest.groupby("source_id")["label"].nunique().gt(1)
    if not mixed.all():
        return rng.permutation(labels)
    for source in mixed.index:
        rows = np.flatnonzero(sources == source)
        labels[rows] = rng.permutation(labels[rows])
    return labels


def _run_fold(
    detector: Any,
    inputs: np.ndarray,
    frame: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    folder: Path | None,
) -> tuple[pd.DataFrame, dict[str, Any], list[dict[str, float]]]:
    if folder is not None and (folder / "fold.json").is_file():
        saved = json.loads((folder / "fold.json").read_text(encoding="utf-8"))
        scores = pd.read_parquet(folder / "scores.parquet")
        part = pd.concat([frame.iloc[test], scores.set_index(frame.index[test])], axis=1)
        return part, saved["summary"], saved["history"]
    started = time.perf_counter()
    model = clone(detector)
    if folder is not None:
        model.set_params(cache_dir=folder / "cache")
    seen = frame.iloc[train]
    labels, sources = (seen[name].to_numpy() for name in ("label", "source_id"))
    fitted, judged = (inputs[rows] for rows in (train, test))
    if inputs.ndim == 1:  # paths
        fitted, judged = fitted.tolist(), judged.tolist()
    model.fit(fitted, labels, groups=sources)
    scores = judge_images(model, judged)
    part = pd.concat([frame.iloc[test], scores.set_index(frame.index[test])], axis=1)
    summary = _summarise(model, seen, part) | {"seconds": time.perf_counter() - started}
    history = getattr(model, "history_", [])
    if folder is not None:
        _store(folder, scores, {"summary": summary, "history": history})
    return part, summary, history


def _summarise(model: Any, seen: pd.DataFrame, judged: pd.DataFrame) -> dict[str, Any]:
    arrays = [judged[c].to_numpy() for c in ("label", "probability", "prediction")]
    return {
        "n_train": len(seen),
        "n_test": len(judged),
        "n_sources_train": int(seen["source_id"].nunique()),
        "n_sources_test": int(judged["source_id"].nunique()),
        "metrics": binary_metrics(*arrays),
        "best_params": dict(model.svm_.best_params_),
        "inner_auc": float(model.svm_.best_score_),
        "threshold": float(model.threshold_),
    }


def _store(folder: Path, scores: pd.DataFrame, summary: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(folder / "scores.parquet", index=False)
    write_text(folder / "fold.json", json.dumps(summary))  # last: marks the fold as finished
    shutil.rmtree(folder / "cache", ignore_errors=True)
