"""All that an evaluation asks of a detector: to be checked, fitted, judged by and told apart."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, TransformerMixin, clone

from cnnsvm.data.estimators import real_class
from cnnsvm.data.images import image_hash
from cnnsvm.data.splits import grouped_folds
from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.detection.fitting import count_inner_folds
from cnnsvm.detection.reject import UNSURE
from cnnsvm.evaluation.bootstrap import Interval, bootstrap_metrics
from cnnsvm.evaluation.metrics import binary_metrics
from cnnsvm.evaluation.runs import settings_of
from cnnsvm.features.cache import RECIPE, hash_settings
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.embedding_store import embed_stored
from cnnsvm.features.saved import is_saved_network, saved_folder
from cnnsvm.features.trainer import best_epoch
from cnnsvm.io.bundle import CONFIG
from cnnsvm.svm.calibration import log_odds_to_proba

logger = logging.getLogger(__name__)


def check_calibrates(detector: InpaintDetector) -> None:
    """Refuse a detector without probabilities (`ValueError`)."""
    if not hasattr(detector, "predict_proba"):
        raise ValueError("calibrate=False gives no probabilities to evaluate; use calibrate=True.")


def check_inner_folds(detector: InpaintDetector, seen: pd.DataFrame, target: str = "label") -> None:
    """Refuse a training part with too few sources for the inner folds, before a long fit."""
    labels, sources = seen[target].to_numpy(), seen["source_id"].to_numpy()
    grouped_folds(labels, sources, count_inner_folds(detector))


def judge_images(detector: InpaintDetector, images: Sequence[Any]) -> pd.DataFrame:
    """Score images by a fitted, calibrated detector in one pass, one row an image.

    The columns are score (log-odds of fake above the threshold's), probability (of fake: of two
    classes the second, of more all but the first), prediction (1 where the score is positive); with
    more than two classes ``named`` (the most probable class) and ``confidence`` (its probability);
    with ``max_error`` ``verdict``: "original", "fake" (of any kind) or "unsure". Probability and
    prediction follow from the score exactly.
    """
    found = detector.judge(images)
    fake = found.codes > 0
    if len(detector.classes_) == 2:
        score = found.decisions
        probability = expit(score + logit(detector.threshold_))
        judged = {"score": score, "probability": probability, "prediction": fake.astype(int)}
    else:
        score = -logit(np.clip(found.probabilities[:, 0], 1e-15, 1 - 1e-15))
        judged = {
            "score": score,
            "probability": expit(score),
            "prediction": (score > 0).astype(int),
            "named": detector.classes_[found.codes],
            "confidence": found.probabilities.max(axis=1),
        }
    if detector.max_error is not None:
        judged["verdict"] = np.where(found.is_unsure, UNSURE, np.where(fake, "fake", "original"))
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
        "best_params": dict(getattr(model.classifier_, "best_params_", {})),
        "inner_auc": float(getattr(model.classifier_, "best_score_", np.nan)),
        "threshold": float(model.threshold_),
    }


def learning_curve(fold: int, history: list[dict[str, float]]) -> dict[str, Any]:
    """Describe the fine-tuning of a fold for a report."""
    return {"fold": fold, "history": history, "best_epoch": best_epoch(history)}


def device_of(detector: InpaintDetector) -> str:
    """Return where the embedders of an unfitted detector run."""
    return next((e.device for e in detector.embedders() if hasattr(e, "device")), "auto")


def out_of_fold_auc(detector: InpaintDetector) -> Interval:
    """Score the out-of-fold scores of a fitted detector by ROC AUC, fake against real.

    Returns ``value``, ``low`` and ``high`` (95 %, sources resampled), as of `bootstrap_metrics`. It
    is a little too good: the hyperparameters were chosen on these scores. A
    ValueError says that the detector was loaded: what is saved has no such scores.
    """
    held_out = detector.out_of_fold_
    if held_out is None:
        raise ValueError("a loaded detector has no out-of-fold scores. Fit it.")
    real = real_class(detector.classes_)
    decisions = held_out.decisions
    chances = log_odds_to_proba(decisions if decisions.ndim == 2 else decisions[:, None])
    table = pd.DataFrame(
        {
            "source_id": held_out.groups,
            "label": (held_out.codes != real).astype(int),
            "probability": np.clip(1 - chances[:, real], 0, 1),
        }
    )
    return bootstrap_metrics(table.assign(prediction=table["label"]))["roc_auc"]


class StoredEmbeddings(TransformerMixin, BaseEstimator):
    """An embedder that looks up embeddings, float32 (n, d), by path."""

    def __init__(self, paths: Sequence[str], embeddings: np.ndarray) -> None:
        self.paths = paths
        self.embeddings = embeddings

    def __sklearn_clone__(self) -> Self:
        return type(self)(self.paths, self.embeddings)  # without a copy for each fold

    def fit(self, images: Any, y: Any = None) -> Self:
        """Do nothing."""
        return self

    def transform(self, images: Sequence[str]) -> np.ndarray:
        """Look up the embeddings of paths, float32 (n, d)."""
        row_of = {path: row for row, path in enumerate(self.paths)}
        return self.embeddings[[row_of[path] for path in images]]


def embed_frozen(
    detector: InpaintDetector, paths: Sequence[str], folder: Path | None = None
) -> InpaintDetector:
    """Embed all images of a cross-validation at once, if no fold trains an embedder.

    Returns an unfitted detector that looks up what its embedders made of the images; the same one
    if an embedder is trained, or the classifier is fitted on degraded views. ``folder`` stores the
    embeddings, named by networks, settings and the content of the images. An ImageError is raised
    if an image cannot be read.
    """
    embedders = detector.embedders()
    if detector.n_views is not None or not all(map(_is_frozen, embedders)):
        return detector
    fitted = [clone(embedder).fit(paths) for embedder in embedders]
    logger.info("embedding %d images once for all folds", len(paths))
    if folder is None:
        parts = [embedder.transform(paths) for embedder in fitted]
    else:
        keys = [image_hash(path) for path in paths]
        parts = [embed_stored(embedder, paths, keys, folder) for embedder in fitted]
    embeddings = np.hstack(parts)
    return clone(detector).set_params(embedder=StoredEmbeddings(paths, embeddings))


def detector_settings(detector: InpaintDetector) -> bytes:
    """Hash the parameters of an unfitted detector and the content of its weights."""
    own = {k: v for k, v in detector.get_params(deep=False).items() if k != "embedder"}
    digest = hashlib.sha256(f"{RECIPE} {hash_settings(own)}".encode())
    for embedder in detector.embedders():
        digest.update(settings_of(embedder))
        weights = getattr(embedder, "weights", None)
        if is_saved_network(weights):
            digest.update((saved_folder(weights) / CONFIG).read_bytes())  # has each file's hash
    return digest.digest()


def _is_frozen(embedder: Any) -> bool:
    """Tell whether every fit of an embedder gives the same one."""
    is_ours = isinstance(embedder, CropEmbedder) and embedder.finetune == "none"
    return is_ours and embedder.weights is not None
