"""Calibrated log-odds from out-of-fold scores: Platt scaling, voting and several classes."""

import logging

import numpy as np
from scipy.special import expit, log_expit, logit, logsumexp, softmax
from sklearn.linear_model import LogisticRegression

logger = logging.getLogger(__name__)

# Odds ratio of two scores one standard deviation apart when the data support no ranking: small
# enough that every probability is the prevalence, large enough to keep the scores' order.
MIN_STANDARD_SLOPE = 1e-3
MAX_NEWTON_STEPS = 100


def fit_platt(scores: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Fit the log-odds of the positive class as ``slope * score + offset``.

    Maximum likelihood with Platt's regularised targets, by Newton's method with backtracking.
    The slope is kept positive, so calibration never changes the order of the scores. Where the
    likelihood asks for a slope near or below 0 (scores that do not rank, as of shuffled labels)
    the slope is 0.001 per standard deviation and every probability is the prevalence.

    Parameters
    ----------
    scores : ndarray of float64, shape (n_samples,)
        Finite scores of rows that the scoring machine was not fitted on.
    target : ndarray of bool, shape (n_samples,)
        True for the positive class.

    Returns
    -------
    slope, offset : float
        ``slope`` is greater than 0.

    References
    ----------
    J. Platt, "Probabilistic outputs for support vector machines", 1999, section 2.
    H.-T. Lin, C.-J. Lin and R. C. Weng, "A note on Platt's probabilistic outputs for support
    vector machines", Machine Learning 68, 2007, algorithm 1.
    """
    n_pos = int(np.count_nonzero(target))
    goal = np.where(target, (n_pos + 1) / (n_pos + 2), 1 / (len(target) - n_pos + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    standard = (scores - centre) / spread
    slope, offset = _newton(np.column_stack([standard, np.ones_like(standard)]), goal)
    if not slope > MIN_STANDARD_SLOPE:
        logger.warning(
            "The out-of-fold scores do not rank the classes (Platt slope %.3g per standard "
            "deviation); every calibrated probability is about the prevalence.",
            slope,
        )
        slope, offset = MIN_STANDARD_SLOPE, float(logit(goal.mean()))
    return slope / spread, offset - slope * centre / spread


def _newton(design: np.ndarray, goal: np.ndarray) -> tuple[float, float]:
    """Minimise the cross-entropy of ``expit(design @ weights)`` against ``goal``."""
    weights = np.array([0.0, logit(goal.mean())])
    loss = _cross_entropy(design @ weights, goal)
    for _ in range(MAX_NEWTON_STEPS):
        proba = expit(design @ weights)
        gradient = design.T @ (proba - goal)
        hessian = (design.T * (proba * (1 - proba))) @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and _cross_entropy(design @ (weights - size * step), goal) >= loss:
            size /= 2
        if size <= 1e-10:
            break
        weights = weights - size * step
        loss = _cross_entropy(design @ weights, goal)
    return float(weights[0]), float(weights[1])


def _cross_entropy(log_odds: np.ndarray, goal: np.ndarray) -> float:
    return float(np.sum(np.logaddexp(0, log_odds) - goal * log_odds))


def one_vs_rest(codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Turn class numbers, int (n_samples,), into bool targets (n_samples, n_machines).

    Two classes have one column, True for the second; more have one column each.
    """
    positive = np.array([1]) if n_classes == 2 else np.arange(n_classes)
    return codes[:, np.newaxis] == positive


def fit_platt_columns(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the Platt scaling of every column of scores, float64 (n_samples, n_machines).

    Rows with NaN are left out. ``targets``, bool of the same shape, is True for the positive class
    of each machine. Returns slopes and offsets, shape (n_machines,), NaN for a column whose finite
    scores are all of one class.
    """
    slope, offset = np.full((2, targets.shape[1]), np.nan)
    for k in range(targets.shape[1]):
        finite = np.isfinite(scores[:, k])
        if len(np.unique(targets[finite, k])) == 2:
            slope[k], offset[k] = fit_platt(scores[finite, k], targets[finite, k])
    return slope, offset


def soft_vote(log_odds: np.ndarray) -> np.ndarray:
    """Return the log-odds of the mean probability of several voters.

    ``log_odds`` has the shape (n_voters, ...), the result (...). It is computed in logarithms, so
    that certain voters do not saturate.
    """
    if len(log_odds) == 1:
        return log_odds[0]
    return logsumexp(log_expit(log_odds), axis=0) - logsumexp(log_expit(-log_odds), axis=0)


def log_odds_to_proba(log_odds: np.ndarray) -> np.ndarray:
    """Turn log-odds into probabilities that sum to 1.

    One column (n_samples, 1) is the log-odds of the second of two classes; several are
    one-vs-rest, and their probabilities are divided by their sum.
    """
    if log_odds.shape[1] == 1:
        return np.hstack([expit(-log_odds), expit(log_odds)])
    return softmax(log_expit(log_odds), axis=1)


def fit_mixing(log_odds: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
    """Fit how the one-vs-rest log-odds of several classes become one set of probabilities.

    Each column is calibrated against all the rest, but the probabilities do not sum to 1, and
    dividing by the sum makes a certain prediction less certain than it is. Multinomial logistic
    regression on the log-odds ("matrix scaling", Guo et al., ICML 2017) corrects that.

    Parameters
    ----------
    log_odds : ndarray of float64, shape (n_samples, n_machines)
        Out of fold; rows with NaN are left out.
    codes : ndarray of int, shape (n_samples,)

    Returns
    -------
    ndarray of float64, shape (n_classes, n_classes + 1), or None
        Weights and, in the last column, offsets of the logits; None for two classes (one
        machine), or if a class has no row.
    """
    known = np.isfinite(log_odds).all(axis=1)
    if log_odds.shape[1] == 1 or len(np.unique(codes[known])) < log_odds.shape[1]:
        return None
    # on few rows a weaker penalty overfits
    model = LogisticRegression(C=1.0, max_iter=1000).fit(log_odds[known], codes[known])
    return np.column_stack([model.coef_, model.intercept_])


def mix(log_odds: np.ndarray, mixing: np.ndarray | None) -> np.ndarray:
    """Apply the result of :func:`fit_mixing`; None changes nothing.

    Returns the log-odds of each class against the rest, of probabilities that sum to 1.
    """
    if mixing is None:
        return log_odds
    logits = log_odds @ mixing[:, :-1].T + mixing[:, -1]
    others = [logsumexp(np.delete(logits, k, axis=1), axis=1) for k in range(logits.shape[1])]
    return logits - np.column_stack(others)
