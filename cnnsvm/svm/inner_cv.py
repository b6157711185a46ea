"""Inner cross-validation: folds, and the out-of-fold scores of one kernel's hyperparameters."""

import logging
import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches

from cnnsvm.data.splits import Fold, grouped_folds
from cnnsvm.svm.machines import (
    MEGABYTE,
    LandmarkRows,
    build_machine,
    choose_landmarks,
    fit_scaler,
    gamma_unit,
    has_both,
    make_kernel,
)

if TYPE_CHECKING:
    from cnnsvm.svm.gram import SharedGram

logger = logging.getLogger(__name__)

#: Rows that a search uses whatever the memory; their kernel matrices take 32 MB.
MIN_SEARCH_ROWS = 2000
#: Most rows of which each fold has a matrix of its own, scaled by its training part alone.
OWN_ROWS = 2000
BLOCK_ROWS = 4096


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


def sample_folds(
    folds: list[Fold], targets: np.ndarray, n_rows: int, seed: int
) -> tuple[np.ndarray, list[Fold]]:
    """Draw rows, the same share of each class and fold, and number them anew in the folds.

    ``targets`` are bool (n_samples, n_machines). Returns the sorted numbers of about ``n_rows``
    rows, and the folds among them. Of a class that is rare in a fold, 20 rows are drawn if the
    others leave room.
    """
    held_in = np.full(len(targets), -1)
    for number, (_, test) in enumerate(folds):
        held_in[test] = number
    codes = targets @ np.arange(1, targets.shape[1] + 1)
    order = np.random.default_rng(seed).permutation(len(targets))
    _, strata = np.unique(np.column_stack([codes, held_in])[order], axis=0, return_inverse=True)
    sizes = np.bincount(strata.ravel())
    few = min(20, n_rows // (4 * len(sizes)))
    quota = np.maximum(np.round(sizes * n_rows / len(targets)), few)
    by_stratum = np.argsort(strata.ravel(), kind="stable")
    rank = np.empty(len(targets), int)
    rank[by_stratum] = np.arange(len(targets)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.sort(order[rank < quota[strata.ravel()]])
    number_of = np.full(len(targets), -1)
    number_of[chosen] = np.arange(len(chosen))
    renumbered = [(number_of[train], number_of[test]) for train, test in folds]
    return chosen, [(train[train >= 0], test[test >= 0]) for train, test in renumbered]


class InnerCV:
    """Grouped cross-validation of one kernel's hyperparameters.

    ``X`` are unscaled rows (n_samples, n_features), which each fold scales by its own training
    part if ``scale``; ``targets`` (n_samples, n_machines) are True for the positive class of each
    machine. ``n_landmarks``, drawn with ``seed``, make machines approximate.

    How exact trials are scored follows from the rows and ``cache_size`` (MB). Up to `OWN_ROWS`, if
    it holds the kernel matrices of all folds, each fold has its own. Else all folds and trials
    share two, one of what kernels are computed from and one of kernels, of rows that are scaled by
    all of ``X``; the machines of a trial start from that of its first fold. If it does not hold
    these, the trials are scored on a sample of as many rows as that takes. The scores of
    `fold_scores` and `out_of_fold` are of all rows, scaled by their folds, in any case.
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
        self.is_exact = all(each is None for each in self.landmarks)
        budget, whole = cache_size * MEGABYTE, np.float32().itemsize * len(X) ** 2
        fits_all = len(X) <= OWN_ROWS and (len(folds) + 1) * whole <= budget
        self.keeps_folds = self.is_exact and fits_all
        self.n_searched = min(len(X), max(MIN_SEARCH_ROWS, math.isqrt(int(budget / 8))))
        self.is_sampled = self.is_exact and self.n_searched < len(X) and not self.keeps_folds
        n_cores = len(os.sched_getaffinity(0))
        fits = int(budget // whole) - len(folds) if self.keeps_folds else n_cores
        self.n_threads = max(1, min(fits, len(folds), n_cores))

    def _scaled(self, fitted: np.ndarray) -> np.ndarray:
        """Return all rows in single precision, scaled by some."""
        mean, deviation = fit_scaler(self.X[fitted], self.scale)
        scaled = np.empty(self.X.shape, np.float32)
        for block in gen_batches(len(scaled), BLOCK_ROWS):
            scaled[block] = (self.X[block] - mean) / deviation
        return scaled

    @cached_property
    def _fold_grams(self) -> "list[SharedGram]":
        from cnnsvm.svm.gram import SharedGram

        return [SharedGram(self.kernel, self._scaled(train), train) for train, _ in self.folds]

    @cached_property
    def _shared_gram(self) -> "SharedGram":
        from cnnsvm.svm.gram import SharedGram

        logger.info(
            "The trials share kernel matrices of %.1f GB (%d rows, scaled alike in all folds).",
            8e-9 * len(self.X) ** 2,
            len(self.X),
        )
        everything = np.arange(len(self.X))
        return SharedGram(self.kernel, self._scaled(everything), everything, self.n_threads)

    @cached_property
    def _shared_matrix(self) -> np.ndarray:
        return np.empty_like(self._shared_gram.base)

    @cached_property
    def _sample(self) -> "InnerCV":
        """The same folds with some of the rows each."""
        logger.warning(
            "The search uses %d of %d rows, whose kernel matrices fit into cache_size=%g; the "
            "machine is fitted to all. cache_size=%d would search with all.",
            self.n_searched,
            len(self.X),
            self.cache_size,
            math.ceil(8 * len(self.X) ** 2 / MEGABYTE),
        )
        chosen, folds = sample_folds(self.folds, self.targets, self.n_searched, self.seed)
        parts = self.X[chosen], self.targets[chosen], folds
        # rare classes may have made it a little larger
        enough = max(self.cache_size, math.ceil(8 * len(chosen) ** 2 / MEGABYTE))
        return InnerCV(self.kernel, *parts, self.scale, enough)

    @cached_property
    def _landmark_folds(self) -> list[tuple[LandmarkRows, np.ndarray]] | None:
        """What all trials need of each fold, if it fits."""
        pairs = zip(self.folds, self.landmarks, strict=True)
        sizes = [8 * len(train) * len(each) for (train, _), each in pairs if each is not None]
        if len(sizes) < len(self.folds) or sum(sizes) + max(sizes) > self.cache_size * MEGABYTE:
            return None
        each = enumerate(self.landmarks)
        return [self._landmark_fold(k, own, keep=True) for k, own in each if own is not None]

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
        landmarks = self.landmarks[index]
        if landmarks is not None:
            return self._landmark_scores(index, landmarks, params, as_distances)
        from cnnsvm.svm.gram import KernelRows, score_fold  # its compiler takes a second to import

        gram: np.ndarray | KernelRows
        if self.keeps_folds:
            gram = self._fold_grams[index].matrix(params)
        else:
            train = self.folds[index][0]
            rows = self._scaled(train)
            kernel = make_kernel(self.kernel, params, gamma_unit(rows[train]))
            gram = KernelRows(kernel, rows, train, self.cache_size)
        return score_fold(gram, self.folds[index], self.targets, params, as_distances)

    def _landmark_scores(
        self, index: int, landmarks: np.ndarray, params: dict[str, Any], as_distances: bool
    ) -> np.ndarray:
        kept = self._landmark_folds
        training, held_out = kept[index] if kept else self._landmark_fold(index, landmarks)
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

    def _landmark_fold(
        self, index: int, landmarks: np.ndarray, keep: bool = False
    ) -> tuple[LandmarkRows, np.ndarray]:
        """Return the scaled training rows of a fold, and those held out."""
        train, test = self.folds[index]
        mean, deviation = fit_scaler(self.X[train], self.scale)
        rows, held_out = ((self.X[part] - mean) / deviation for part in (train, test))
        return LandmarkRows(self.kernel, rows, landmarks, keep), held_out

    def fold_aucs(self, params: dict[str, Any]) -> list[float]:
        """Return the ROC AUC of every fold that has one."""
        folds = self.scorable()
        if not self.is_exact:
            return [self.fold_auc(index, params) for index in folds]
        if self.keeps_folds:
            self._fold_grams  # noqa: B018 - computed before threads ask for it
            return self._in_threads(lambda index: self.fold_auc(index, params), folds)
        if self.is_sampled:
            return self._sample.fold_aucs(params)
        from cnnsvm.svm.gram import fit_fold, score_fold

        gram = self._shared_gram.matrix(params, out=self._shared_matrix)
        starts = fit_fold(gram, self.folds[folds[0]], self.targets, params)

        def score(index: int) -> float:
            margins = score_fold(gram, self.folds[index], self.targets, params, starts=starts)
            return macro_auc(self.targets[self.folds[index][1]], margins)

        return self._in_threads(score, folds)

    def _in_threads(self, score: Callable[[int], float], folds: list[int]) -> list[float]:
        if self.n_threads == 1:
            return [score(index) for index in folds]
        with ThreadPoolExecutor(self.n_threads) as pool:
            return list(pool.map(score, folds))

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
    from sklearn.metrics import roc_auc_score  # half a second

    columns = np.flatnonzero(has_both(targets) & ~np.isnan(scores).any(axis=0))
    aucs = [roc_auc_score(targets[:, k], scores[:, k]) for k in columns]
    return float(np.mean(aucs)) if aucs else float("nan")
