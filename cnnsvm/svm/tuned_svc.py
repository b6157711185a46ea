"""TunedSVC: support vector machines over embeddings, tuned by Optuna and calibrated."""

from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from cnnsvm.svm import state
from cnnsvm.svm.calibration import fit_mixing, log_odds_to_proba, mix, soft_vote
from cnnsvm.svm.checks import (
    calibration_rows,
    check_classes,
    check_finite,
    check_params,
    kernel_names,
)
from cnnsvm.svm.inner_cv import inner_folds
from cnnsvm.svm.kernels import fit_scaler
from cnnsvm.svm.model import one_vs_rest
from cnnsvm.svm.search import KernelSearch
from cnnsvm.svm.study_storage import StudyStore
from cnnsvm.svm.tuning import Task, fit_model, tune, winner

BLOCK_ROWS = 4096


def _calibrates(estimator: "TunedSVC") -> bool:
    if not estimator.calibrate:
        raise AttributeError("predict_proba needs calibrate=True; decision_function gives margins.")
    return True


class TunedSVC(ClassifierMixin, BaseEstimator):
    """Support vector classifier whose hyperparameters Optuna tunes under grouped folds.

    For each kernel, trials are scored by the ROC AUC (one-vs-rest and macro-averaged if there
    are more than two classes) of the margins, as the mean over stratified inner folds that
    never separate a group. Scaling is fitted inside each training fold. The winner is fitted on
    all rows, and Platt scaling of its out-of-fold scores turns margins into log-odds, so
    ``decision_function(X) > 0``, ``predict_proba(X)[:, 1] > 0.5`` and ``predict(X) ==
    classes_[1]`` say the same. More than two classes are told apart one-vs-rest.

    Parameters
    ----------
    kernel : {"linear", "rbf", "poly"} or tuple of them, default="rbf"
        Kernels to tune, ``n_trials`` each.
    voting : None or "soft", default=None
        Of several kernels, None keeps the one of highest score (the first of equals); "soft"
        averages the calibrated probabilities of the best of each kernel, machine by machine.
    n_trials : int, default=30
        Trials a kernel. The first evaluates scikit-learn's usual values (C=1, gamma="scale",
        degree 3), so 1 means no tuning.
    cv : int, default=3
        Number of inner folds.
    calibrate : bool, default=True
        Whether decisions are calibrated log-odds. Without it they are margins and
        ``predict_proba`` does not exist.
    scale : bool, default=True
        Whether features are standardised.
    cache_size : float, default=1000
        Memory in MB for kernel matrices. 1,000 holds those of about 7,000 rows; with more rows
        they are made anew for each trial and, above about 9,500, libsvm computes them from the
        features, which is slower.
    nystroem : int or None, default=None
        Number of landmarks that stand for all rows (`cnnsvm.svm.nystroem`), with squared hinge
        loss: the time of a fit then grows with the rows and no longer with their square or worse.
        None, or no more rows than that, is exact.
    storage : str, path-like or None, default=None
        Journal file that keeps the studies, one a kernel. A later fit on the same data with the
        same settings resumes them and runs only the missing trials, also if ``n_trials`` has
        grown; any other fit is refused, so each outer fold needs a file of its own.
    verbose : bool, default=False
        Whether to show a progress bar for each kernel, if standard error is a terminal.
    random_state : int, RandomState instance or None, default=None
        Seed of folds and trials. With None and a storage, the seed of the first run is read
        from there.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Number of features.
    best_params_ : dict
        Hyperparameters of the kernel with the highest score: ``kernel``, ``C``,
        ``class_weight`` and, where it has them, ``gamma_factor``, ``degree`` and ``coef0``.
        ``gamma_factor`` multiplies ``gamma="scale"`` of the standardised rows; the linear and
        polynomial kernels multiply their inner product by gamma too, so that C has one meaning.
    best_score_ : float
        Mean AUC over the inner folds of ``best_params_``; it was maximised, so it flatters. NaN
        if the data were too few to tune.
    studies_ : list of dict
        One a kernel, with ``kernel``, ``params``, ``score`` and ``trials``, a list of dicts
        with ``number``, ``score``, ``fold_scores`` and ``params``.
    oof_decision_ : ndarray of float64, shape (n_samples,) or (n_samples, n_classes)
        What ``decision_function`` would say of each training row had its group been held out
        (but for Platt scaling, which saw it): the scores to choose a threshold on. NaN where no
        inner fold could fit or calibrate a machine, for lack of a class. Uncalibrated margins of
        different folds may be shifted against each other, so choose thresholds with
        ``calibrate=True``.
    n_splits_ : int
        Number of inner folds used; 0 if the data were too few to hold anything out.
    mean_, scale_ : ndarray of float64, shape (n_features,)
        Standardisation.
    mixing_ : ndarray of float64, shape (n_classes, n_classes + 1), or None
        How calibrated one-vs-rest log-odds become probabilities of more than two classes, see
        `cnnsvm.svm.calibration.fit_mixing`.
    models_ : list of KernelModel
        The fitted machines of each kernel that votes, as arrays.

    Notes
    -----
    Probabilities refer to the class frequencies of the training data, whatever the class
    weights. Without ``groups``, a class with fewer rows than ``cv`` lowers the number of folds,
    and a class of one row means default hyperparameters and bare margins as log-odds; both warn.

    References
    ----------
    J. Platt, "Probabilistic outputs for support vector machines", 1999.
    H.-T. Lin, C.-J. Lin and R. C. Weng, "A note on Platt's probabilistic outputs for support
    vector machines", Machine Learning 68, 2007.
    C. K. I. Williams and M. Seeger, "Using the Nystroem method to speed up kernel machines",
    NIPS 2000.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(60, centers=2, random_state=0)
    >>> TunedSVC(n_trials=3, random_state=0).fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    def __init__(
        self,
        kernel: str | tuple[str, ...] = "rbf",
        *,
        voting: str | None = None,
        n_trials: int = 30,
        cv: int = 3,
        calibrate: bool = True,
        scale: bool = True,
        cache_size: float = 1000,
        nystroem: int | None = None,
        storage: str | PathLike[str] | None = None,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.voting = voting
        self.n_trials = n_trials
        self.cv = cv
        self.calibrate = calibrate
        self.scale = scale
        self.cache_size = cache_size
        self.nystroem = nystroem
        self.storage = storage
        self.verbose = verbose
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: Sequence[Any] | np.ndarray | None = None,
        calibration: np.ndarray | None = None,
    ) -> Self:
        """Tune, fit and calibrate.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite embeddings; converted to float64.
        y : array-like of shape (n_samples,)
            Class labels, at least two different ones.
        groups : array-like of shape (n_samples,), optional
            Rows that no inner fold may separate, such as the images made from one source.
        calibration : array-like of bool, shape (n_samples,), optional
            Rows whose out-of-fold scores calibrate, such as those that whatever made the
            embeddings has not learnt from; None takes all. Rows of every class must be among
            them, or they are all taken.

        Raises
        ------
        ValueError
            If a parameter is out of range, X is not finite, y has one class, or a class has
            fewer groups than ``cv``.
        StudyMismatchError
            If ``storage`` holds studies of other data or settings.
        MemoryError
            If ``nystroem`` times the rows takes more than half of the machine's memory.
        """
        check_params(self.get_params(deep=False))
        rows, labels = validate_data(self, X, y, dtype=np.float64, ensure_all_finite=False)
        check_finite(rows)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        check_classes(self.classes_)
        store = StudyStore(self.storage)
        seed = self._seed(store)
        folds = inner_folds(labels, groups, self.cv, seed)
        targets = one_vs_rest(codes, len(self.classes_))
        trusted = calibration_rows(calibration, codes)
        how = (self.scale, self.cache_size, trusted, self.nystroem, seed)
        task = Task(rows, labels, groups, targets, folds, *how)
        self.n_splits_ = len(folds)
        self._keep_models(task, self._search(task, store, seed))
        return self

    def _seed(self, store: StudyStore) -> int:
        stored = store.seed() if self.random_state is None else None
        if stored is not None:
            return stored
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _search(self, task: Task, store: StudyStore, seed: int) -> list[KernelSearch]:
        """Tune every kernel and return those that vote."""
        searches = [
            tune(task, kernel, self.n_trials, store, seed, self.verbose)
            for kernel in kernel_names(self.kernel)
        ]
        best = winner(searches)
        self.best_params_ = {"kernel": best.kernel} | best.params
        self.best_score_ = best.score
        self.studies_ = [asdict(search) for search in searches]
        return searches if self.voting == "soft" else [best]

    def _keep_models(self, task: Task, searches: list[KernelSearch]) -> None:
        """Fit and calibrate the kernels that vote, on all rows."""
        self.mean_, self.scale_ = fit_scaler(task.X, self.scale)
        Z = (task.X - self.mean_) / self.scale_
        fitted = [fit_model(task, search, Z, self.calibrate) for search in searches]
        self.models_ = [model for model, _ in fitted]
        votes = soft_vote(np.stack([decisions for _, decisions in fitted]))
        self.mixing_ = None
        if self.calibrate and votes.shape[1] > 1:
            rows = task.calibration
            self.mixing_ = fit_mixing(votes[rows], task.targets[rows].argmax(axis=1))
        votes = mix(votes, self.mixing_)
        self.oof_decision_ = votes[:, 0] if votes.shape[1] == 1 else votes

    def _decide(self, X: ArrayLike) -> np.ndarray:
        """Return the decision of every machine, shape (n_samples, n_machines)."""
        check_is_fitted(self)
        rows = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False)
        check_finite(rows)
        blocks = []
        for block in gen_batches(len(rows), BLOCK_ROWS):
            Z = (rows[block] - self.mean_) / self.scale_
            votes = soft_vote(np.stack([model.decide(Z) for model in self.models_]))
            blocks.append(mix(votes, self.mixing_))
        return np.concatenate(blocks)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return log-odds (natural logarithm), or margins if ``calibrate=False``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite embeddings.

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_classes)
            Of the second class if there are two, else of each class against the rest.
        """
        decisions = self._decide(X)
        return decisions[:, 0] if decisions.shape[1] == 1 else decisions

    @available_if(_calibrates)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the calibrated probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite embeddings.

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            In [0, 1]; rows sum to 1.
        """
        return log_odds_to_proba(self._decide(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return the more probable class of each row, shape (n_samples,).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Finite embeddings.
        """
        decisions = self._decide(X)
        if decisions.shape[1] == 1:
            return self.classes_[(decisions[:, 0] > 0).astype(int)]
        return self.classes_[decisions.argmax(axis=1)]

    def to_state(self) -> state.State:
        """Return the fitted classifier as (config, arrays), without pickle.

        Returns
        -------
        config : dict
            Fit for strict JSON.
        arrays : dict of str to ndarray of float64
            C-contiguous, fit for safetensors.
        """
        check_is_fitted(self)
        return state.to_state(self)

    @classmethod
    def from_state(cls, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Rebuild the classifier of :meth:`to_state`; its decisions are the same to the bit.

        ``storage`` is not restored, nor is a ``random_state`` that was no integer.

        Raises
        ------
        ValueError
            If the state is damaged or of another format.
        """
        return state.from_state(cls, config, arrays)
