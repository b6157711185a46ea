"""How an `InpaintDetector` is fitted, and how its parameters become a network and its training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve
from sklearn.utils import check_random_state

from cnnsvm.data.images import image_sides
from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.detection.reject import choose_confidence, predicted_codes
from cnnsvm.detection.saved_networks import (
    add_ensemble,
    is_saved_network,
    load_saved_network,
    real_class,
)
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.auxiliary_labels import AuxiliaryLabels
from cnnsvm.features.backbones import STATISTICS, Backbone, build_backbone, embedding_dim
from cnnsvm.features.cache import Embedding, fit_embeddings, fit_network, task_folder
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.finetuning import validation_split
from cnnsvm.features.loading import view_draws
from cnnsvm.features.trainer import Training
from cnnsvm.svm import TunedSVC
from cnnsvm.svm.calibrated_classifier import choose_calibration_rows
from cnnsvm.svm.calibration import log_odds_to_proba

#: Sources of early stopping from which their scores alone calibrate.
MIN_HELD_OUT = 10


def fit_on_images(
    detector: Any,
    images: Sequence[Any],
    y: np.ndarray,
    groups: np.ndarray | None,
    seed: int,
    auxiliary_labels: np.ndarray | None = None,
) -> None:
    """Fine-tune the network, embed the images, and fit the SVM on that.

    Parameters
    ----------
    detector : InpaintDetector
        Gets ``network_``, ``history_`` and what `fit_svm` sets.
    images : sequence of image inputs
    y : ndarray of shape (n_samples,)
        Labels, of at least two classes.
    groups : ndarray of shape (n_samples,) or None
    seed : int
    auxiliary_labels : ndarray of shape (n_samples,) or None
        What the network is trained on instead of ``y``, each value within one class.
    """
    detector.classes_, codes = np.unique(y, return_inverse=True)
    auxiliary = None if auxiliary_labels is None else AuxiliaryLabels.of(auxiliary_labels, codes)
    if groups is not None or detector.n_views is not None:
        grouped_folds(y, groups, detector.cv)  # better now than after the fine-tuning
    sides = np.array([image_sides(image) for image in images])
    detector.min_side_, detector.max_side_ = int(sides.min()), int(sides.max())
    detector.network_ = build_network(detector, seed)
    if detector.network_.classifier is None:
        detector.network_.real_class = real_class(detector.classes_)
    embedding_dim(detector.network_, detector.crop_size)
    training, embedding = training_of(detector, seed), embedding_of(detector)
    shape = [detector.backbone, detector.stem, detector.truncate_at, statistics_of(detector)]
    settings = [*shape, detector.n_views, detector.classes_.tolist(), training, embedding]
    settings += [] if auxiliary is None else [auxiliary.parents, auxiliary.codes.tobytes()]
    cache = task_folder(detector.cache_dir, detector.network_, images, codes, groups, settings)
    detector.history_ = fit_network(
        detector.network_, images, codes, groups, training, cache, auxiliary
    )
    sources = encode_groups(groups, len(y))
    trusted = _trusted_rows(codes, sources, training)
    if detector.n_views is None:
        embeddings = fit_embeddings(lambda: embedding(detector.network_, images), cache)
        return fit_svm(detector, embeddings, y, groups, seed, trusted, cache)
    draws = view_draws(codes, sources, seed, detector.n_views)
    embeddings = fit_embeddings(
        lambda: embedding.embed_views(detector.network_, images, draws, training.augmentation),
        cache,
    )
    rows = np.array([draw.index for draw in draws])
    trusted = None if trusted is None else trusted[rows]
    return fit_svm(detector, embeddings, y[rows], sources[rows], seed, trusted, cache)


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Draw the seed of a fit."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def set_aside(
    detector: Any, y: np.ndarray, groups: Sequence[Any] | np.ndarray | None
) -> np.ndarray:
    """Find the images that a fit would keep from the network, to tell when to stop.

    They are what an SVM on frozen networks can be fitted on, where there are no other images: what
    a network says of those that it has learnt from is too good.

    Parameters
    ----------
    detector : InpaintDetector
        With ``random_state`` a number, as then the fit draws the same ones.
    y : ndarray of shape (n_samples,)
        Labels of all images of the fit.
    groups : array-like of shape (n_samples,) or None

    Returns
    -------
    ndarray of int
        Sorted positions.
    """
    training = training_of(detector, seed_of(detector.random_state))
    codes = np.unique(y, return_inverse=True)[1]
    return np.sort(validation_split(codes, encode_groups(groups, len(y)), training)[1])


def fit_svm(
    detector: Any,
    embeddings: np.ndarray,
    y: np.ndarray,
    groups: Any,
    seed: int,
    trusted: np.ndarray | None = None,
    cache: Path | None = None,
) -> None:
    """Fit the SVM and choose threshold and confidence on its out-of-fold scores.

    Parameters
    ----------
    detector : InpaintDetector
        Gets ``svm_``, ``classes_``, ``threshold_`` and ``confidence_``.
    embeddings : ndarray of float, shape (n_rows, n_features)
    y : ndarray of shape (n_rows,)
    groups : array-like of shape (n_rows,) or None
    seed : int
    trusted : ndarray of bool, shape (n_rows,), or None
        Rows that the network has not learnt from; None trusts all.
    cache : path or None
        Folder that keeps the studies.
    """
    detector.svm_ = TunedSVC(
        detector.kernel,
        voting=detector.voting,
        n_trials=detector.n_trials,
        cv=detector.cv,
        calibrate=detector.calibrate,
        n_landmarks=detector.nystroem,
        storage=None if cache is None else cache / _journal(detector),
        verbose=detector.verbose,
        random_state=seed,
    ).fit(embeddings, y, groups, trusted)
    detector.classes_ = detector.svm_.classes_
    codes = np.searchsorted(detector.classes_, y)
    scores = detector.svm_.cv_decision_
    held_out = np.isfinite(scores.reshape(len(y), -1)).all(axis=1)
    rows = choose_calibration_rows(trusted, codes) & held_out
    scores, codes = scores[rows], codes[rows]
    detector.threshold_ = choose_threshold(detector.threshold, scores, codes)
    detector.confidence_ = 0.0
    if detector.max_error is not None:
        probabilities = log_odds_to_proba(scores.reshape(len(scores), -1))
        named = predicted_codes(scores, detector.threshold_)
        detector.confidence_ = choose_confidence(
            probabilities, named, codes, detector.max_error, detector.n_views or 1
        )


def _journal(detector: Any) -> str:
    """Name the file of the studies; others of the same embeddings have other names."""
    landmarks = "" if detector.nystroem is None else f"-{detector.nystroem}"
    return f"studies-{detector.cv}{landmarks}.journal"


def choose_threshold(threshold: float | str, scores: np.ndarray, codes: np.ndarray) -> float:
    """Find the probability of the second of two classes from which an image is called that.

    Parameters
    ----------
    threshold : float or "balanced_accuracy"
    scores : ndarray of float, shape (n_rows,) or (n_rows, n_classes)
        Finite out-of-fold log-odds or margins.
    codes : ndarray of int, shape (n_rows,)

    Returns
    -------
    float in (0, 1)
        What was given; or where the balanced accuracy is the highest, in the middle between two
        scores, and 0.5 if there are more than two classes or no rows.
    """
    if not isinstance(threshold, str):
        return float(threshold)
    if scores.ndim == 2 or len(scores) == 0:
        return 0.5
    false_rate, true_rate, cuts = roc_curve(codes == 1, scores)
    best = int(np.argmax(true_rate - false_rate))
    below = scores[scores < cuts[best]]
    cut = cuts[best] if len(below) == 0 else (cuts[best] + below.max()) / 2
    return float(1 / (1 + np.exp(-np.clip(cut, -30, 30))))


def build_network(detector: Any, seed: int) -> Backbone:
    """Build the network that a detector's parameters describe, with its ensemble."""
    network = _build_or_load(detector, seed)
    add_ensemble(network, detector.ensemble)
    return network


def _build_or_load(detector: Any, seed: int) -> Backbone:
    if is_saved_network(detector.weights):
        return load_saved_network(detector.weights, detector.get_params(deep=False))
    usual = "residual" if detector.weights is None else "imagenet"
    return build_backbone(
        detector.backbone,
        detector.weights,
        usual if detector.preprocessing == "auto" else detector.preprocessing,
        random_state=seed,
        projection=detector.finetune == "head",
        statistics=statistics_of(detector),
        stem=detector.stem,
        truncate_at=detector.truncate_at,
    )


def statistics_of(detector: Any) -> str | None:
    """Say which statistics a new network has behind its embedding: None, "raw" or "learnt"."""
    if not detector.statistics and detector.backbone != STATISTICS:
        return None
    return "raw" if detector.finetune == "none" else "learnt"


def embedding_of(detector: Any) -> Embedding:
    """Say how a detector's parameters want images to be seen."""
    return Embedding(pooling=detector.pooling, fusion=detector.fusion, **_place(detector))


def training_of(detector: Any, seed: int) -> Training:
    """Say how a detector's parameters want the network to be fine-tuned."""
    is_network = detector.backbone != STATISTICS
    whole_pretrained = is_network and detector.finetune == "full" and detector.weights is not None
    return Training(
        mode=detector.finetune,
        epochs=detector.epochs,
        patience=detector.patience,
        learning_rate=detector.learning_rate or (1e-4 if whole_pretrained else 1e-3),
        weight_decay=detector.weight_decay,
        validation_fraction=detector.validation_fraction,
        augmentation=AUGMENTATIONS[detector.augmentation],
        pairs=detector.pairs_per_source,
        random_state=seed,
        **_place(detector),
    )


def _place(detector: Any) -> dict[str, Any]:
    device = choose_device(detector.device, detector.gpu_memory_fraction)
    return {
        "crop_size": int(detector.crop_size),
        "n_crops": int(detector.n_crops),
        "batch_size": int(detector.batch_size),
        "device": device,
        "dtype": choose_precision(detector.precision, device),
        "n_jobs": int(detector.n_jobs or 0),
        "mirror": bool(detector.mirror),
    }


def _trusted_rows(codes: np.ndarray, sources: np.ndarray, training: Training) -> np.ndarray | None:
    """Find the images of early stopping, if they are of sources enough to calibrate on."""
    if training.mode == "none":
        return None
    held_out = np.zeros(len(codes), dtype=bool)
    held_out[validation_split(codes, sources, training)[1]] = True
    return held_out if len(np.unique(sources[held_out])) >= MIN_HELD_OUT else None
