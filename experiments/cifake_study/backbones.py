"""Detectors that differ in one respect, such as the backbone, on one and the same split."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cifake_study.heads import Head, compare_heads, network_head, svm_head
from cifake_study.holdout import evaluate_held_out
from cnnsvm.detection.detector import InpaintDetector

logger = logging.getLogger(__name__)


def judge_variants(
    detectors: Mapping[str, InpaintDetector],
    manifest: pd.DataFrame,
    train: np.ndarray,
    test: np.ndarray,
    *,
    images: Sequence[Any] | np.ndarray | None = None,
    folder: Path,
    auxiliary_labels: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """Fit each detector on one part and judge the other, with and without its SVM.

    Parameters
    ----------
    detectors : mapping of str to InpaintDetector
        Unfitted, with ``pooling="mean"`` and ``finetune`` other than "none".
    manifest, train, test, images
        As for `cifake_study.holdout.evaluate_held_out`.
    folder : Path
        Run directories, one a detector; a second call resumes there.
    auxiliary_labels : mapping of str to ndarray of shape (len(train),), optional
        Auxiliary labels of a detector's name, for those that are trained on some.

    Returns
    -------
    list of dict
        One a detector: ``name``, ``parameters`` (of the network), ``minutes`` (of the fit),
        ``images_a_second`` (judged, on this machine), ``history``, and ``network`` and ``svm``, as
        `cifake_study.heads.compare_heads` describes each head.
    """
    frame = manifest.reset_index(drop=True)
    inputs = frame["path"].tolist() if images is None else list(images)
    rows = []
    for number, (name, detector) in enumerate(detectors.items()):
        logger.info("%d of %d: %s", number + 1, len(detectors), name)
        place = folder / name.replace(", ", "-").replace(" ", "-")
        auxiliary = None if auxiliary_labels is None else auxiliary_labels.get(name)
        found, model = evaluate_held_out(
            *(detector, frame, train, test), images=inputs, folder=place, auxiliary_labels=auxiliary
        )
        network, svm = compare_heads(_heads(model, [inputs[i] for i in test], frame.iloc[test]))
        rows.append(
            {
                "name": name,
                "parameters": sum(p.numel() for p in model.embedder_[0].network_.parameters()),
                "minutes": found.folds[0]["seconds"] / 60,
                "images_a_second": found.folds[0]["images_a_second"],
                "history": model.history_,
                "network": network,
                "svm": svm,
            }
        )
    return rows


def _heads(model: InpaintDetector, images: Sequence[Any], frame: pd.DataFrame) -> list[Head]:
    embeddings = model.transform(images)
    return [network_head(model, embeddings, frame), svm_head(model, embeddings, frame)]
