"""When to decline: the threshold of a class, and the probability below which nothing is said."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaincinv, logit

from cnnsvm.data.splits import encode_groups
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.svm.calibration import log_odds_to_proba

UNSURE = "unsure"
#: Share of pixels that differ, up to which an image shows nothing, and pixels that are looked at.
_DETAIL, _LOOKED_AT = 0.001, 2**20


class Judgement(NamedTuple):
    """What a detector says of images, from one pass over them.

    Attributes
    ----------
    decisions : ndarray of float64, shape (n,) or (n, n_classes)
        As `InpaintDetector.decision_function`.
    probabilities : ndarray of float64, shape (n, n_classes)
    codes : ndarray of int, shape (n,)
        Position in ``classes_`` of the predicted class.
    is_unsure : ndarray of bool, shape (n,)
        Where the verdict is "unsure".
    """

    decisions: np.ndarray
    probabilities: np.ndarray
    codes: np.ndarray
    is_unsure: np.ndarray

    def named(self, classes: np.ndarray) -> np.ndarray:
        """Name the class of each image, or say "unsure", an object array of shape (n,)."""
        names = classes[self.codes].astype(object)
        names[self.is_unsure] = UNSURE
        return names


class OutOfFold(NamedTuple):
    """Scores of training images by classifiers that were fitted without their sources.

    ``decisions`` are log-odds, (n,) or (n, n_classes), ``codes`` the positions in ``classes_`` and
    ``groups`` the sources, int (n,). They judge the detector if ``is_unseen``; else a network of
    the embedder has learnt from these images, and they are too good.
    """

    decisions: np.ndarray
    codes: np.ndarray
    groups: np.ndarray
    is_unseen: bool


class FalseAlarms(NamedTuple):
    """What a recalibration on untouched images promises.

    An image is named fake if the probability that it is, is above ``threshold``. Of further images
    like the ``n_images`` (or sources) it was chosen on, a share of ``expected`` is named fake on
    average, and between ``low`` and ``high`` in 95 of 100 such recalibrations.
    """

    threshold: float
    n_images: int
    expected: float
    low: float
    high: float


class Thresholds(NamedTuple):
    """What is chosen on out-of-fold scores of the training images and then frozen.

    ``threshold`` is the probability of the second of two classes above which an image is predicted
    as that; ``rejection`` the probability of the predicted class that a verdict must exceed, 0
    rejects nothing.
    """

    threshold: float
    rejection: float


def choose_thresholds(
    threshold: float | str,
    max_error: float | None,
    scores: np.ndarray,
    codes: np.ndarray,
    copies: int = 1,
) -> Thresholds:
    """Choose both thresholds on finite out-of-fold scores, (n,) or (n, n_classes).

    ``threshold`` is one in (0, 1) or "balanced_accuracy"; ``max_error``, in (0, 1), the largest
    share of verdicts that may be wrong, and None rejects nothing. ``copies`` rows come of one
    image, such as degraded views of it: they are not so many proofs.
    """
    chosen = _choose_threshold(threshold, scores, codes)
    if max_error is None:
        return Thresholds(chosen, 0.0)
    probabilities = log_odds_to_proba(scores if scores.ndim == 2 else scores[:, None])
    predicted = predicted_codes(scores, chosen)
    rejection = choose_rejection_threshold(probabilities, predicted, codes, max_error, copies)
    return Thresholds(chosen, rejection)


def choose_false_alarms(
    scores: np.ndarray, max_false_alarms: float, groups: Any = None
) -> FalseAlarms:
    """Choose a threshold on the probabilities of untouched images, (n,), that they are fake.

    The least one for which the next image like these is named fake with a probability of at most
    ``max_false_alarms``, in (0, 1): split conformal prediction (Vovk, Gammerman and Shafer,
    "Algorithmic Learning in a Random World", 2005); the share itself follows a beta distribution
    (Vovk, ACML 2012). Of each of ``groups`` the highest score counts, so that many images of one
    source do not pass for proof. A ValueError says that there are too few.
    """
    if not 0 < max_false_alarms < 1:
        raise ValueError(f"max_false_alarms must lie in (0, 1), got {max_false_alarms!r}.")
    highest = np.asarray(scores, dtype=float)
    if groups is not None:
        codes = encode_groups(groups, len(highest))
        highest = np.array([highest[codes == code].max() for code in range(codes.max() + 1)])
    n = len(highest)
    n_above = int(max_false_alarms * (n + 1) + 1e-9)
    if n_above == 0:
        raise ValueError(
            f"max_false_alarms={max_false_alarms!r} cannot be promised on {n} untouched images (or "
            f"sources). Give at least {int(np.ceil(1 / max_false_alarms - 1e-9)) - 1}, or accept "
            f"{1 / (n + 1):.3f}."
        )
    threshold = float(np.sort(highest)[n - n_above])
    low, high = betaincinv(n_above, n + 1 - n_above, [0.025, 0.975]).tolist()
    return FalseAlarms(threshold, n, n_above / (n + 1), low, high)


def predicted_codes(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Predict the class of each row, int (n,).

    Scores are log-odds of the second of two classes, (n,), compared with those of ``threshold``, or
    one column a class, of which the largest counts.
    """
    if scores.ndim == 2:
        return scores.argmax(axis=1)
    return (scores - logit(threshold) > 0).astype(int)


def choose_rejection_threshold(
    probabilities: np.ndarray,
    predicted: np.ndarray,
    codes: np.ndarray,
    max_error: float,
    copies: int = 1,
) -> float:
    """Find the probability, in [0, 1], above which few enough predictions are wrong.

    Of held-out rows, those above it are wrong in at most ``max_error`` of cases, with one more
    error and one more row counted in so that few rows do not pass for proof. Of all such thresholds
    it is the lowest, which rejects the fewest images; 1 if none will do: every image is then
    rejected. ``probabilities`` are calibrated, (n, n_classes); ``predicted`` and ``codes`` are the
    predicted and the true class of each row; ``copies`` rows come of one image.
    """
    confidence = probabilities[np.arange(len(codes)), predicted]
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], (predicted != codes)[order]
    n_ranked = np.arange(1, len(ranked) + 1)
    rate = (np.cumsum(wrong) / copies + 1) / (n_ranked / copies + 1)
    last_of_its_value = np.append(ranked[1:] < ranked[:-1], True)
    allowed = np.flatnonzero((rate <= max_error) & last_of_its_value)
    if len(allowed) == 0:
        return 1.0
    lowest = ranked[allowed[-1]]
    below = ranked[allowed[-1] + 1] if allowed[-1] + 1 < len(ranked) else 0.0
    middle = float((lowest + below) / 2)
    return middle if middle < lowest else float(below)  # neighbouring numbers have no middle


def lack_detail(images: Sequence[np.ndarray]) -> np.ndarray:
    """Find images, uint8 (H, W, 3), of nothing, such as one grey or a gradient; bool (n_images,).

    In them hardly a pixel differs from the middle of its neighbours, to the left and right or above
    and below, by more than rounding.
    """
    return np.array([_lacks_detail(image) for image in images], dtype=bool)


def _lacks_detail(pixels: np.ndarray) -> bool:
    step = max(1, pixels.shape[0] * pixels.shape[1] // _LOOKED_AT)
    rows, columns = pixels[::step], pixels[:, ::step].swapaxes(0, 1)
    bends = [np.abs(np.diff(lines.astype(np.int16), 2, axis=1)) > 1 for lines in (rows, columns)]
    shown = [bend.mean() for bend in bends if bend.size]
    return max(shown) <= _DETAIL if shown else int(np.ptp(pixels)) == 0


def of_unknown_size(
    embedders: Sequence[Any], sides: np.ndarray, min_side: int, max_side: int
) -> np.ndarray:
    """Find images of a size that the training had nothing like, bool (n_images,).

    An image that is smaller than a crop, and than all training images, is repeated to fill one. Of
    an image that is larger than a single crop only the middle is seen; that tells nothing of it if
    all training images were seen whole. Embedders that are no `CropEmbedder`, or resize, have no
    crops at native resolution. ``sides`` are (n_images, 2), shorter and longer; ``min_side`` and
    ``max_side`` are the shortest and the longest side of the training images (0: unknown). All are
    in pixels.
    """
    crops = [e for e in embedders if isinstance(e, CropEmbedder) and e.resize is None]
    outside = np.zeros(len(sides), dtype=bool)
    if not crops:
        return outside
    for embedder in crops:
        outside |= sides[:, 0] < min(embedder.crop_size, min_side)
        if embedder.n_crops == 1 and 0 < max_side <= embedder.crop_size:
            outside |= sides[:, 1] > embedder.crop_size
    return outside


def _choose_threshold(threshold: float | str, scores: np.ndarray, codes: np.ndarray) -> float:
    """Return what was given, or the middle of the two scores where balanced accuracy is highest."""
    if not isinstance(threshold, str):
        return float(threshold)
    if scores.ndim == 2 or len(scores) == 0:
        return 0.5
    from sklearn.metrics import roc_curve  # half a second

    false_rate, true_rate, cuts = roc_curve(codes == 1, scores)
    best = int(np.argmax(true_rate - false_rate))
    below = scores[scores < cuts[best]]
    cut = cuts[best] if len(below) == 0 else (cuts[best] + below.max()) / 2
    return float(1 / (1 + np.exp(-np.clip(cut, -30, 30))))
