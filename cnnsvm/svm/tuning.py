"""From data to a tuned kernel, and from a tuned kernel to a calibrated model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cnnsvm.folds import Fold
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
    """

    X: np.ndarray
    y: np.ndarray
    groups: Sequence[Any] | np.ndarray | None
    targets: np.ndarray
    folds: list[Fold]
    scale: bool
    cache_size: float

    def inner_cv(self, kernel: str) -> InnerCV:
        """Return the cross-validation of a kernel."""
        return InnerCV(kernel, self.X, self.targets, self.folds, self.scale, self.cache_size)


def tune(
    task: Task, kernel: str, n_trials: int, store: StudyStore, seed: int, verbose: bool
) -> KernelSearch:
    """Search a kernel's hyperparameters; the defaults, unscored, if no fold can score them."""
    inner = task.inner_cv(kernel)
    scorers = [partial(inner.fold_auc, fold) for fold in inner.scorable()]
    if not scorers:
        return KernelSearch(kernel, DEFAULTS[kernel], float("nan"))
    settings = {"space": SPACES[kernel], "seed": seed, "scale": task.scale}
    print_ = fingerprint(task.X, task.y, task.groups, task.folds, settings)
    study = store.open(f"TunedSVC {kernel}", print_, seed)
    return search_kernel(kernel, scorers, n_trials, study, seed, verbose)


def fit_model(
    task: Task, search: KernelSearch, Z: np.ndarray, calibrate: bool
) -> tuple[KernelModel, np.ndarray]:
    """Fit the best machines of a kernel on all rows and calibrate them out of fold.

    Calibration centres each machine's margins on their mean over the rows it was fitted on.
    Where nearly every row is a support vector at its bound (small C, weak signal), libsvm's
    intercept is about +-1 by whichever class the fold has one row more of, while the margins
    differ by far less: pooled as they are, such folds would not rank although each alone does.

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
    margins, fold_centres = task.inner_cv(search.kernel).out_of_fold(search.params)
    machines, centres = fit_machines(search.kernel, Z, task.targets, search.params, task.cache_size)
    if not calibrate:
        return KernelModel(machines, np.ones_like(centres), np.zeros_like(centres)), margins
    slope, offset, fitted = platt_columns(margins - fold_centres, task.targets)
    model = KernelModel(machines, slope, offset - np.where(fitted, slope * centres, 0))
    return model, slope * (margins - np.where(fitted, fold_centres, 0)) + offset


def winner(searches: list[KernelSearch]) -> KernelSearch:
    """Return the search of highest score, the first of equals or of unscored ones."""
    return max(searches, key=lambda search: np.nan_to_num(search.score, nan=-np.inf))
