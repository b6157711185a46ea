"""Metrics of a real/fake decision, for one weighting of the rows or for a thousand at once.

Label 0 is real and 1 is fake; fake is the positive class. All metrics are computed over a matrix of
row weights, one line a weighting: a bootstrap costs a few matrix products, not a thousand calls.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, column_or_1d

from cnnsvm.localization.pixel_scores import ratio

Array = Sequence[Any] | np.ndarray

METRICS = (
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1"),
    *("roc_auc", "pr_auc", "mcc", "brier", "ece"),
)
N_BINS = 10  # of the calibration error


def binary_metrics(y: Array, probability: Array, prediction: Array) -> dict[str, float]:
    """Score one set of predictions: a float for each name in ``METRICS``.

    ``y``, {0, 1} of shape (n_samples,), are the labels; ``probability``, of fake in [0, 1], ranks
    the rows for ``roc_auc`` and ``pr_auc`` (average precision); ``prediction``, {0, 1}, is the
    decision, whatever threshold it came from. All metrics lie in [0, 1] but ``mcc`` (-1 to 1);
    ``brier`` and ``ece`` (`expected_calibration_error`) are better lower. A ValueError is raised if
    lengths differ or a value is out of range.

    An undefined metric is nan, never 0 and never a warning: all of them without rows; ``recall``
    without fakes, ``precision`` if nothing is called fake, ``f1`` if both; ``balanced_accuracy``,
    ``roc_auc`` and ``pr_auc`` unless both classes occur; ``mcc`` unless both classes occur among
    the labels and among the predictions.
    """
    values = weighted_metrics(y, probability, prediction, np.ones((1, len(y))))
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    y: Array, probability: Array, prediction: Array, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score one set of predictions (see `binary_metrics`) under many weightings of its rows.

    ``weights``, float >= 0 of shape (n_weightings, n_samples), say how often each row counts, such
    as how often each bootstrap resample drew it. Returns float64 (n_weightings,) for each metric.
    """
    truth = _check_binary("y", y) == 1
    called = _check_binary("prediction", prediction) == 1
    chance = _check_probability(probability)
    weights = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any():
        wrong = weights[~(weights >= 0) | np.isinf(weights)][0]
        raise ValueError(f"a weight must be finite and at least 0, got {wrong}; 0 drops a row.")
    check_consistent_length(truth, called, chance, weights.T)
    values = {
        **_decision_metrics(truth, called, weights),
        **_ranking_metrics(truth, chance, weights),
        **_probability_metrics(truth, chance, weights),
    }
    return {name: values[name] for name in METRICS}


def expected_calibration_error(y: Array, probability: Array, n_bins: int = N_BINS) -> float:
    """Measure how far stated probabilities lie from observed frequencies.

    The inputs are those of `binary_metrics`. Returns the weighted mean of the bins' gaps between
    mean probability and share of fakes, in [0, 1]; nan without rows. The bins have equal width, (0,
    0.1], (0.1, 0.2] and so on, with 0 in the first: fixed edges mean the same in every fold and
    resample, which edges of equal mass do not. With few rows a bin the error is biased upwards,
    more so in bootstrap resamples.

    Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning",
    AAAI 2015 (the error); Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks",
    ICML 2017, equations 2-5 (bins of equal width).
    """
    mean, share, weight = reliability_bins(y, probability, n_bins)
    filled = weight > 0
    if not filled.any():
        return float("nan")
    return float(np.average(np.abs(mean - share)[filled], weights=weight[filled]))


def reliability_bins(
    y: Array, probability: Array, n_bins: int = N_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare stated and observed shares of fakes in each bin of `expected_calibration_error`.

    Returns mean_probability, fake_share and weight, float64 (n_bins,): the first two in [0, 1] and
    nan in an empty bin; ``weight`` is the number of rows.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins!r}; 10 is usual.")
    truth, chance = _check_binary("y", y), _check_probability(probability)
    check_consistent_length(truth, chance)
    bins = _bin_of(chance, n_bins)
    weight = np.bincount(bins, minlength=n_bins).astype(float)
    mean = ratio(np.bincount(bins, chance, n_bins), weight)
    share = ratio(np.bincount(bins, truth, n_bins), weight)
    return mean, share, weight


def _decision_metrics(
    truth: np.ndarray, called: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute what depends on the four cells of the confusion matrix alone."""
    cells = np.stack([truth & called, ~truth & called, truth & ~called, ~truth & ~called], axis=1)
    tp, fp, fn, tn = (weights @ cells.astype(np.float64)).T
    recall, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": ratio(tp, tp + fp),
        "recall": recall,
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(
            tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
        ),
    }


def _ranking_metrics(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Integrate the ROC and the precision-recall curve, one step a distinct probability."""
    order = np.argsort(-probability, kind="stable")
    is_last_of_tie = np.diff(probability[order], append=np.inf) != 0
    ranked = weights[:, order]
    tp = np.cumsum(ranked * truth[order], axis=1)[:, is_last_of_tie]
    fp = np.cumsum(ranked * ~truth[order], axis=1)[:, is_last_of_tie]
    new_tp, new_fp = np.diff(tp, axis=1, prepend=0), np.diff(fp, axis=1, prepend=0)
    n_fakes, n_reals = new_tp.sum(axis=1), new_fp.sum(axis=1)
    precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
    return {
        "roc_auc": ratio((new_fp * (tp - new_tp / 2)).sum(axis=1), n_fakes * n_reals),
        "pr_auc": ratio((new_tp * precision).sum(axis=1), np.where(n_reals > 0, n_fakes, 0)),
    }


def _probability_metrics(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute Brier score and ECE; a bin's weight cancels, leaving |sum of w (p - y)|."""
    error = probability - truth
    bins = _bin_of(probability, N_BINS)[:, None] == np.arange(N_BINS)
    total = weights.sum(axis=1)
    return {
        "brier": ratio(weights @ error**2, total),
        "ece": ratio(np.abs(weights @ (bins * error[:, None])).sum(axis=1), total),
    }


def _bin_of(probability: np.ndarray, n_bins: int) -> np.ndarray:
    """Number the bins of equal width from 0; each is closed on the right."""
    return np.searchsorted(np.arange(1, n_bins) / n_bins, probability, side="left")


def _check_binary(name: str, values: Array) -> np.ndarray:
    array = column_or_1d(values)
    wrong = array[~np.isin(array, (0, 1))]
    if len(wrong):
        raise ValueError(
            f"{name} must hold only 0 (real) and 1 (fake), got {wrong.tolist()[0]!r}; map it first."
        )
    return array.astype(np.int64)


def _check_probability(values: Array) -> np.ndarray:
    array = column_or_1d(values).astype(np.float64)
    wrong = array[~((array >= 0) & (array <= 1))]
    if len(wrong):
        raise ValueError(
            f"probability must lie in [0, 1], got {wrong[0]}; "
            "pass predict_proba's second column, not a log-odds score."
        )
    return array
