"""From data to a tuned kernel, and from a tuned kernel to a calibrated model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cnnsvm.data.splits import Fold
from cnnsvm.svm.inner_cv import InnerCV
from cnnsvm.svm.model import KernelModel, platt_columns
from cnnsvm.svm.search import DEFAULTS, SPACES, KernelSearch, search_kernel
from cnnsvm.svm.study_storage import StudyStore, fingerprint
from cnnsvm.svm.training import fit_machines


@dataclass(frozen=True)
class Task:
    """The training data as every kernel sees them.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_features)
        Unscaled embeddings.
    y : ndarray of shape (n_samples,)
        Class labels.
    groups : array-like of shape (n_samples,) or None
        Groups.
    targets : ndarray of bool, shape (n_samples, n_machines)
        One-vs-rest targets.
    folds : list of (train, test)
        Inner folds; may be empty.
    scale : bool
        Whether features are standardised.
    cache_size : float
        Memory for kernel matrices, in MB.
    calibration : ndarray of bool, shape (n_samples,)
        Rows whose out-of-fold scores Platt scaling is fitted on.
    nystroem : int or None
        Landmarks of approximate machines; None fits exact ones.
    seed : int
        Which rows are landmarks.
    """

    X: np.ndarray
    y: np.ndarray
    groups: Sequence[Any] | np.ndarray | None
    targets: np.ndarray
    folds: list[Fold]
    scale: bool
    cache_size: float
    calibration: np.ndarray
    nystroem: int | None = None
    seed: int = 0

    def inner_cv(self, kernel: str) -> InnerCV:
        """Return the cross-validation of a kernel."""
        how = (self.scale, self.cache_size, self.nystroem, self.seed)
        return InnerCV(kernel, self.X, self.targets, self.folds, *how)


def tune(
    task: Task, kernel: str, n_trials: int, store: StudyStore, seed: int, verbose: bool
) -> KernelSearch:
    """Search a kernel's hyperparameters; the defaults, unscored, if no fold can score them."""
    inner = task.inner_cv(kernel)
    scorers = [partial(inner.fold_auc, fold) for fold in inner.scorable()]
    if not scorers:
        return KernelSearch(kernel, DEFAULTS[kernel], float("nan"))
    settings = {"space": SPACES[kernel], "seed": seed, "scale": task.scale}
    if task.nystroem is not None:  # studies from before it existed are of exact machines
        settings["nystroem"] = task.nystroem
    print_ = fingerprint(task.X, task.y, task.groups, task.folds, settings)
    study = store.open(f"TunedSVC {kernel}", print_, seed)
    return search_kernel(kernel, scorers, n_trials, study, seed, verbose)


def fit_model(
    task: Task, search: KernelSearch, Z: np.ndarray, calibrate: bool
) -> tuple[KernelModel, np.ndarray]:
    """Fit the best machines of a kernel on all rows and calibrate them out of fold.

    Platt scaling is fitted on signed distances (:meth:`Dual.distance`) rather than on margins.
    Where most rows are support vectors at their bound (small C, weak signal), the intercept of a
    fold is about +-1, by the class it has more rows of, while margins differ by far less and
    grow with the number of rows: such folds would not rank when pooled, although each alone
    does, and the scale would not fit the machine of all rows.

    Parameters
    ----------
    task : Task
        Training data.
    search : KernelSearch
        Holds the winning hyperparameters.
    Z : ndarray of float64, shape (n_samples, n_features)
        All rows, scaled.
    calibrate : bool
        Whether to fit Platt scaling.

    Returns
    -------
    model : KernelModel
        Fitted on all rows.
    decisions : ndarray of float64, shape (n_samples, n_machines)
        Out-of-fold decisions; NaN where there is none.
    """
    how = (search.params, task.cache_size, task.nystroem, task.seed)
    machines, duals = fit_machines(search.kernel, Z, task.targets, *how)
    held_out = task.inner_cv(search.kernel).out_of_fold(search.params, as_distances=calibrate)
    if not calibrate:
        return KernelModel(machines, np.ones(len(duals)), np.zeros(len(duals))), held_out
    rows = task.calibration
    slope, offset = platt_columns(held_out[rows], task.targets[rows])
    decisions = slope * held_out + offset
    slope = slope / [dual.norm for dual in duals]
    offset = offset - slope * [dual.centre for dual in duals]
    # A machine that nothing could calibrate (NaN) keeps its margin.
    return KernelModel(machines, np.nan_to_num(slope, nan=1), np.nan_to_num(offset)), decisions


def winner(searches: list[KernelSearch]) -> KernelSearch:
    """Return the search of highest score, the first of equals or of unscored ones."""
    return max(searches, key=lambda search: np.nan_to_num(search.score, nan=-np.inf))
