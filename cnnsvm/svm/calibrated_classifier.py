"""Any classifier calibrated out of fold, and what it shares with `TunedSVC`."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from cnnsvm.svm.calibration import (
    fit_mixing,
    fit_platt_columns,
    log_odds_to_proba,
    mix,
    one_vs_rest,
)
from cnnsvm.svm.inner_cv import inner_folds

#: Probabilities are shrunk into [this, 1 - this]: the logit of a certain one must not outweigh all.
MIN_PROBABILITY = 1e-3


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
        its ``fit`` takes ``groups``.
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
        takes_groups = groups is not None and has_fit_parameter(self.classifier, "groups")
        own = {"groups": np.asarray(groups)[rows]} if takes_groups else {}
        return clone(self.classifier).fit(X[rows], y[rows], **own)

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

    Parameters
    ----------
    calibration_rows : array-like of bool, shape (n_samples,), or None
        ValueError if it is not one boolean a row.
    codes : ndarray of int, shape (n_samples,)
        Class of each row.
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
