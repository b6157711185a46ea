"""What `InpaintDetector` accepts: parameters and labelled images."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from cnnsvm.data.images import as_image_list
from cnnsvm.detection.reject import UNSURE
from cnnsvm.detection.saved_networks import check_ensemble, check_weights, is_saved_network
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.backbones import BACKBONES, STATISTICS
from cnnsvm.features.embeddings import FUSIONS, POOLINGS
from cnnsvm.features.finetuning import MODES
from cnnsvm.features.preprocessing import as_preprocessing
from cnnsvm.features.stems import STEMS
from cnnsvm.svm import TunedSVC

PRECOMPUTED = "precomputed"
_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone": (*sorted(BACKBONES), STATISTICS, PRECOMPUTED),
    "stem": STEMS,
    "finetune": MODES,
    "augmentation": tuple(AUGMENTATIONS),
    "pooling": tuple(POOLINGS),
    "fusion": FUSIONS,
}
_AT_LEAST = {"epochs": 1, "patience": 1, "crop_size": 16, "n_crops": 1, "batch_size": 2}
_NONE_OR_AT_LEAST = {"n_jobs": 0, "pairs_per_source": 1, "n_views": 1}


def check_detector_params(params: dict[str, Any]) -> None:
    """Refuse parameters of `InpaintDetector` that its own parts do not check.

    Raises
    ------
    ValueError
        With the value, the rule and the choices.
    """
    _check_kinds(params)
    rate = params["learning_rate"]
    if rate is not None and not rate > 0:
        raise ValueError(f"learning_rate must be None or above 0, got {rate!r}.")
    _check_combinations(params)
    if not 0 < params["validation_fraction"] <= 0.5:
        value = params["validation_fraction"]
        raise ValueError(f"validation_fraction must lie in (0, 0.5], got {value!r}.")
    _check_share("gpu_memory_fraction", params["gpu_memory_fraction"])
    _check_threshold(params["threshold"], params["calibrate"])
    _check_max_error(params["max_error"], params["calibrate"])
    own = {name: params[name] for name in TunedSVC().get_params() if name in params}
    TunedSVC(n_landmarks=params["nystroem"], **own)._validate_params()


def check_labelled_images(
    X: Any, y: Any, groups: Any
) -> tuple[list[Any], np.ndarray, np.ndarray | None]:
    """Line up images, labels and groups; a manifest brings its own of the latter two.

    Returns
    -------
    (images, y, groups)
        A list, an ndarray of shape (n_samples,), and an ndarray of that shape or None.

    Raises
    ------
    ValueError
        If lengths differ, labels are missing, there is only one class, or one is named "unsure".
    """
    images = as_image_list(X)
    if hasattr(X, "columns"):
        y = X["label"] if y is None and "label" in X else y
        groups = X["source_id"] if groups is None and "source_id" in X else groups
    if y is None:
        raise ValueError("fit requires y to be passed, but the target y is None.")
    labels = column_or_1d(np.asarray(y))
    check_classification_targets(labels)
    check_consistent_length(images, labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"y contains only one class, {classes.tolist()!r}; a detector needs real and "
            "fake images."
        )
    check_class_names(classes)
    if groups is not None:
        groups = np.asarray(groups)
        check_consistent_length(images, groups)
    return images, labels, groups


def check_teaches(detector: Any, auxiliary_labels: Any) -> None:
    """Refuse fine labels where no network is trained that could be taught them.

    Raises
    ------
    ValueError
        If ``finetune`` is "none", or the detector learns from statistics.
    """
    if auxiliary_labels is None:
        return
    params = detector.get_params(deep=False)
    names = ("backbone", "finetune", "statistics")
    if params["backbone"] in (PRECOMPUTED, STATISTICS) or params["finetune"] == "none":
        reason = "no network is trained"
    elif params["statistics"]:
        reason = "statistics are taught the classes alone"
    else:
        return
    said = ", ".join(f"{name}={params[name]!r}" for name in names)
    raise ValueError(
        f"auxiliary_labels train a network, but with {said} {reason}. Use a network with "
        "finetune='full' or 'head' and statistics=False, or leave auxiliary_labels out."
    )


def check_auxiliary_labels(auxiliary_labels: Any, labels: np.ndarray) -> np.ndarray | None:
    """Line fine labels up with the labels; None stays None.

    Raises
    ------
    ValueError
        If lengths differ or a label is missing.
    """
    if auxiliary_labels is None:
        return None
    fine = column_or_1d(np.asarray(auxiliary_labels))
    check_consistent_length(fine, labels)
    missing = np.flatnonzero(pd.isna(fine))
    if len(missing):
        raise ValueError(
            f"auxiliary_labels[{missing[0]}] is missing ({fine[missing[0]]!r}); every image needs "
            "one. "
            "Give those without a finer class the name of their class."
        )
    return fine


def check_class_names(labels: np.ndarray) -> None:
    """Refuse a class with the name that a verdict has for images that cannot be told.

    Raises
    ------
    ValueError
        If a label is "unsure".
    """
    if UNSURE in labels.tolist():
        raise ValueError(
            f"y contains the class {UNSURE!r}, which is what `verdict` says of images that it "
            "cannot tell. Give the class another name."
        )


def check_images(X: Any) -> Sequence[Any]:
    """List the images to judge; none at all is an error."""
    images = as_image_list(X)
    if not images:
        raise ValueError("Found array with 0 sample(s): there are no images to judge.")
    return images


def _check_kinds(params: dict[str, Any]) -> None:
    """Refuse what is not of a parameter's choices, no whole number or no truth value."""
    for name, choices in _CHOICES.items():
        if params[name] not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {params[name]!r}.")
    for name, least in _AT_LEAST.items():
        if not isinstance(params[name], Integral) or params[name] < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {params[name]!r}.")
    for name, least in _NONE_OR_AT_LEAST.items():
        value = params[name]
        if value is not None and (not isinstance(value, Integral) or value < least):
            raise ValueError(f"{name} must be None or a whole number >= {least}, got {value!r}.")
    for name in ("statistics", "mirror"):
        if not isinstance(params[name], bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {params[name]!r}.")


def _check_share(name: str, value: float | None) -> None:
    if value is not None and not (isinstance(value, Real) and 0 < value <= 1):
        raise ValueError(f"{name} must be None or lie in (0, 1], got {value!r}.")


def _check_threshold(threshold: Any, calibrate: bool) -> None:
    if threshold == "balanced_accuracy":
        return
    if not isinstance(threshold, float | int) or not 0 < threshold < 1:
        raise ValueError(
            f"threshold must be 'balanced_accuracy' or lie in (0, 1), got {threshold!r}."
        )
    if not calibrate and threshold != 0.5:
        raise ValueError(
            f"threshold={threshold!r} is a probability, which calibrate=False does not give. Use "
            "calibrate=True or threshold='balanced_accuracy'."
        )


def _check_max_error(max_error: float | None, calibrate: bool) -> None:
    if max_error is None:
        return
    if not isinstance(max_error, Real) or not 0 < max_error < 1:
        raise ValueError(
            f"max_error is the share of verdicts that may be wrong: None or in (0, 1), such as "
            f"0.05; got {max_error!r}."
        )
    if not calibrate:
        raise ValueError(
            f"max_error={max_error!r} needs probabilities, which calibrate=False does not give. "
            "Use calibrate=True or max_error=None."
        )


def _check_combinations(params: dict[str, Any]) -> None:
    """Refuse what does not go together, and preprocessing that is none."""
    if params["preprocessing"] != "auto":
        as_preprocessing(params["preprocessing"])
    n_views, augmentation = params["n_views"], params["augmentation"]
    if n_views is not None and n_views > 1 and augmentation in ("none", "geometric", "small"):
        raise ValueError(
            f"n_views={n_views!r} with augmentation={augmentation!r} makes copies: it degrades "
            "nothing. Use augmentation='robust' or 'full', or n_views=None."
        )
    backbone, mode, pooling = (params[name] for name in ("backbone", "finetune", "pooling"))
    if backbone != PRECOMPUTED:
        check_weights(params)
        check_ensemble(params)
    untrained = mode == "none" and not is_saved_network(params["weights"])
    if backbone != PRECOMPUTED and untrained and "top" in POOLINGS[pooling]:
        raise ValueError(
            f"pooling={pooling!r} ranks crops by the classifier that fine-tuning trains, and "
            "finetune='none' trains none. Use finetune='full' or 'head', the weights of a saved "
            "detector, or another pooling."
        )
    if backbone != PRECOMPUTED and untrained and params["fusion"] == "scores":
        raise ValueError(
            "fusion='scores' takes what the layer says that fine-tuning trains, and "
            "finetune='none' trains none. Use finetune='full' or 'head', or the weights of a saved "
            "detector."
        )
