"""TunedSVC: support vector machines over embeddings, tuned by Optuna and calibrated."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import gen_batches
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from cnnsvm.data.splits import Fold
from cnnsvm.io.callbacks import Callback, check_callbacks
from cnnsvm.svm import state
from cnnsvm.svm.calibration import (
    LogOddsClassifier,
    choose_calibration_rows,
    draw_seed,
    encode_classes,
    fit_mixing,
    fit_platt_columns,
    mix,
    one_vs_rest,
    soft_vote,
    squeeze_binary,
)
from cnnsvm.svm.inner_cv import InnerCV, inner_folds
from cnnsvm.svm.machines import KERNELS, KernelModel, fit_machines, fit_scaler

if TYPE_CHECKING:
    from cnnsvm.svm.search import StudyStore

BLOCK_ROWS = 4096


def _calibrates(estimator: "TunedSVC") -> bool:
    if not estimator.calibrate:
        raise AttributeError("predict_proba needs calibrate=True; decision_function gives margins.")
    return True


class TunedSVC(LogOddsClassifier):
    """Support vector classifier whose hyperparameters Optuna tunes under grouped folds.

    For each kernel, trials are scored by the ROC AUC (one-vs-rest and macro-averaged if there
    are more than two classes) of the margins, as the mean over stratified inner folds that
    never separate a group. Scaling is fitted inside each training fold. The winner is fitted on
    all rows, and Platt scaling of its out-of-fold scores turns margins into log-odds, so
    ``decision_function(X) > 0``, ``predict_proba(X)[:, 1] > 0.5`` and ``predict(X) ==
    classes_[1]`` agree. More than two classes are told apart one-vs-rest.

    Parameters
    ----------
    kernel : {"linear", "rbf", "poly"} or tuple of them, default="rbf"
        Kernels to tune, ``n_trials`` each.
    voting : None or "soft", default=None
        Of several kernels, None takes the one of highest score (the first of equals); "soft"
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
        Memory in MB for kernel matrices, of 4 bytes for each pair of rows. Up to 2,000 rows, each
        fold has one. With more, trials share two that are scaled by all rows, not by each fold's
        training part: 1,000 MB hold those of 11,000 rows, 30,000 rows take 7,200. With more still,
        trials are scored on as many rows as fit, which a warning says, and only the winner is
        fitted to all, by kernels that are computed when needed. Out-of-fold scores are of all rows,
        each fold scaled by its training part, in any case.
    n_landmarks : int or None, default=None
        Number of rows that approximate the kernel of all (the Nystroem method), with squared
        hinge loss: the time of a fit then grows linearly with the rows. None, or no more rows
        than that, is exact.
    storage : str, path-like or None, default=None
        Journal file of the studies, one a kernel. A later fit on the same data with the same
        settings resumes them and runs only the missing trials, also if ``n_trials`` has grown;
        any other fit is refused, so each outer fold needs a file of its own. The URL of a database,
        such as "postgresql://user@host/studies", is for several hosts: those that run
        ``cnnsvm tune-worker`` take trials of the same search. Its points are then a fixed sequence
        (see `cnnsvm.svm.shared_search.search_points`) instead of ones that learn from the scores.
    study : str, default="TunedSVC"
        What the names of the studies begin with, which tells searches in one database apart.
    verbose : bool, default=False
        Whether to show a progress bar for each kernel, if standard error is a terminal.
    callbacks : list of `cnnsvm.io.callbacks.Callback` or None, default=None
        Told of each trial.
    random_state : int, RandomState instance or None, default=None
        Seed of folds and trials. None reads the seed of the first run from ``storage``, if any.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
    best_params_ : dict
        Hyperparameters of the kernel with the highest score: ``kernel``, ``C``,
        ``class_weight`` and, where it has them, ``gamma_factor``, ``degree`` and ``coef0``.
        ``gamma_factor`` multiplies ``gamma="scale"`` of the standardised rows; the linear and
        polynomial kernels multiply their inner product by gamma too, so that C has one meaning.
    best_score_ : float
        Mean AUC over the inner folds of ``best_params_``; as a maximum it is optimistic. NaN if
        the data were too few to tune.
    search_results_ : list of dict
        The result of `cnnsvm.svm.search.search_kernel` for each kernel.
    cv_decision_ : ndarray of float64, shape (n_samples,) or (n_samples, n_classes)
        Out-of-fold ``decision_function`` of each training row (but for Platt scaling, which is
        fitted on these): the scores to choose a threshold on. NaN where no inner fold could fit
        or calibrate a machine, for lack of a class. Uncalibrated margins of different folds may
        be shifted against each other.
    n_splits_ : int
        Number of inner folds used; 0 if the data were too few to hold anything out.
    mean_, scale_ : ndarray of float64, shape (n_features,)
        Standardisation.
    mixing_ : ndarray of float64, shape (n_classes, n_classes + 1), or None
        See `cnnsvm.svm.calibration.fit_mixing`.
    models_ : list of KernelModel
        The fitted machines of each kernel that votes, as arrays.

    Notes
    -----
    Probabilities refer to the class frequencies of the training data, whatever the class
    weights. Without ``groups``, a class with fewer rows than ``cv`` lowers the number of folds,
    and a class of one row means default hyperparameters and bare margins as log-odds; both warn.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> X, y = make_blobs(60, centers=2, random_state=0)
    >>> TunedSVC(n_trials=3, random_state=0).fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    _parameter_constraints: ClassVar = {
        "kernel": [StrOptions(set(KERNELS)), tuple, list],
        "voting": [StrOptions({"soft"}), None],
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "calibrate": ["boolean"],
        "scale": ["boolean"],
        "cache_size": [Interval(Real, 0, None, closed="neither")],
        "n_landmarks": [Interval(Integral, 1, None, closed="left"), None],
        "storage": [str, PathLike, None],
        "study": [str],
        "verbose": ["boolean"],
        "callbacks": [list, tuple, None],
        "random_state": ["random_state"],
    }

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
        n_landmarks: int | None = None,
        storage: str | PathLike[str] | None = None,
        study: str = "TunedSVC",
        verbose: bool = False,
        callbacks: Sequence[Callback] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.kernel = kernel
        self.voting = voting
        self.n_trials = n_trials
        self.cv = cv
        self.calibrate = calibrate
        self.scale = scale
        self.cache_size = cache_size
        self.n_landmarks = n_landmarks
        self.storage = storage
        self.study = study
        self.verbose = verbose
        self.callbacks = callbacks
        self.random_state = random_state

    def _validate_params(self) -> None:
        super()._validate_params()
        names = self._kernel_names()
        if not names or not set(names) <= set(KERNELS) or len(set(names)) < len(names):
            raise ValueError(
                f"kernel must be one of {KERNELS} or a tuple of different ones, "
                f"got {self.kernel!r}."
            )
        if self.voting == "soft" and not self.calibrate:
            raise ValueError(
                "voting='soft' averages probabilities, but calibrate=False computes none. "
                "Set calibrate=True or voting=None."
            )

    def _kernel_names(self) -> list[str]:
        return [self.kernel] if isinstance(self.kernel, str) else list(self.kernel)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: Sequence[Any] | np.ndarray | None = None,
        calibration_rows: ArrayLike | None = None,
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
        calibration_rows : array-like of bool, shape (n_samples,), optional
            Rows whose out-of-fold scores calibrate, such as those that the network behind the
            embeddings was not trained on; None takes all. If a class is not among them, all rows
            are taken.

        Raises
        ------
        ValueError
            If a parameter is out of range, X is not finite, y has one class, or a class has
            fewer groups than ``cv``.
        StudyMismatchError
            If ``storage`` holds studies of other data or settings.
        DatabaseError
            If ``storage`` is a database that cannot be reached, or goes away and stays away.
        MemoryError
            If ``n_landmarks`` times the rows takes more than half of the machine's memory.
        """
        self._validate_params()
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        classes, codes = encode_classes(labels)
        chosen = choose_calibration_rows(calibration_rows, codes)
        results, folds, inner_cv = self._search(rows, labels, groups)
        best = max(results, key=lambda result: np.nan_to_num(result["score"], nan=-np.inf))
        mean, deviation = fit_scaler(rows, self.scale)
        Z = (rows - mean) / deviation
        fitted = [
            self._fit_model(inner_cv(result["kernel"]), result["params"], Z, chosen)
            for result in (results if self.voting == "soft" else [best])
        ]
        votes = soft_vote(np.stack([decisions for _, decisions in fitted]))
        mixing = fit_mixing(votes[chosen], codes[chosen]) if self.calibrate else None
        self.cv_decision_ = squeeze_binary(mix(votes, mixing))
        self.classes_, self.mixing_ = classes, mixing
        self.mean_, self.scale_ = mean, deviation
        self.models_ = [model for model, _ in fitted]
        self.n_splits_ = len(folds)
        self.search_results_ = results
        self.best_params_ = {"kernel": best["kernel"]} | best["params"]
        self.best_score_ = best["score"]
        return self

    def search(
        self, X: ArrayLike, y: ArrayLike, groups: Sequence[Any] | np.ndarray | None = None
    ) -> list[dict[str, Any]]:
        """Run the trials that `fit` would run, and fit nothing.

        The arguments are those of `fit`. Returns the result of
        `cnnsvm.svm.search.search_kernel` for each kernel.
        """
        self._validate_params()
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        return self._search(rows, labels, groups)[0]

    def _search(
        self, rows: np.ndarray, labels: np.ndarray, groups: Any
    ) -> tuple[list[dict[str, Any]], list[Fold], Callable[[str], InnerCV]]:
        """Tune each kernel; return the results, the inner folds and what scores a kernel."""
        from cnnsvm.svm.search import StudyStore  # Optuna takes half a second

        store = StudyStore(self.storage)
        names = [f"{self.study} {kernel}" for kernel in self._kernel_names()]
        stored = store.seed(names) if self.random_state is None else None
        seed = draw_seed(self.random_state) if stored is None else stored
        folds = inner_folds(labels, groups, self.cv, seed)
        classes, codes = encode_classes(labels)
        targets = one_vs_rest(codes, len(classes))
        cache_size, n_landmarks = self.cache_size, self.n_landmarks

        def inner_cv(kernel: str) -> InnerCV:  # holds kernel matrices: one at a time
            return InnerCV(kernel, rows, targets, folds, self.scale, cache_size, n_landmarks, seed)

        kernels = self._kernel_names()
        results = [self._tune(inner_cv(kernel), labels, groups, store) for kernel in kernels]
        return results, folds, inner_cv

    def _tune(
        self, inner: InnerCV, labels: np.ndarray, groups: Any, store: "StudyStore"
    ) -> dict[str, Any]:
        """Search a kernel's hyperparameters; the defaults, unscored, if no fold can score them."""
        from cnnsvm.svm.search import fingerprint, search_kernel
        from cnnsvm.svm.shared_search import search_shared
        from cnnsvm.svm.space import DEFAULTS, SPACES

        kernel = inner.kernel
        if not inner.scorable():
            params = dict(DEFAULTS[kernel])
            return {"kernel": kernel, "params": params, "score": float("nan"), "trials": []}
        settings = {"space": SPACES[kernel], "seed": inner.seed, "scale": inner.scale}
        settings["n_landmarks"] = inner.n_landmarks
        if inner.is_sampled:
            settings["n_searched"] = inner.n_searched
        if inner.is_exact and not inner.keeps_folds:
            settings["matrix"] = "shared"
        if store.url is not None:
            settings["points"] = "sobol"
        current = fingerprint(inner.X, labels, groups, inner.folds, settings)
        told = check_callbacks(self.callbacks)
        name = f"{self.study} {kernel}"
        if store.url is not None:
            study = store.open(name, current, inner.seed, search=self._shared_params())
            task = (self.n_trials, study, inner.seed, store.url, told)
            return search_shared(kernel, inner.fold_aucs, *task)
        study = store.open(name, current, inner.seed)
        how = (self.n_trials, study, inner.seed, self.verbose, told)
        return search_kernel(kernel, inner.fold_aucs, *how)

    def _shared_params(self) -> dict[str, Any]:
        """Return the parameters that a worker needs to take part in the search."""
        own = {"kernel": self._kernel_names()}
        names = ("n_trials", "cv", "scale", "n_landmarks", "cache_size")
        return own | {name: getattr(self, name) for name in names}

    def _fit_model(
        self, inner: InnerCV, params: dict[str, Any], Z: np.ndarray, chosen: np.ndarray
    ) -> tuple[KernelModel, np.ndarray]:
        """Fit the machines of a kernel on all rows; return them with out-of-fold decisions.

        Platt scaling is fitted on signed distances (:meth:`Dual.distance`) rather than on margins.
        Where most rows are support vectors at their bound (small C, weak signal), the intercept of
        a fold is about +-1, by the class it has more rows of, while margins differ by far less and
        grow with the number of rows: such folds would not rank when pooled, although each alone
        does, and the scale would not fit the machine of all rows.
        """
        targets, how = inner.targets, (self.cache_size, self.n_landmarks, inner.seed)
        machines, duals = fit_machines(inner.kernel, Z, targets, params, *how)
        held_out = inner.out_of_fold(params, as_distances=self.calibrate)
        if not self.calibrate:
            return KernelModel(machines, np.ones(len(duals)), np.zeros(len(duals))), held_out
        slope, offset = fit_platt_columns(held_out[chosen], targets[chosen])
        decisions = slope * held_out + offset
        slope = slope / [dual.norm for dual in duals]
        offset = offset - slope * [dual.centre for dual in duals]
        # a machine that could not be calibrated (NaN) keeps its margin
        return KernelModel(machines, np.nan_to_num(slope, nan=1), np.nan_to_num(offset)), decisions

    def _decide(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self, "classes_")
        rows = validate_data(self, X, reset=False, dtype=np.float64)
        blocks = []
        for block in gen_batches(len(rows), BLOCK_ROWS):
            Z = (rows[block] - self.mean_) / self.scale_
            votes = soft_vote(np.stack([model.decide(Z) for model in self.models_]))
            blocks.append(mix(votes, self.mixing_))
        return np.concatenate(blocks)

    @available_if(_calibrates)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the calibrated probabilities of the classes, shape (n_samples, n_classes)."""
        return super().predict_proba(X)

    def to_state(self) -> tuple[state.Config, state.Arrays]:
        """Return the fitted classifier as JSON-able dict and C-contiguous arrays, for no pickle."""
        check_is_fitted(self, "classes_")
        return state.to_state(self)

    @classmethod
    def from_state(cls, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Rebuild the classifier of :meth:`to_state`; its decisions are the same to the bit.

        ``storage`` is not restored, nor is a ``random_state`` that was no integer. ValueError if
        the state is damaged or of another format.
        """
        return state.from_state(cls, config, arrays)
