"""How sure is sure enough: the confidence from which a detector commits itself."""

import numpy as np

UNSURE = "unsure"


def choose_confidence(
    probabilities: np.ndarray, predicted: np.ndarray, codes: np.ndarray, max_error: float
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

    Returns
    -------
    float in [0, 1]
        A verdict stands if the probability of the predicted class is greater. 1 if no confidence
        will do: every image is then undecided.
    """
    confidence = probabilities[np.arange(len(codes)), predicted]
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], (predicted != codes)[order]
    rate = (np.cumsum(wrong) + 1) / (np.arange(len(ranked)) + 2)
    last_of_its_value = np.append(ranked[1:] < ranked[:-1], True)
    fine = np.flatnonzero((rate <= max_error) & last_of_its_value)
    if len(fine) == 0:
        return 1.0
    n_sure = fine[-1] + 1
    below = ranked[n_sure] if n_sure < len(ranked) else 0.0
    return float((ranked[n_sure - 1] + below) / 2) if below < ranked[n_sure - 1] else float(below)


def with_unsure(
    labels: np.ndarray, probabilities: np.ndarray, classes: np.ndarray, confidence: float
) -> np.ndarray:
    """Replace the labels that are not sure enough by "unsure".

    Parameters
    ----------
    labels : ndarray, shape (n,)
        Predicted labels.
    probabilities : ndarray of float, shape (n, n_classes)
    classes : ndarray, shape (n_classes,)
        Sorted.
    confidence : float

    Returns
    -------
    ndarray of object, shape (n,)
    """
    of_label = probabilities[np.arange(len(labels)), np.searchsorted(classes, labels)]
    verdicts = labels.astype(object)
    verdicts[of_label <= confidence] = UNSURE
    return verdicts
