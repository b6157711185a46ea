"""All that an evaluation asks of a detector: to be checked, fitted, judged by and told apart."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.base import clone

from cnnsvm.data.splits import grouped_folds
from cnnsvm.detection.checks import PRECOMPUTED
from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.detection.fitting import build_network, embedding_of
from cnnsvm.detection.reject import UNSURE, of_unknown_size
from cnnsvm.detection.saved_networks import is_saved_network
from cnnsvm.evaluation.metrics import binary_metrics
from cnnsvm.evaluation.runs import WITHOUT_EFFECT, RunDirectory
from cnnsvm.features.cache import fit_embeddings, network_arrays, task_folder
from cnnsvm.features.trainer import best_epoch

logger = logging.getLogger(__name__)

_MACHINE = ("device", "precision", "gpu_memory_fraction", "n_jobs")
_NOT_PART_OF_JUDGING = (*WITHOUT_EFFECT, "device", "batch_size", "weights", "random_state")


def check_calibrates(detector: InpaintDetector) -> None:
    """Refuse a detector without probabilities (`ValueError`)."""
    if not detector.calibrate:
        raise ValueError("calibrate=False gives no probabilities to evaluate; use calibrate=True.")


def check_target(manifest: pd.DataFrame, target: str) -> None:
    """Refuse a column to fit on unless its first class is that of the originals, and only theirs.

    Raises
    ------
    ValueError
        If the column is missing or empty in a row, or its classes do not tell real from fake.
    """
    if target not in manifest:
        raise ValueError(
            f"target must name a column of the manifest, such as label or variant; got {target!r}."
        )
    if manifest[target].isna().any():
        raise ValueError(f"target={target!r} is empty in some rows; use label or variant.")
    first = min(manifest[target])
    if not ((manifest[target] == first) == (manifest["variant"] == "original")).all():
        raise ValueError(
            f"target={target!r} must put all originals, and nothing else, into the class that "
            f"sorts first, which is {first!r}. Use label or variant."
        )


def check_inner_folds(detector: InpaintDetector, seen: pd.DataFrame, target: str = "label") -> None:
    """Refuse a training part with too few sources for the inner folds, before a long fit."""
    grouped_folds(seen[target].to_numpy(), seen["source_id"].to_numpy(), detector.cv)


def fit_resumable(
    detector: InpaintDetector,
    seen: pd.DataFrame,
    run: RunDirectory,
    name: str = "model",
    *,
    target: str = "label",
    images: Sequence[Any] | None = None,
    auxiliary_labels: np.ndarray | None = None,
) -> InpaintDetector:
    """Fit a clone of a detector as a part of a run, or load the one that an earlier call fitted.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted; its settings for this machine also hold for one that is loaded.
    seen : DataFrame
        Manifest of the training images; their sources are the groups.
    run : RunDirectory
        Stores the state of the running fit and then the detector, as the part ``name``.
    target : str
        Column that is fitted.
    images : sequence of image inputs, optional
        Instead of the files that the manifest names.
    auxiliary_labels : ndarray, optional
        See `InpaintDetector.fit`.
    """

    def fit() -> InpaintDetector:
        cache = run.cache(name)
        model = clone(detector) if cache is None else clone(detector).set_params(cache_dir=cache)
        inputs = seen["path"].tolist() if images is None else images
        own = {} if auxiliary_labels is None else {"auxiliary_labels": auxiliary_labels}
        return model.fit(inputs, seen[target].to_numpy(), seen["source_id"].to_numpy(), **own)

    kind = type(detector)
    model = run.part(name, fit, load=kind.load, save=kind.save)
    machine = {name: value for name, value in detector.get_params().items() if name in _MACHINE}
    return model.set_params(**machine)


def judge_images(detector: InpaintDetector, images: Sequence[Any]) -> pd.DataFrame:
    """Score images in one pass; probability and prediction follow from the score exactly.

    Parameters
    ----------
    detector : InpaintDetector
        Fitted and calibrated.
    images : sequence of images

    Returns
    -------
    DataFrame
        One row an image: score (log-odds of fake above the threshold's), probability (of fake: of
        two classes the second, of more all but the first),
        prediction (1 where the score is positive), and with more than two classes ``named`` (the
        most probable class) and ``confidence`` (its probability). Of a detector with
        ``max_error`` also ``verdict``: "original", "fake" (of any kind) or "unsure".
    """
    if len(detector.classes_) == 2:
        score = detector.decision_function(images)
        probability = expit(score + logit(detector.threshold_))
        fake = score > 0
        confidence = np.where(fake, probability, 1 - probability)
        judged = {"score": score, "probability": probability, "prediction": fake.astype(int)}
    else:
        probabilities = detector.predict_proba(images)
        score = -logit(np.clip(probabilities[:, 0], 1e-15, 1 - 1e-15))
        fake, confidence = probabilities.argmax(axis=1) > 0, probabilities.max(axis=1)
        judged = {
            "score": score,
            "probability": expit(score),
            "prediction": (score > 0).astype(int),
            "named": detector.classes_[probabilities.argmax(axis=1)],
            "confidence": confidence,
        }
    if getattr(detector, "max_error", None) is not None:  # a baseline has none
        sure = confidence > detector.confidence_
        if hasattr(detector, "min_side_"):
            sure &= ~of_unknown_size(detector, images)
        judged["verdict"] = np.where(sure, np.where(fake, "fake", "original"), UNSURE)
    return pd.DataFrame(judged)


def describe_fold(
    model: InpaintDetector, seen: pd.DataFrame, judged: pd.DataFrame
) -> dict[str, Any]:
    """Summarise what a detector was fitted on and how well it judged the held-out part."""
    columns = (judged[name].to_numpy() for name in ("label", "probability", "prediction"))
    return {
        "n_train": len(seen),
        "n_test": len(judged),
        "n_sources_train": int(seen["source_id"].nunique()),
        "n_sources_test": int(judged["source_id"].nunique()),
        "metrics": binary_metrics(*columns),
        "best_params": dict(model.svm_.best_params_),
        "inner_auc": float(model.svm_.best_score_),
        "threshold": float(model.threshold_),
    }


def training_log(model: InpaintDetector) -> list[dict[str, float]]:
    """Return the log of the fine-tuning, one entry an epoch; empty if no network was trained."""
    return list(getattr(model, "history_", []))


def learning_curve(fold: int, history: list[dict[str, float]]) -> dict[str, Any]:
    """Describe the fine-tuning of a fold for a report."""
    return {"fold": fold, "history": history, "best_epoch": best_epoch(history)}


def embed_frozen(
    detector: InpaintDetector, paths: Sequence[str], folder: Path | None = None
) -> np.ndarray | None:
    """Embed all images of a cross-validation at once, if no fold trains the network.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted.
    paths : sequence of str
    folder : path or None
        Stores the embeddings, named by network, settings and the content of the images.

    Returns
    -------
    ndarray of float32, shape (n_images, n_embedding), or None
        None unless the network is that of a saved detector, frozen, and sees images as they are.
    """
    is_frozen = getattr(detector, "finetune", None) == "none"
    if not is_frozen or detector.n_views is not None or not is_saved_network(detector.weights):
        return None
    network, embedding = build_network(detector, 0), embedding_of(detector)
    codes = np.zeros(len(paths), dtype=int)
    place = task_folder(folder, network, paths, codes, None, ["frozen", embedding])

    def embed() -> np.ndarray:
        logger.info("embedding %d images once for all folds", len(paths))
        return embedding(network, paths)

    return fit_embeddings(embed, place)


def on_embeddings(detector: InpaintDetector) -> InpaintDetector:
    """Return the unfitted detector that takes embeddings instead of images."""
    return clone(detector).set_params(backbone=PRECOMPUTED)


def identity_of(detector: InpaintDetector) -> bytes:
    """Hash what a fitted detector's judgement depends on; the same after saving and loading."""
    config, arrays = detector.svm_.to_state()
    params = {k: v for k, v in detector.get_params().items() if k not in _NOT_PART_OF_JUDGING}
    known = [params, float(detector.threshold_), detector.classes_.tolist(), config["models"]]
    known += [float(detector.confidence_), getattr(detector, "min_side_", 0)]
    known.append(getattr(detector, "max_side_", 0))
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    network = getattr(detector, "network_", None)
    if network is not None:
        digest.update(repr(network.preprocessing).encode())
        arrays = arrays | network_arrays(network)
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()
