"""Inner cross-validation: folds, and the out-of-fold scores of one kernel's hyperparameters."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score

from cnnsvm.data.splits import Fold, grouped_folds
from cnnsvm.svm.machines import (
    MEGABYTE,
    TrainingRows,
    build_machine,
    choose_landmarks,
    fit_scaler,
    has_both,
)

if TYPE_CHECKING:
    from cnnsvm.svm.smo import SharedGram


def inner_folds(
    y: np.ndarray, groups: Sequence[Any] | np.ndarray | None, n_splits: int, seed: int
) -> list[Fold]:
    """Make the folds (train, test) that tuning and calibration share.

    Without groups every row is its own, and ``n_splits`` is lowered, with a warning, to the size
    of the smallest class; if that is 1 there are no folds. With groups, ValueError is raised if
    there are fewer in some class than folds.
    """
    if groups is not None:
        return grouped_folds(y, groups, n_splits, seed)
    smallest = int(np.unique(y, return_counts=True)[1].min())
    if smallest < 2:
        warnings.warn(
            "The smallest class has 1 row, so nothing can be held out: hyperparameters are not "
            "tuned and probabilities are not calibrated. Add rows.",
            stacklevel=3,
        )
        return []
    if smallest < n_splits:
        warnings.warn(
            f"cv={n_splits} folds were asked for, but the smallest class has {smallest} rows: "
            f"{smallest} folds are used. Lower cv or add rows.",
            stacklevel=3,
        )
    return grouped_folds(y, None, min(n_splits, smallest), seed)


class InnerCV:
    """Grouped cross-validation of one kernel's hyperparameters.

    ``X`` are unscaled rows (n_samples, n_features), which each fold scales by its own training
    part if ``scale``; ``targets`` (n_samples, n_machines) are True for the positive class of each
    machine. Of ``cache_size`` (MB): if the pairwise bases of all folds fit they are kept, if that
    of a fold fits it is computed anew for each trial, else libsvm works on the rows.
    ``n_landmarks``, drawn with ``seed``, make machines approximate.
    """

    def __init__(
        self,
        kernel: str,
        X: np.ndarray,
        targets: np.ndarray,
        folds: list[Fold],
        scale: bool,
        cache_size: float,
        n_landmarks: int | None = None,
        seed: int = 0,
    ) -> None:
        self.kernel, self.X, self.targets, self.folds = kernel, X, targets, folds
        self.scale, self.cache_size = scale, cache_size
        self.n_landmarks, self.seed = n_landmarks, seed
        self.landmarks = [choose_landmarks(len(train), n_landmarks, seed) for train, _ in folds]
        sizes = [0]
        for (train, _), landmarks in zip(folds, self.landmarks, strict=True):
            whole = np.float32().itemsize * len(X) ** 2
            sizes.append(whole if landmarks is None else 8 * len(train) * len(landmarks))
        budget = cache_size * MEGABYTE
        self.precompute = 2 * max(sizes) <= budget
        keep = sum(sizes) + max(sizes) <= budget
        fits = int((budget - sum(sizes)) // max(1, *sizes)) if keep else 1
        self._prepared = [self._prepare(index) for index in range(len(folds))] if keep else None
        most = min(fits, len(folds), len(os.sched_getaffinity(0)))
        is_exact = self.precompute and not any(each is not None for each in self.landmarks)
        self.n_threads = max(1, most) if keep and is_exact else 1

    def _prepare(self, index: int) -> "SharedGram | tuple[TrainingRows, np.ndarray]":
        """Scale a fold by its training part, and compute what all trials need of it."""
        train, test = self.folds[index]
        mean, deviation = fit_scaler(self.X[train], self.scale)
        rows = (self.X - mean) / deviation
        landmarks = self.landmarks[index]
        if self.precompute and landmarks is None:
            from cnnsvm.svm.smo import SharedGram  # its compiler takes a second to import

            return SharedGram(self.kernel, rows, train, test)
        how = (self.cache_size, self.precompute, landmarks)
        return TrainingRows(self.kernel, rows[train], *how), rows[test]

    def scorable(self) -> list[int]:
        """Return the folds with an AUC: some machine has both classes to fit and to score."""
        return [
            index
            for index, (train, test) in enumerate(self.folds)
            if np.any(has_both(self.targets[train]) & has_both(self.targets[test]))
        ]

    def fold_scores(
        self, index: int, params: dict[str, Any], as_distances: bool = False
    ) -> np.ndarray:
        """Return the held-out margins, or distances, of a fold, shape (n_held_out, n_machines).

        A machine whose target has one value only cannot be fitted; its scores are NaN.
        """
        prepared = self._prepared[index] if self._prepared else self._prepare(index)
        if not isinstance(prepared, tuple):
            return prepared.scores(params, self.targets, as_distances)
        training, held_out = prepared
        with warnings.catch_warnings():
            # the final machines do warn if they have not converged
            warnings.simplefilter("ignore", ConvergenceWarning)
            kernel, duals = training.solve(params, self.targets[self.folds[index][0]])
        scores = np.full((len(held_out), len(duals)), np.nan)
        for k, dual in enumerate(duals):
            if dual is not None:
                margins = build_machine(kernel, training.rows, dual).decide(held_out)
                scores[:, k] = dual.distance(margins) if as_distances else margins
        return scores

    def fold_aucs(self, params: dict[str, Any]) -> list[float]:
        """Return the ROC AUC of every fold that has one."""
        folds = self.scorable()
        if self.n_threads == 1:
            return [self.fold_auc(index, params) for index in folds]
        with ThreadPoolExecutor(self.n_threads) as pool:
            return list(pool.map(lambda index: self.fold_auc(index, params), folds))

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

    ``targets`` (bool) and ``scores`` have the shape (n_samples, n_machines); a column with a NaN
    is left out.
    """
    columns = np.flatnonzero(has_both(targets) & ~np.isnan(scores).any(axis=0))
    aucs = [roc_auc_score(targets[:, k], scores[:, k]) for k in columns]
    return float(np.mean(aucs)) if aucs else float("nan")
