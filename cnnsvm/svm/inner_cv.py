"""Inner cross-validation: the out-of-fold scores of one kernel's hyperparameters."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score

from cnnsvm.data.splits import Fold, grouped_folds
from cnnsvm.svm.kernels import fit_scaler, pairwise_base
from cnnsvm.svm.machine import build_machine
from cnnsvm.svm.nystroem import choose_landmarks
from cnnsvm.svm.training import MEGABYTE, TrainingRows, has_both, training_rows


def inner_folds(
    y: np.ndarray, groups: Sequence[Any] | np.ndarray | None, n_splits: int, seed: int
) -> list[Fold]:
    """Make the folds that tuning and calibration share.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Class labels.
    groups : array-like of shape (n_samples,) or None
        No group is divided between two folds. Without groups every row is its own, and
        ``n_splits`` falls, with a warning, to the size of the smallest class.
    n_splits : int
        Number of folds.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    list of (train, test)
        Empty if a class without groups has a single row.

    Raises
    ------
    ValueError
        If there are groups, but fewer in some class than folds.
    """
    if groups is not None:
        return grouped_folds(y, groups, n_splits, seed)
    smallest = int(np.unique(y, return_counts=True)[1].min())
    if smallest < 2:
        warnings.warn(
            "The smallest class has 1 row, so nothing can be held out: the default "
            "hyperparameters are used, untuned, and probabilities are not calibrated. Add rows.",
            stacklevel=4,
        )
        return []
    if smallest < n_splits:
        warnings.warn(
            f"cv={n_splits} folds were asked for, but the smallest class has {smallest} rows: "
            f"{smallest} folds are used. Lower cv or add rows.",
            stacklevel=4,
        )
    return grouped_folds(y, None, min(n_splits, smallest), seed)


@dataclass(frozen=True)
class Split:
    """One inner fold, scaled by its training part, ready for any hyperparameters of a kernel."""

    training: TrainingRows
    held_out: np.ndarray
    held_out_base: np.ndarray | None

    def scores(
        self, params: dict[str, Any], targets: np.ndarray, as_distances: bool = False
    ) -> np.ndarray:
        """Return the held-out margins, or distances, of shape (n_held_out, n_machines).

        A machine whose target has one value only cannot be fitted; it has NaN.
        """
        kernel, duals = self.training.solve(params, targets)
        base = self.held_out_base
        gram = None if base is None else kernel.transform(base)
        scores = np.full((len(self.held_out), len(duals)), np.nan)
        for k, dual in enumerate(duals):
            if dual is None:
                continue
            if gram is None:
                machine = build_machine(kernel, self.training.rows, dual)
                margins = machine.decide(self.held_out)
            else:
                margins = gram[:, dual.support] @ dual.coef + dual.intercept
            scores[:, k] = dual.distance(margins) if as_distances else margins
        return scores


class InnerCV:
    """Grouped cross-validation of one kernel's hyperparameters.

    Parameters
    ----------
    name : {"linear", "rbf", "poly"}
        Name of the kernel.
    X : ndarray of float64, shape (n_samples, n_features)
        Unscaled rows; each fold is scaled by its own training part.
    targets : ndarray of bool, shape (n_samples, n_machines)
        True for the positive class of each machine.
    folds : list of (train, test)
        Index arrays.
    scale : bool
        Whether features are standardised.
    cache_size : float
        Memory in MB for pairwise bases: if those of all folds fit they are kept, if that of a
        fold fits it is made anew for each trial, else libsvm works on the rows.
    nystroem : int or None
        Landmarks of approximate machines; None fits exact ones.
    seed : int
        Which rows are landmarks.
    """

    def __init__(
        self,
        name: str,
        X: np.ndarray,
        targets: np.ndarray,
        folds: list[Fold],
        scale: bool,
        cache_size: float,
        nystroem: int | None = None,
        seed: int = 0,
    ) -> None:
        self.name, self.X, self.targets, self.folds = name, X, targets, folds
        self.scale, self.cache_size = scale, cache_size
        self.landmarks = [choose_landmarks(len(train), nystroem, seed) for train, _ in folds]
        others = [len(X) if marks is None else len(marks) for marks in self.landmarks]
        sizes = [
            X.itemsize * len(train) * n for (train, _), n in zip(folds, others, strict=True)
        ] or [0]
        budget = cache_size * MEGABYTE
        self.with_base = 2 * max(sizes) <= budget
        keep = sum(sizes) + max(sizes) <= budget
        self._kept = [self._split(index) for index in range(len(folds))] if keep else None

    def _split(self, index: int) -> Split:
        train, test = self.folds[index]
        landmarks = self.landmarks[index]
        mean, deviation = fit_scaler(self.X[train], self.scale)
        rows, held_out = ((self.X[part] - mean) / deviation for part in (train, test))
        training = training_rows(self.name, rows, self.cache_size, self.with_base, landmarks)
        exact = self.with_base and landmarks is None  # landmarks are few: their kernel is quick
        base = pairwise_base(self.name, held_out, rows) if exact else None
        return Split(training, held_out, base)

    def scorable(self) -> list[int]:
        """Return the folds with an AUC: some machine has both classes to fit and to score."""
        targets = self.targets
        return [
            index
            for index, (train, test) in enumerate(self.folds)
            if np.any(has_both(targets[train]) & has_both(targets[test]))
        ]

    def fold_scores(
        self, index: int, params: dict[str, Any], as_distances: bool = False
    ) -> np.ndarray:
        """Return what :meth:`Split.scores` does for the fold of that index."""
        fold = self.folds[index]
        split = self._kept[index] if self._kept else self._split(index)
        with warnings.catch_warnings():
            # Only the machines that are kept need to have converged, and those do warn.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return split.scores(params, self.targets[fold[0]], as_distances)

    def fold_auc(self, index: int, params: dict[str, Any]) -> float:
        """Return the ROC AUC of a fold, the mean over its machines; NaN where undefined."""
        margins = self.fold_scores(index, params)
        return macro_auc(self.targets[self.folds[index][1]], margins)

    def out_of_fold(self, params: dict[str, Any], as_distances: bool = False) -> np.ndarray:
        """Return every row's held-out margin or distance, shape (n_samples, n_machines).

        Distances (:meth:`Dual.distance`) of different folds are comparable; margins may not be.
        """
        scores = np.full(self.targets.shape, np.nan)
        for index, (_, test) in enumerate(self.folds):
            scores[test] = self.fold_scores(index, params, as_distances)
        return scores


def macro_auc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean ROC AUC of the columns for which it is defined, else NaN.

    Parameters
    ----------
    targets : ndarray of bool, shape (n_samples, n_machines)
        True for the positive class of each column.
    scores : ndarray of float64, shape (n_samples, n_machines)
        Margins; a column with NaN is left out.
    """
    columns = np.flatnonzero(has_both(targets) & ~np.isnan(scores).any(axis=0))
    aucs = [roc_auc_score(targets[:, k], scores[:, k]) for k in columns]
    return float(np.mean(aucs)) if aucs else float("nan")
