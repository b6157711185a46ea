"""Calibrated log-odds from out-of-fold scores, for any classifier and for `TunedSVC`."""

import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, log_expit, logit, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from cnnsvm.data.splits import grouped_folds
from cnnsvm.svm.inner_cv import inner_folds

logger = logging.getLogger(__name__)

#: Probabilities are shrunk into [this, 1 - this]: the logit of a certain one must not outweigh all.
MIN_PROBABILITY = 1e-3
# Odds ratio of two scores one standard deviation apart when the data support no ranking: small
# enough that every probability is the prevalence, large enough to keep the scores' order.
MIN_STANDARD_SLOPE = 1e-3
_USUAL_SPLITS = 5  # what scikit-learn takes where ``cv`` is None


def fit_platt(scores: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Fit the log-odds of the positive class as ``slope * score + offset``.

    Maximum likelihood with Platt's regularised targets. The slope is kept positive, so calibration
    never changes the order of the scores. Where the likelihood asks for a slope near or below 0
    (scores that do not rank, as of shuffled labels) the slope is 0.001 per standard deviation and
    every probability is the prevalence. The scores, float64 (n_samples,), are finite and of rows
    that the scoring machine was not fitted on; ``target`` is True for the positive class.

    J. Platt, "Probabilistic outputs for support vector machines", 1999, section 2; H.-T. Lin, C.-J.
    Lin and R. C. Weng, "A note on Platt's probabilistic outputs for support vector machines",
    Machine Learning 68, 2007, algorithm 1.
    """
    n_pos = int(np.count_nonzero(target))
    goal = np.where(target, (n_pos + 1) / (n_pos + 2), 1 / (len(target) - n_pos + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    standard = (scores - centre) / spread
    from sklearn.linear_model import LogisticRegression  # half a second

    # a row of both classes, weighted by its target, is a row with a probability as its target
    model = LogisticRegression(C=1e12, solver="newton-cholesky", tol=1e-10)
    weights = np.concatenate([goal, 1 - goal])
    model.fit(np.tile(standard, 2)[:, None], np.repeat([1, 0], len(goal)), weights)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if not slope > MIN_STANDARD_SLOPE:
        logger.warning(
            "The out-of-fold scores do not rank the classes (Platt slope %.3g per standard "
            "deviation); every calibrated probability is about the prevalence.",
            slope,
        )
        slope, offset = MIN_STANDARD_SLOPE, float(logit(goal.mean()))
    return slope / spread, offset - slope * centre / spread


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
    regression on the log-odds ("matrix scaling", Guo et al., ICML 2017) corrects that. The
    log-odds, (n_samples, n_machines), are out of fold; rows with NaN are left out.

    Returns float64 (n_classes, n_classes + 1), weights and, in the last column, offsets of the
    logits; None for two classes (one machine), or if a class has no row.
    """
    known = np.isfinite(log_odds).all(axis=1)
    if log_odds.shape[1] == 1 or len(np.unique(codes[known])) < log_odds.shape[1]:
        return None
    from sklearn.linear_model import LogisticRegression

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


class LogOddsClassifier(ClassifierMixin, BaseEstimator):
    """Predictions from the log-odds that a subclass computes in ``_decide``."""

    classes_: np.ndarray

    def _decide(self, X: ArrayLike) -> np.ndarray:
        """Return log-odds of shape (n_samples, n_machines)."""
        raise NotImplementedError

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return log-odds (natural logarithm), or margins if there is no calibration.

        Float64 of shape (n_samples,), of the second class, if there are two classes; else
        (n_samples, n_classes), of each class against the rest.
        """
        return squeeze_binary(self._decide(X))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the calibrated probabilities of the classes, shape (n_samples, n_classes)."""
        return log_odds_to_proba(self._decide(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the more probable class of each row, shape (n_samples,)."""
        decisions = self._decide(X)
        if decisions.shape[1] == 1:
            return self.classes_[(decisions[:, 0] > 0).astype(int)]
        return self.classes_[decisions.argmax(axis=1)]


class CalibratedClassifier(LogOddsClassifier):
    """Calibrate any classifier on out-of-fold scores of folds that never separate a group.

    Scores are the classifier's ``decision_function`` or, without one, the logit of its
    ``predict_proba``. They are calibrated as those of `cnnsvm.svm.TunedSVC`: Platt scaling of
    each one-vs-rest column, then, for more than two classes, :func:`fit_mixing`.

    Parameters
    ----------
    classifier : scikit-learn classifier
        Its scores of more than two classes must be one column a class. It is given the groups if
        its ``fit`` takes ``groups``; if its ``cv`` is a number or None (5), as of GridSearchCV, it
        is given so many folds that separate no group.
    cv : int, default=3
        Number of folds.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    classifier_ : classifier
        Fitted on all rows.
    n_features_in_ : int
    slope_, offset_ : ndarray of float64, shape (n_machines,)
        Platt scaling of each column.
    mixing_ : ndarray of float64, shape (n_classes, n_classes + 1), or None
        See :func:`fit_mixing`.
    cv_decision_ : ndarray of float64, shape (n_samples,) or (n_samples, n_classes)
        Out-of-fold log-odds of the training rows; NaN where a fold lacked a class.
    """

    _parameter_constraints: ClassVar = {
        "classifier": [
            HasMethods(["fit", "decision_function"]),
            HasMethods(["fit", "predict_proba"]),
        ],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        classifier: Any,
        cv: int = 3,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.classifier = classifier
        self.cv = cv
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: Sequence[Any] | np.ndarray | None = None,
        calibration_rows: ArrayLike | None = None,
    ) -> Self:
        """Fit the classifier on all rows and calibrate it out of fold.

        Parameters
        ----------
        X, y, groups, calibration_rows
            As `cnnsvm.svm.TunedSVC.fit` takes them.

        Raises
        ------
        ValueError
            If a parameter, X or y is invalid, or a class has fewer groups than ``cv``.
        """
        self._validate_params()
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        classes, codes = encode_classes(labels)
        targets = one_vs_rest(codes, len(classes))
        chosen = choose_calibration_rows(calibration_rows, codes)
        scores = np.full(targets.shape, np.nan)
        for train, test in inner_folds(labels, groups, self.cv, draw_seed(self.random_state)):
            if len(np.unique(codes[train])) == len(classes):
                scores[test] = _scores(self._fit_clone(rows, labels, groups, train), rows[test])
        slope, offset = fit_platt_columns(scores[chosen], targets[chosen])
        log_odds = slope * scores + offset
        mixing = fit_mixing(log_odds[chosen], codes[chosen])
        self.classifier_ = self._fit_clone(rows, labels, groups, np.arange(len(rows)))
        self.cv_decision_ = squeeze_binary(mix(log_odds, mixing))
        self.classes_, self.mixing_ = classes, mixing
        # a column that could not be calibrated (NaN) keeps its score
        self.slope_, self.offset_ = np.nan_to_num(slope, nan=1), np.nan_to_num(offset)
        return self

    def _fit_clone(self, X: np.ndarray, y: np.ndarray, groups: Any, rows: np.ndarray) -> Any:
        classifier, own = clone(self.classifier), {}
        if groups is not None:
            part = np.asarray(groups)[rows]
            n_splits = getattr(classifier, "cv", "no parameter")
            if has_fit_parameter(classifier, "groups"):
                own["groups"] = part
            elif n_splits is None or isinstance(n_splits, Integral):
                folds = grouped_folds(y[rows], part, int(n_splits or _USUAL_SPLITS))
                classifier.set_params(cv=folds)  # those of its own would separate groups
        return classifier.fit(X[rows], y[rows], **own)

    def _decide(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self, "classes_")
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        return mix(self.slope_ * _scores(self.classifier_, rows) + self.offset_, self.mixing_)


def _scores(classifier: Any, X: np.ndarray) -> np.ndarray:
    """Return the scores of a fitted classifier, shape (n_samples, n_machines)."""
    if hasattr(classifier, "decision_function"):
        scores = classifier.decision_function(X)
    else:
        proba = MIN_PROBABILITY + (1 - 2 * MIN_PROBABILITY) * classifier.predict_proba(X)
        scores = logit(proba[:, 1] if proba.shape[1] == 2 else proba)
    return scores.reshape(len(X), -1)


def encode_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes of ``y`` and their number in each row; at least two classes."""
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y contains only one class, {classes.tolist()[0]!r}, but a classifier needs at "
            "least 2 classes. Add rows of another class."
        )
    return classes, codes


def choose_calibration_rows(calibration_rows: ArrayLike | None, codes: np.ndarray) -> np.ndarray:
    """Return the rows to calibrate on: the given ones if every class is among them, else all.

    A ValueError is raised if they are given and not one boolean a row.
    """
    if calibration_rows is None:
        return np.ones(len(codes), dtype=bool)
    rows = np.asarray(calibration_rows)
    if rows.dtype != np.bool_ or rows.shape != codes.shape:
        raise ValueError(
            f"calibration_rows must be bool of shape {codes.shape}, one a row, got {rows.dtype} "
            f"{rows.shape}. Pass None to calibrate on all rows."
        )
    if len(np.unique(codes[rows])) < len(np.unique(codes)):
        return np.ones(len(codes), dtype=bool)
    return rows


def squeeze_binary(decisions: np.ndarray) -> np.ndarray:
    """Turn (n_samples, 1) into (n_samples,); more columns stay."""
    return decisions[:, 0] if decisions.shape[1] == 1 else decisions


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    """Draw the seed of a fit."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
