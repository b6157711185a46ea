"""Detectors that differ in one respect, such as the backbone, on one and the same split."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.evaluation.heads import Head, compare_heads, network_head, svm_head
from cnnsvm.evaluation.holdout import evaluate_held_out
from cnnsvm.persistence import CONFIG

logger = logging.getLogger(__name__)


def judge_variants(
    detectors: Mapping[str, Any],
    manifest: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    *,
    images: Sequence[Any] | np.ndarray | None = None,
    folder: Path,
) -> list[dict[str, Any]]:
    """Fit each detector on one part and judge the other, with and without its SVM.

    Parameters
    ----------
    detectors : mapping of str to InpaintDetector
        Unfitted, with ``pooling="mean"`` and ``finetune`` other than "none".
    manifest, train, test, images
        As for `cnnsvm.evaluation.holdout.evaluate_held_out`.
    folder : Path
        Keeps what is fitted; a second call goes on there.

    Returns
    -------
    list of dict
        One a detector: ``name``, ``parameters`` (of the network), ``minutes`` (of the fit),
        ``images_a_second`` (judged, on this machine), ``history``, and ``network`` and ``svm``, as
        `cnnsvm.evaluation.heads.compare_heads` describes each head.
    """
    frame = manifest.reset_index(drop=True)
    inputs = frame["path"].tolist() if images is None else list(images)
    rows = []
    for number, (name, detector) in enumerate(detectors.items()):
        logger.info("%d of %d: %s", number + 1, len(detectors), name)
        place = folder / name.replace(", ", "-").replace(" ", "-")
        minutes, rate = _remembered(place)
        found, model = evaluate_held_out(detector, frame, train, test, images=inputs, folder=place)
        if minutes is None:
            fold = found.folds[0]
            minutes, rate = fold["seconds"] / 60, fold["images_a_second"]
            _remember(place, minutes, rate)
        network, svm = compare_heads(_heads(model, [inputs[i] for i in test], frame.iloc[test]))
        rows.append(
            {
                "name": name,
                "parameters": sum(p.numel() for p in model.network_.parameters()),
                "minutes": minutes,
                "images_a_second": rate,
                "history": model.history_,
                "network": network,
                "svm": svm,
            }
        )
    return rows


def _heads(model: Any, images: Sequence[Any], frame: pd.DataFrame) -> list[Head]:
    embeddings = model.transform(images)
    return [network_head(model, embeddings, frame), svm_head(model, embeddings, frame)]


def _remembered(place: Path) -> tuple[float | None, float | None]:
    """Read how long an earlier call took: what is only loaded now tells nothing of that."""
    file = place / "timing.json"
    if not file.is_file() or not (place / "model" / CONFIG).is_file():
        return None, None
    known = json.loads(file.read_text(encoding="utf-8"))
    return known["minutes"], known["images_a_second"]


def _remember(place: Path, minutes: float, rate: float) -> None:
    partial = place / "timing.partial"
    partial.write_text(json.dumps({"minutes": minutes, "images_a_second": rate}), "utf-8")
    os.replace(partial, place / "timing.json")
