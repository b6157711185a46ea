"""Grouped nested cross-validation of a detector, with intervals and negative controls."""

import logging
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from cnnsvm.data.splits import Fold, grouped_folds
from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.evaluation.bootstrap import bootstrap_metrics, metrics_by
from cnnsvm.evaluation.detectors import (
    check_calibrates,
    check_inner_folds,
    describe_fold,
    detector_settings,
    device_of,
    embed_frozen,
    judge_images,
    learning_curve,
)
from cnnsvm.evaluation.mistakes import explain_mistakes, read_heatmaps
from cnnsvm.evaluation.negative_controls import SHUFFLED, run_controls, summarise_control
from cnnsvm.evaluation.runs import CARRIED, RunDirectory, fingerprint_of
from cnnsvm.features.devices import choose_device
from cnnsvm.io.bundle import library_versions

logger = logging.getLogger(__name__)

_EXPLAINED = 3  # mistakes of both kinds a fold: a heatmap takes as long as many predictions


@dataclass(frozen=True)
class CrossValidation:
    """Results on images that training did not see.

    ``predictions`` has one row an image, in the manifest's order: path, source_id, label, variant,
    engine, mask_schema, fold, and the columns of `cnnsvm.evaluation.detectors.judge_images`.
    ``folds`` says what each fold was and how it did, ``curves`` has its training log. ``heatmaps``
    are of some mistakes, by path, if networks were fine-tuned: float32 (height, width) in [0, 1],
    upright and reduced.
    """

    predictions: pd.DataFrame
    folds: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)


def run_study(
    detector: InpaintDetector,
    manifest: pd.DataFrame,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    folder: str | os.PathLike[str] | None = None,
    shuffled: bool = True,
) -> tuple[dict[str, Any], CrossValidation]:
    """Evaluate an unfitted detector by the rules of evidence.

    ``folder`` is the run directory (see `cross_validate_detector`). ``shuffled`` also runs the
    whole pipeline on shuffled labels, which takes about as long again. Returns what ``report.json``
    holds (see `cnnsvm.report.write_report`), without title, command and data, and the
    cross-validation.
    """
    started = time.perf_counter()
    environment = describe_environment(device_of(detector))
    frozen, outer, control = (
        None if folder is None else Path(folder) / name for name in ("frozen", "folds", "shuffled")
    )
    options: dict[str, Any] = {"n_splits": n_splits, "random_state": random_state}
    fitted = embed_frozen(detector, manifest["path"].tolist(), frozen)
    found = cross_validate_detector(
        fitted, manifest, folder=outer, n_explained=_EXPLAINED, **options
    )
    folds = list(found.folds)
    logger.info("negative controls: metadata, file size, colour histogram")
    controls = run_controls(manifest, outer_folds(manifest, n_splits, random_state), random_state)
    if shuffled:
        options |= {"labels": shuffled_labels(manifest, random_state), "name": "shuffled fold"}
        told = cross_validate_detector(fitted, manifest, folder=control, **options)
        folds += told.folds
        controls["shuffled_labels"] = summarise_control(told.predictions, SHUFFLED)
    columns = ("mask_schema", "variant", "engine")
    kinds = {f"by_{column}": metrics_by(found.predictions, column) for column in columns}
    result = {
        "metrics": bootstrap_metrics(found.predictions),
        **kinds,
        "controls": controls,
        "folds": found.folds,
        "n_images": len(manifest),
        "n_sources": int(manifest["source_id"].nunique()),
        "seconds": max(time.perf_counter() - started, sum(fold["seconds"] for fold in folds)),
        "environment": environment,
        "settings": {k: str(v) for k, v in detector.get_params(deep=False).items()},
    }
    return result, found


def cross_validate_detector(
    detector: InpaintDetector,
    manifest: pd.DataFrame,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    folder: str | os.PathLike[str] | None = None,
    labels: Sequence[int] | np.ndarray | None = None,
    name: str = "fold",
    n_explained: int = 0,
) -> CrossValidation:
    """Fit on all folds but one, judge that one, and so on round.

    Everything that is fitted is fitted inside the training part, by a clone of ``detector``
    (unfitted; it must calibrate) that is given the sources of its images as groups. Both labels
    must occur in the manifest. ``random_state`` is the seed of the shuffle of the outer folds.
    ``folder`` is a run directory: a second call with the same arguments resumes there. ``labels``,
    {0, 1} of shape (n_images,), replace the manifest's, such as shuffled ones for a control;
    ``name`` is what the log calls a fold. ``n_explained`` false alarms and as many misses of a
    fold, the surest, are explained by the network that the fold fine-tuned. A ValueError is raised
    if there are fewer sources than folds, or only one class, and a RunMismatchError if the folder
    holds results of other data or settings.
    """
    check_calibrates(detector)
    frame = manifest[list(CARRIED)].reset_index(drop=True)
    if labels is not None:
        frame["label"] = np.asarray(labels)
    splits = outer_folds(frame, n_splits, random_state)
    for train, _ in splits:  # before the first fine-tuning
        check_inner_folds(detector, frame.iloc[train])
    judged = manifest.assign(label=frame["label"].to_numpy())
    fingerprint = fingerprint_of(detector_settings(detector), (n_splits, random_state), judged)
    run = RunDirectory(None if folder is None else Path(folder), fingerprint)
    parts, folds, curves = [], [], []
    heatmaps: dict[str, np.ndarray] = {}
    for k, (train, test) in enumerate(splits):
        done = _run_fold(detector, frame, train, test, run, f"fold_{k}/fold.json", n_explained)
        scores = pd.DataFrame(done["scores"]).set_index(frame.index[test])
        parts.append(pd.concat([frame.iloc[test], scores], axis=1).assign(fold=k))
        folds.append({"fold": k} | done["summary"])
        curves.append(learning_curve(k, done["history"]))
        heatmaps |= read_heatmaps(done.get("heatmaps", {}))
        auc, seconds = folds[-1]["metrics"]["roc_auc"], folds[-1]["seconds"]
        logger.info("%s %d of %d: ROC AUC %.3f, %.0f s", name, k + 1, n_splits, auc, seconds)
    return CrossValidation(pd.concat(parts).sort_index(), folds, curves, heatmaps)


def outer_folds(manifest: pd.DataFrame, n_splits: int, random_state: int) -> list[Fold]:
    """Split a manifest so that no source is in two folds (see `grouped_folds`)."""
    labels, sources = (manifest[name].to_numpy() for name in ("label", "source_id"))
    return grouped_folds(labels, sources, n_splits, random_state)


def shuffled_labels(manifest: pd.DataFrame, random_state: int = 0) -> np.ndarray:
    """Permute the labels within each source, or over all images where sources hold one class.

    Returns int (n_images,), as many of each label as before; the classes no longer differ in
    anything.
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


def describe_environment(device: str) -> dict[str, Any]:
    """Say what a result was computed with: versions, platform, processor count, device.

    A DeviceError says that the device is not there, before the work starts.
    """
    import torch

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return library_versions() | {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": f"{chosen} ({name})",
    }


def _run_fold(
    detector: InpaintDetector,
    frame: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    run: RunDirectory,
    part: str,
    n_explained: int,
) -> dict[str, Any]:
    """Fit and judge one fold, or read what an earlier call found."""

    def compute() -> dict[str, Any]:
        started = time.perf_counter()
        cache = run.cache(part)
        model = clone(detector)
        if cache is not None:
            model.set_params(cache_dir=cache)
        seen = frame.iloc[train]
        labels, sources = (seen[name].to_numpy() for name in ("label", "source_id"))
        model.fit(seen["path"].tolist(), labels, groups=sources)
        scores = judge_images(model, frame["path"].iloc[test].tolist())
        told = pd.concat([frame.iloc[test].reset_index(drop=True), scores], axis=1)
        summary = describe_fold(model, seen, told) | {"seconds": time.perf_counter() - started}
        return {
            "scores": scores.to_dict("list"),
            "summary": summary,
            "history": list(model.history_),
            "heatmaps": explain_mistakes(model.embedder_, told, n_explained),
        }

    return run.part(part, compute)
