"""The whole protocol: cross-validation, intervals, negative controls, in one result."""

import logging
import os
import platform
import time
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.evaluation.bootstrap import bootstrap_metrics, metrics_by
from cnnsvm.evaluation.cross_validation import (
    CrossValidation,
    cross_validate_detector,
    outer_folds,
    shuffled_labels,
)
from cnnsvm.evaluation.frozen import embed_frozen
from cnnsvm.evaluation.negative_controls import SHUFFLED, run_controls, summarise_control
from cnnsvm.features.devices import choose_device
from cnnsvm.io.bundle import library_versions

logger = logging.getLogger(__name__)


def run_study(
    detector: Any,
    manifest: pd.DataFrame,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    folder: str | os.PathLike[str] | None = None,
    shuffled: bool = True,
) -> tuple[dict[str, Any], CrossValidation]:
    """Evaluate a detector by the rules of evidence.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted.
    manifest : DataFrame
    n_splits, random_state : int
    folder : path or None
        Keeps finished folds, see `cross_validate_detector`.
    shuffled : bool
        Also run the whole pipeline on shuffled labels, which takes about as long again.

    Returns
    -------
    (result, cross_validation)
        ``result`` is what ``report.json`` holds (see `cnnsvm.report.write_report`), without
        title, command and data.
    """
    started = time.perf_counter()
    environment = describe_environment(detector.device)
    options: dict[str, Any] = {"n_splits": n_splits, "random_state": random_state}
    keep = None if folder is None else Path(folder)
    place = None if keep is None else keep / "frozen"
    options["embeddings"] = embed_frozen(detector, manifest["path"].tolist(), place)
    found = cross_validate_detector(
        detector, manifest, folder=None if keep is None else keep / "folds", **options
    )
    logger.info("negative controls: metadata, file size, colour histogram")
    fold_seconds = sum(fold["seconds"] for fold in found.folds)
    controls = run_controls(manifest, outer_folds(manifest, n_splits, random_state), random_state)
    if shuffled:
        labels = shuffled_labels(manifest, random_state)
        place = None if keep is None else keep / "shuffled"
        control = cross_validate_detector(
            detector, manifest, folder=place, labels=labels, name="shuffled fold", **options
        )
        fold_seconds += sum(fold["seconds"] for fold in control.folds)
        controls["shuffled_labels"] = summarise_control(control.predictions, SHUFFLED)
    result = {
        "metrics": bootstrap_metrics(found.predictions),
        **{
            f"by_{column}": metrics_by(found.predictions, column)
            for column in ("mask_schema", "variant", "engine")
        },
        "controls": controls,
        "folds": found.folds,
        "n_images": len(manifest),
        "n_sources": int(manifest["source_id"].nunique()),
        "seconds": max(time.perf_counter() - started, fold_seconds),
        "environment": environment,
        "settings": {name: str(value) for name, value in detector.get_params().items()},
    }
    return result, found


def describe_environment(device: str) -> dict[str, Any]:
    """Say what a result was computed with: versions, platform, processor count, device.

    Raises
    ------
    DeviceError
        If the device is not there; better now than after an hour.
    """
    import torch

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return library_versions() | {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": f"{chosen} ({name})",
    }
