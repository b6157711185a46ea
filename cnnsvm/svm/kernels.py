"""Kernels, their matrices, and the landmarks that approximate them (the Nystroem method)."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances, linear_kernel
from sklearn.preprocessing import StandardScaler

KERNELS = ("linear", "rbf", "poly")
#: Share of the largest eigenvalue below which a direction is rounding error, and is left out.
MIN_EIGENVALUE = 1e-10
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

    def transform(self, base: np.ndarray) -> np.ndarray:
        """Turn the matrix of :func:`pairwise_base` into the kernel matrix, as a new array."""
        if self.name == "rbf":
            gram = -self.gamma * base
            return np.exp(gram, out=gram)
        gram = self.gamma * base
        if self.name == "poly":
            gram += self.coef0
            gram **= self.degree
        return gram

    def libsvm_params(self) -> dict[str, Any]:
        """Return the same kernel as parameters of :class:`sklearn.svm.SVC`."""
        name = "poly" if self.name == "linear" else self.name
        return {"kernel": name, "gamma": self.gamma, "degree": self.degree, "coef0": self.coef0}


def pairwise_base(name: str, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return what the matrix of a kernel is computed from, whatever its parameters.

    Squared Euclidean distances for ``rbf``, else inner products, float64 of shape (n, m).
    """
    if name == "rbf":
        return euclidean_distances(X, Y, squared=True)
    return linear_kernel(X, Y)


def make_kernel(name: str, params: dict[str, Any], unit: float) -> Kernel:
    """Build a kernel from the hyperparameters of a trial.

    ``params`` may hold ``gamma_factor``, which multiplies ``unit`` (see :func:`gamma_unit`),
    ``degree`` and ``coef0``; other keys are ignored.
    """
    gamma = unit * params.get("gamma_factor", 1.0)
    return Kernel(name, gamma, params.get("degree", 1), params.get("coef0", 0.0))


def gamma_unit(Z: np.ndarray) -> float:
    """Return scikit-learn's ``gamma="scale"``, 1 / (n_features * Z.var()); 1 for constant rows."""
    variance = float(Z.var())
    return 1.0 / (Z.shape[1] * variance) if variance > 0 else 1.0


def fit_scaler(X: np.ndarray, scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and standard deviation, float64 of shape (n_features,).

    The deviation of a constant feature is 1. Without ``scale`` all means are 0, all deviations 1.
    """
    if not scale:
        return np.zeros(X.shape[1]), np.ones(X.shape[1])
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
