"""How sure is sure enough: the confidence from which a detector commits itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnsvm.data.images import image_sides

UNSURE = "unsure"


def offset(threshold: float) -> float:
    """Return the log-odds of a probability in (0, 1)."""
    return float(np.log(threshold / (1 - threshold)))


def predicted_codes(decisions: np.ndarray, threshold: float) -> np.ndarray:
    """Name the class of each row by its decision.

    Parameters
    ----------
    decisions : ndarray of float, shape (n,) or (n, n_classes)
        Of two classes the log-odds of the second, else one column a class.
    threshold : float in (0, 1)
        Probability of the second of two classes from which a row is called that.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    if decisions.ndim == 2:
        return decisions.argmax(axis=1)
    return (decisions - offset(threshold) > 0).astype(int)


def choose_confidence(
    probabilities: np.ndarray,
    predicted: np.ndarray,
    codes: np.ndarray,
    max_error: float,
    copies: int = 1,
) -> float:
    """Find the confidence above which few enough verdicts are wrong.

    Of the rows that were never trained on, those above it are wrong in at most ``max_error`` of
    cases, one more error and one more row counted in so that few rows do not pass for proof; of
    all such confidences it is the lowest, which leaves the fewest images undecided.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, n_classes)
        Calibrated, of held-out rows.
    predicted, codes : ndarray of int, shape (n,)
        Predicted and true class of each row.
    max_error : float in (0, 1)
    copies : int
        Rows that come of one image, such as degraded views of it: they are not so many proofs.

    Returns
    -------
    float in [0, 1]
        A verdict stands if the probability of the predicted class is greater. 1 if no confidence
        will do: every image is then undecided.
    """
    confidence = probabilities[np.arange(len(codes)), predicted]
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], (predicted != codes)[order]
    n_ranked = np.arange(1, len(ranked) + 1)
    rate = (np.cumsum(wrong) / copies + 1) / (n_ranked / copies + 1)
    last_of_its_value = np.append(ranked[1:] < ranked[:-1], True)
    fine = np.flatnonzero((rate <= max_error) & last_of_its_value)
    if len(fine) == 0:
        return 1.0
    lowest = ranked[fine[-1]]
    below = ranked[fine[-1] + 1] if fine[-1] + 1 < len(ranked) else 0.0
    middle = float((lowest + below) / 2)
    return middle if middle < lowest else float(below)  # neighbouring numbers have no middle


def with_unsure(
    codes: np.ndarray,
    probabilities: np.ndarray,
    classes: np.ndarray,
    confidence: float,
    outside: np.ndarray | bool = False,
) -> np.ndarray:
    """Name the classes, but say "unsure" where that is not sure enough.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Predicted class of each row.
    probabilities : ndarray of float, shape (n, n_classes)
    classes : ndarray, shape (n_classes,)
    confidence : float
        Probability of the predicted class above which the verdict stands.
    outside : ndarray of bool, shape (n,), or bool
        Rows that are unlike all training images, see `of_unknown_size`.

    Returns
    -------
    ndarray of object, shape (n,)
    """
    verdicts = classes[codes].astype(object)
    stated = probabilities[np.arange(len(codes)), codes]
    verdicts[(stated <= confidence) | outside] = UNSURE
    return verdicts


def of_unknown_size(detector: Any, images: Sequence[Any]) -> np.ndarray:
    """Find images of a size from which nothing follows, as the training had nothing like it.

    A picture that is smaller than a crop, and than all training images, is repeated to fill one.
    Of a picture that is larger than a single crop only the middle is seen; that tells nothing of
    it if all training images were seen whole.

    Parameters
    ----------
    detector : InpaintDetector
        Fitted on images; ``min_side_`` and ``max_side_`` are the shortest and the longest side
        that its training had (0: unknown).
    images : sequence of images

    Returns
    -------
    ndarray of bool, shape (n_images,)
    """
    crop = detector.crop_size
    sides = np.array([image_sides(image) for image in images], dtype=int).reshape(-1, 2)
    outside = sides[:, 0] < min(crop, getattr(detector, "min_side_", 0))
    if detector.n_crops == 1 and 0 < getattr(detector, "max_side_", 0) <= crop:
        outside |= sides[:, 1] > crop
    return outside
