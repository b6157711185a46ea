"""Binary support vector machines: fitted by scikit-learn, evaluated as plain arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.svm import SVC, LinearSVC
from sklearn.utils import gen_batches

from cnnsvm.svm.kernels import (
    Kernel,
    choose_landmarks,
    gamma_unit,
    inverse_root,
    make_kernel,
    pairwise_base,
)

# libsvm needs a small multiple of n_samples; a nearly separable problem at a large C, whose
# solution hardly changes any more, would take millions.
MIN_ITER_LIMIT = 100_000
BLOCK_BYTES = 64 * 2**20
MEGABYTE = 10**6


@dataclass(frozen=True)
class Dual:
    """The solution of a binary SVM: the indices of its support vectors and their weights.

    ``centre`` is the mean margin of the rows that it was fitted on, ``norm`` the length of the
    weight vector in the kernel's feature space.
    """

    support: np.ndarray
    coef: np.ndarray
    intercept: float
    centre: float
    norm: float

    def distance(self, margins: np.ndarray) -> np.ndarray:
        """Return signed distances from the plane through the centre of the fitted rows."""
        return (margins - self.centre) / self.norm


@dataclass(frozen=True)
class BinaryMachine:
    """A binary SVM whose decision is ``kernel(x, vectors) @ coef + intercept``.

    A linear machine holds a single vector, its primal weight.
    """

    kernel: Kernel
    vectors: np.ndarray
    coef: np.ndarray
    intercept: float

    def decide(self, Z: np.ndarray) -> np.ndarray:
        """Return the margins of scaled rows (n, n_features), as float64 of shape (n,).

        The kernel matrix is computed in blocks of rows of at most about 64 MiB.
        """
        block = max(1, BLOCK_BYTES // (8 * len(self.vectors)))
        margins = np.empty(len(Z))
        for rows in gen_batches(len(Z), block):
            margins[rows] = self.kernel(Z[rows], self.vectors) @ self.coef + self.intercept
        return margins


@dataclass(frozen=True)
class KernelModel:
    """The machines of one kernel, one a one-vs-rest problem, with the Platt scaling of each.

    ``slope`` and ``offset`` are float64 of shape (n_machines,).
    """

    machines: list[BinaryMachine]
    slope: np.ndarray
    offset: np.ndarray

    def decide(self, Z: np.ndarray) -> np.ndarray:
        """Return ``slope * margin + offset`` of scaled rows, shape (n_samples, n_machines)."""
        margins = np.column_stack([machine.decide(Z) for machine in self.machines])
        return self.slope * margins + self.offset


class TrainingRows:
    """Scaled rows (n_rows, n_features) to fit machines of one kernel on.

    With ``precompute``, what the kernel matrix is computed from is kept: libsvm on a precomputed
    matrix is several times as fast as on rows of a thousand features, and every trial can reuse
    it. ``landmarks`` are the numbers of rows that approximate all (:class:`NystroemFeatures`).
    """

    def __init__(
        self,
        kernel_name: str,
        rows: np.ndarray,
        cache_size: float,
        precompute: bool,
        landmarks: np.ndarray | None = None,
    ) -> None:
        self.kernel_name, self.rows, self.cache_size = kernel_name, rows, cache_size
        self.landmarks = landmarks
        self.unit = gamma_unit(rows)
        self.base = self._pairwise_base() if precompute else None

    def _pairwise_base(self) -> np.ndarray:
        others = self.rows if self.landmarks is None else self.rows[self.landmarks]
        return pairwise_base(self.kernel_name, self.rows, others)

    def solve(
        self, params: dict[str, Any], targets: np.ndarray
    ) -> tuple[Kernel, list[Dual | None]]:
        """Fit one SVM a column of ``targets``, bool (n_rows, n_machines); None for one value."""
        kernel = make_kernel(self.kernel_name, params, self.unit)
        solve: Callable[[np.ndarray], Dual]
        if self.landmarks is not None:
            base = self._pairwise_base() if self.base is None else self.base
            features = NystroemFeatures(kernel, base, self.landmarks)
            solve = partial(features.solve, params=params)
        elif self.base is not None:
            gram = kernel.transform(self.base)
            solve = partial(solve_dual, gram, params=params, cache_size=self.cache_size)
        else:
            how: dict[str, Any] = {"kernel": kernel, "cache_size": self.cache_size}
            solve = partial(solve_dual, self.rows, params=params, **how)
        fittable = has_both(targets)
        return kernel, [solve(targets[:, k]) if fittable[k] else None for k in range(len(fittable))]


def fit_machines(
    name: str,
    Z: np.ndarray,
    targets: np.ndarray,
    params: dict[str, Any],
    cache_size: float,
    n_landmarks: int | None = None,
    seed: int = 0,
) -> tuple[list[BinaryMachine], list[Dual]]:
    """Fit one machine a column of ``targets`` on scaled rows ``Z`` (n_samples, n_features).

    ``targets``, bool (n_samples, n_machines), has both values in every column; ``params`` are the
    hyperparameters of a trial; ``cache_size`` is in MB. ``n_landmarks``, drawn with ``seed``, make
    the machines approximate.
    """
    landmarks = choose_landmarks(len(Z), n_landmarks, seed)
    precompute = 2 * Z.itemsize * len(Z) ** 2 <= cache_size * MEGABYTE and landmarks is None
    training = TrainingRows(name, Z, cache_size, precompute, landmarks)
    kernel, solved = training.solve(params, targets)
    duals = [dual for dual in solved if dual is not None]
    return [build_machine(kernel, Z, dual) for dual in duals], duals


def solve_dual(
    matrix: np.ndarray,
    target: np.ndarray,
    params: dict[str, Any],
    kernel: Kernel | None = None,
    cache_size: float = 200,
    tol: float = 1e-3,
) -> Dual:
    """Fit a binary support vector classifier.

    ``matrix`` is the kernel matrix (n, n) or, if ``kernel`` is given, scaled rows for libsvm to
    evaluate it on; ``target``, bool (n,), has both values; of ``params``, ``C`` and
    ``class_weight`` count; ``cache_size`` is in MB, ``tol`` libsvm's stopping criterion.
    """
    svc = SVC(
        C=params["C"],
        class_weight=params["class_weight"],
        cache_size=cache_size,
        tol=tol,
        max_iter=max(MIN_ITER_LIMIT, 100 * len(target)),
        **({"kernel": "precomputed"} if kernel is None else kernel.libsvm_params()),
    ).fit(matrix, target)
    support, coef, intercept = svc.support_, svc.dual_coef_[0].copy(), float(svc.intercept_[0])
    if kernel is None:
        sums = matrix[support].T @ coef
    else:
        sums = BinaryMachine(kernel, matrix[support], coef, 0.0).decide(matrix)
    squared = float(coef @ sums[support])
    # for equal rows it is rounding error
    norm = float(np.sqrt(squared)) if squared > 1e-14 * np.abs(coef).sum() ** 2 else 1.0
    return Dual(support, coef, intercept, float(sums.mean()) + intercept, norm)


class NystroemFeatures:
    """Features of rows that stand for a kernel, for linear machines with squared hinge loss.

    Those of a row ``x`` are ``k(x, L) K**(-1/2)``, with the landmarks ``L`` and their kernel
    matrix ``K``. A linear machine on them, fitted in the primal, is a kernel machine whose support
    vectors are the landmarks. ``base`` is the pairwise base of rows and landmarks, whose row
    numbers are ``landmarks``.

    References
    ----------
    C. K. I. Williams and M. Seeger, "Using the Nystroem method to speed up kernel machines",
    NIPS 2000.
    """

    def __init__(self, kernel: Kernel, base: np.ndarray, landmarks: np.ndarray) -> None:
        gram = kernel.transform(base)
        self.landmarks, self.root = landmarks, inverse_root(gram[landmarks])
        self.features = gram @ self.root

    def solve(self, target: np.ndarray, params: dict[str, Any]) -> Dual:
        """Fit a binary machine; ``target`` and ``params`` as of :func:`solve_dual`."""
        svc = LinearSVC(C=params["C"], class_weight=params["class_weight"], dual=False, tol=1e-3)
        svc.fit(self.features, target)
        weight, intercept = svc.coef_[0], float(svc.intercept_[0])
        centre = float((self.features @ weight).mean()) + intercept
        norm = float(np.linalg.norm(weight)) or 1.0
        return Dual(self.landmarks, self.root @ weight, intercept, centre, norm)


def build_machine(kernel: Kernel, Z: np.ndarray, dual: Dual) -> BinaryMachine:
    """Build the machine of a solution on scaled rows ``Z``: support vectors or primal weight."""
    vectors = Z[dual.support]
    if kernel.name != "linear":
        return BinaryMachine(kernel, vectors, dual.coef, dual.intercept)
    weight = kernel.gamma * (dual.coef @ vectors)
    return BinaryMachine(Kernel("linear"), weight[np.newaxis], np.ones(1), dual.intercept)


def has_both(targets: np.ndarray) -> np.ndarray:
    """Return for each boolean column whether both values occur in it."""
    return np.ptp(targets.astype(np.int8), axis=0) > 0
