"""Metrics of a real/fake decision, for one weighting of the rows or for a thousand at once.

Label 0 is real and 1 is fake; fake is the positive class. Everything is computed over a
matrix of row weights, one line a weighting, so that a bootstrap costs a few matrix products
instead of a thousand calls.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, column_or_1d

Array = Sequence[Any] | np.ndarray

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "pr_auc",
    "mcc",
    "brier",
    "ece",
)


def binary_metrics(
    y: Array, probability: Array, prediction: Array, sample_weight: Array | None = None
) -> dict[str, float]:
    """Score one set of predictions.

    A metric that is undefined is nan, never 0 and never a warning:

    - all of them without rows (or with weights that are all 0);
    - ``recall`` without fakes, ``precision`` when nothing is called fake, ``f1`` when both;
    - ``balanced_accuracy``, ``roc_auc`` and ``pr_auc`` unless both classes occur;
    - ``mcc`` unless both classes occur among the labels and among the predictions.

    Parameters
    ----------
    y : array-like of {0, 1}, shape (n_samples,)
        1 is fake.
    probability : array-like of float in [0, 1], shape (n_samples,)
        Probability of fake; ranks the rows for ``roc_auc`` and ``pr_auc``.
    prediction : array-like of {0, 1}, shape (n_samples,)
        The decision, whatever threshold it came from.
    sample_weight : array-like of float >= 0, shape (n_samples,), optional
        How often each row counts; 1 by default.

    Returns
    -------
    dict of str to float
        The names in ``METRICS``: all in [0, 1] but ``mcc`` (-1 to 1). ``pr_auc`` is average
        precision, ``brier`` the mean squared error of the probability (lower is better),
        ``ece`` as in :func:`expected_calibration_error` (lower is better).

    Raises
    ------
    ValueError
        If lengths differ, a label or decision is not 0 or 1, a probability lies outside
        [0, 1], or a weight is negative or not finite.
    """
    weight = np.ones(len(y)) if sample_weight is None else column_or_1d(sample_weight)
    values = weighted_metrics(y, probability, prediction, weight[None])
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    y: Array, probability: Array, prediction: Array, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score one set of predictions under many weightings of its rows.

    Parameters
    ----------
    y, probability, prediction : array-like, shape (n_samples,)
        As in :func:`binary_metrics`.
    weights : ndarray of float >= 0, shape (n_weightings, n_samples)
        One weighting a line, such as how often a bootstrap resample drew each row.

    Returns
    -------
    dict of str to ndarray of float64, shape (n_weightings,)
        The names in ``METRICS``; nan where :func:`binary_metrics` is.

    Raises
    ------
    ValueError
        As in :func:`binary_metrics`.
    """
    truth = _check_binary("y", y) == 1
    called = _check_binary("prediction", prediction) == 1
    chance = _check_probability(probability)
    weights = _check_weights(weights)
    check_consistent_length(truth, called, chance, weights.T)
    values = {
        **_decision_metrics(truth, called, weights),
        **_ranking_metrics(truth, chance, weights),
        **_probability_metrics(truth, chance, weights),
    }
    return {name: values[name] for name in METRICS}


def expected_calibration_error(
    y: Array, probability: Array, n_bins: int = 10, sample_weight: Array | None = None
) -> float:
    """Measure how far stated probabilities lie from observed frequencies.

    The bins have equal width, (0, 0.1], (0.1, 0.2] and so on, with 0 in the first: fixed edges
    mean the same thing in every fold and resample, which edges of equal mass do not. Each
    bin's gap between mean probability and share of fakes counts by the bin's weight. With
    few rows a bin the error is biased upwards, more so in bootstrap resamples.

    Parameters
    ----------
    y : array-like of {0, 1}, shape (n_samples,)
    probability : array-like of float in [0, 1], shape (n_samples,)
        Probability of fake (not the confidence in the predicted class).
    n_bins : int
        Number of bins, at least 1.
    sample_weight : array-like of float >= 0, shape (n_samples,), optional

    Returns
    -------
    float
        In [0, 1], 0 best; nan without rows.

    Raises
    ------
    ValueError
        As in :func:`binary_metrics`, or if ``n_bins`` is below 1.

    References
    ----------
    Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian
    binning", AAAI 2015 (the error); Guo, Pleiss, Sun, Weinberger, "On calibration of modern
    neural networks", ICML 2017, equations 2-5 (bins of equal width).
    """
    mean, share, weight = reliability_bins(y, probability, n_bins, sample_weight)
    filled = weight > 0
    if not filled.any():
        return float("nan")
    return float(np.average(np.abs(mean - share)[filled], weights=weight[filled]))


def reliability_bins(
    y: Array, probability: Array, n_bins: int = 10, sample_weight: Array | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare stated and observed shares of fakes, bin by bin.

    Parameters
    ----------
    y, probability, n_bins, sample_weight
        As in :func:`expected_calibration_error`.

    Returns
    -------
    mean_probability, fake_share, weight : ndarray of float64, shape (n_bins,)
        The first two in [0, 1] and nan in an empty bin; ``weight`` sums to the total weight.

    Raises
    ------
    ValueError
        As in :func:`expected_calibration_error`.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins!r}; 10 is usual.")
    truth, chance = _check_binary("y", y), _check_probability(probability)
    row_weight = np.ones(len(truth)) if sample_weight is None else column_or_1d(sample_weight)
    row_weight = _check_weights(row_weight[None])[0]
    check_consistent_length(truth, chance, row_weight)
    bins = _bin_of(chance, n_bins)
    weight = np.bincount(bins, row_weight, n_bins)
    mean = _ratio(np.bincount(bins, row_weight * chance, n_bins), weight)
    share = _ratio(np.bincount(bins, row_weight * truth, n_bins), weight)
    return mean, share, weight


def _decision_metrics(
    truth: np.ndarray, called: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute what depends on the four cells of the confusion matrix alone."""
    cells = np.stack([truth & called, ~truth & called, truth & ~called, ~truth & ~called], axis=1)
    tp, fp, fn, tn = (weights @ cells.astype(np.float64)).T
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": _ratio(
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
        "roc_auc": _ratio((new_fp * (tp - new_tp / 2)).sum(axis=1), n_fakes * n_reals),
        "pr_auc": _ratio((new_tp * precision).sum(axis=1), np.where(n_reals > 0, n_fakes, 0)),
    }


def _probability_metrics(
    truth: np.ndarray, probability: np.ndarray, weights: np.ndarray, n_bins: int = 10
) -> dict[str, np.ndarray]:
    """Compute Brier score and ECE; a bin's weight cancels, leaving |sum of w (p - y)|."""
    error = probability - truth
    bins = _bin_of(probability, n_bins)[:, None] == np.arange(n_bins)
    total = weights.sum(axis=1)
    return {
        "brier": _ratio(weights @ error**2, total),
        "ece": _ratio(np.abs(weights @ (bins * error[:, None])).sum(axis=1), total),
    }


def _bin_of(probability: np.ndarray, n_bins: int) -> np.ndarray:
    """Number the bins of equal width from 0; each is closed on the right."""
    return np.searchsorted(np.arange(1, n_bins) / n_bins, probability, side="left")


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with nan (and no warning) where the denominator is 0."""
    out = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _check_binary(name: str, values: Array) -> np.ndarray:
    array = column_or_1d(values)
    wrong = array[~np.isin(array, (0, 1))]
    if len(wrong):
        raise ValueError(
            f"{name} must hold only 0 (real) and 1 (fake), got {wrong.tolist()[0]!r}; "
            "map your labels to 0 and 1 first."
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


def _check_weights(weights: np.ndarray) -> np.ndarray:
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(
            f"weights must have shape (n_weightings, n_samples), got {array.shape}; "
            "write weights[None] for a single weighting."
        )
    if not np.isfinite(array).all() or (array < 0).any():
        wrong = array[~(np.isfinite(array) & (array >= 0))][0]
        raise ValueError(
            f"A weight must be finite and at least 0, got {wrong}; use 0 to drop a row."
        )
    return array
