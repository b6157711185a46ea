"""Kernels and binary support vector machines: fitted by scikit-learn, evaluated as arrays.

What only a fit needs of scikit-learn is imported there: with SciPy it takes a second.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

# libsvm needs a small multiple of n_samples; a nearly separable problem at a large C, whose
# solution hardly changes any more, would take millions.
MIN_ITER_LIMIT = 100_000
BLOCK_BYTES = 64 * 2**20
MEGABYTE = 10**6
KERNELS = ("linear", "rbf", "poly")
#: Share of the largest eigenvalue below which a direction is rounding error, and is left out.
MIN_EIGENVALUE = 1e-10
#: Squared length of a weight vector, of the sum of its rows', that is rounding error.
SHORTEST = 1e-6
#: Matrices of rows by landmarks that exist at once: squared distances, kernel, features.
N_COPIES = 3


@dataclass(frozen=True)
class Kernel:
    """A kernel function with its parameters.

    ``linear`` is ``gamma * <x, y>``, ``poly`` is ``(gamma * <x, y> + coef0) ** degree`` and
    ``rbf`` is ``exp(-gamma * |x - y|**2)``. The linear kernel has a gamma so that its C means
    the same as that of the others, whatever the number of features.
    """

    name: str
    gamma: float = 1.0
    degree: int = 1
    coef0: float = 0.0

    def __call__(self, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return the kernel matrix, float64 of shape (len(X), len(Y))."""
        return self.transform(pairwise_base(self.name, X, Y))

    def transform(self, base: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Turn the matrix of :func:`pairwise_base` into the kernel matrix, in ``out`` if given."""
        if self.name == "rbf":
            gram = np.multiply(base, -self.gamma, out=out)
            return np.exp(gram, out=gram)
        gram = np.multiply(base, self.gamma, out=out)
        if self.name == "poly":
            gram += self.coef0
            gram **= self.degree
        return gram

    def diagonal(self, X: np.ndarray) -> np.ndarray:
        """Return the kernel of each row with itself, float64 (len(X),)."""
        squares = np.einsum("ij,ij->i", X, X)
        return self.transform(np.zeros(len(X)) if self.name == "rbf" else squares)

    def libsvm_params(self) -> dict[str, Any]:
        """Return the same kernel as parameters of :class:`sklearn.svm.SVC`."""
        name = "poly" if self.name == "linear" else self.name
        return {"kernel": name, "gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}


def pairwise_base(name: str, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return what the matrix of a kernel is computed from, whatever its parameters.

    Squared Euclidean distances for ``rbf``, else inner products, float64 of shape (n, m).
    """
    products = X @ Y.T
    to_base(name, products, np.einsum("ij,ij->i", X, X), np.einsum("ij,ij->i", Y, Y))
    return products


def to_base(name: str, products: np.ndarray, own: np.ndarray, others: np.ndarray) -> None:
    """Turn inner products into what `pairwise_base` gives, in place.

    ``own`` and ``others`` are the squared lengths of the rows and columns.
    """
    if name == "rbf":
        products *= -2
        products += others
        products += own[:, np.newaxis]
        np.maximum(products, 0, out=products)


def make_kernel(name: str, params: dict[str, Any], unit: float) -> Kernel:
    """Build a kernel from the hyperparameters of a trial.

    ``params`` may hold ``gamma_factor``, which multiplies ``unit`` (see :func:`gamma_unit`),
    ``degree`` and ``coef0``; other keys are ignored.
    """
    gamma = unit * params.get("gamma_factor", 1.0)
    return Kernel(name, gamma, params.get("degree", 1), params.get("coef0", 0.0))


def gamma_unit(Z: np.ndarray) -> float:
    """Return scikit-learn's ``gamma="scale"``, 1 / (n_features * Z.var()); 1 for constant rows."""
    variance = float(Z.var(dtype=np.float64))
    return 1.0 / (Z.shape[1] * variance) if variance > 0 else 1.0


def fit_scaler(X: np.ndarray, scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and standard deviation, float64 of shape (n_features,).

    The deviation of a constant feature is 1. Without ``scale`` all means are 0, all deviations 1.
    """
    if not scale:
        return np.zeros(X.shape[1]), np.ones(X.shape[1])
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(X)
    return scaler.mean_, scaler.scale_


def choose_landmarks(n_rows: int, n_landmarks: int | None, seed: int) -> np.ndarray | None:
    """Draw the sorted numbers of the rows that serve as landmarks.

    None, an exact machine, if there are no more rows than landmarks. MemoryError if the matrices
    of rows by landmarks take more than half of the machine's memory.
    """
    if n_landmarks is None or n_rows <= n_landmarks:
        return None
    check_memory(n_rows, n_landmarks)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_landmarks, replace=False))


def check_memory(n_rows: int, n_landmarks: int, limit: int | None = None) -> None:
    """Raise MemoryError above ``limit`` bytes; None means half of the machine's memory."""
    if limit is None:
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    needed = N_COPIES * 8 * n_rows * n_landmarks
    if needed > limit:
        raise MemoryError(
            f"n_landmarks={n_landmarks} and {n_rows:,} rows take {needed / 1e9:.1f} GB, more than "
            f"the {limit / 1e9:.1f} GB that a fit may use here. Use at most "
            f"{limit // (N_COPIES * 8 * n_rows)} landmarks."
        )


def inverse_root(matrix: np.ndarray) -> np.ndarray:
    """Return the pseudo-inverse square root of a positive semidefinite matrix (m, m)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    large = values > MIN_EIGENVALUE * max(values[-1], 0.0)
    return (vectors[:, large] / np.sqrt(values[large])) @ vectors[:, large].T


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


class LandmarkRows:
    """Scaled rows (n_rows, n_features) to fit machines of one kernel on, and their landmarks.

    ``landmarks`` are the numbers of rows that approximate all (:class:`NystroemFeatures`). If
    ``keep``, what their kernels are computed from is kept for all trials.
    """

    def __init__(
        self, kernel_name: str, rows: np.ndarray, landmarks: np.ndarray, keep: bool = False
    ) -> None:
        self.kernel_name, self.rows, self.landmarks = kernel_name, rows, landmarks
        self.unit = gamma_unit(rows)
        self._kept = self._base() if keep else None

    def _base(self) -> np.ndarray:
        return pairwise_base(self.kernel_name, self.rows, self.rows[self.landmarks])

    def solve(
        self, params: dict[str, Any], targets: np.ndarray
    ) -> tuple[Kernel, list[Dual | None]]:
        """Fit one SVM a column of ``targets``, bool (n_rows, n_machines); None for one value."""
        kernel = make_kernel(self.kernel_name, params, self.unit)
        base = self._base() if self._kept is None else self._kept
        features = NystroemFeatures(kernel, base, self.landmarks)
        both = has_both(targets)
        return kernel, [
            features.solve(targets[:, k], params) if both[k] else None for k in range(len(both))
        ]


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
    hyperparameters of a trial; ``cache_size`` is in MB. If it holds two kernel matrices, libsvm
    works on one, else `cnnsvm.svm.gram.fit_rows` on rows of it. ``n_landmarks``, drawn with
    ``seed``, make the machines approximate.
    """
    landmarks = choose_landmarks(len(Z), n_landmarks, seed)
    kernel = make_kernel(name, params, gamma_unit(Z))
    duals: list[Dual]
    if landmarks is not None:
        features = NystroemFeatures(kernel, pairwise_base(name, Z, Z[landmarks]), landmarks)
        duals = [features.solve(target, params) for target in targets.T]
    elif 2 * Z.itemsize * len(Z) ** 2 <= cache_size * MEGABYTE:
        gram = kernel(Z, Z)
        duals = [solve_dual(gram, target, params, cache_size) for target in targets.T]
    else:
        from cnnsvm.svm.gram import fit_rows  # its compiler takes a second to import

        duals = fit_rows(kernel, Z, targets, params, cache_size)
    return [build_machine(kernel, Z, dual) for dual in duals], duals


def solve_dual(
    gram: np.ndarray,
    target: np.ndarray,
    params: dict[str, Any],
    cache_size: float = 200,
    tol: float = 1e-3,
) -> Dual:
    """Fit a binary support vector classifier by libsvm.

    ``gram`` is the kernel matrix (n, n); ``target``, bool (n,), has both values; of ``params``,
    ``C`` and ``class_weight`` count; ``cache_size`` is in MB, ``tol`` libsvm's stopping criterion.
    """
    from sklearn.svm import SVC

    svc = SVC(
        C=params["C"],
        class_weight=params["class_weight"],
        cache_size=cache_size,
        tol=tol,
        max_iter=max(MIN_ITER_LIMIT, 100 * len(target)),
        kernel="precomputed",
    ).fit(gram, target)
    support, coef, intercept = svc.support_, svc.dual_coef_[0].copy(), float(svc.intercept_[0])
    sums = gram[support].T @ coef
    norm = weight_norm(coef, sums[support], gram.diagonal()[support])
    return Dual(support, coef, intercept, float(sums.mean()) + intercept, norm)


def weight_norm(coef: np.ndarray, sums: np.ndarray, diagonal: np.ndarray) -> float:
    """Return the length of a weight vector in the feature space; 1 if it is rounding error.

    ``coef``, ``sums`` and ``diagonal``, float (n,), are the weights of rows, their kernels with the
    weight vector and with themselves. What rounding to single precision leaves of a vector of no
    length, as where rows of both classes are equal, is less than the bound.
    """
    squared = float(coef @ sums)
    return float(np.sqrt(squared)) if squared > SHORTEST * float(coef**2 @ diagonal) else 1.0


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
        from sklearn.svm import LinearSVC

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
