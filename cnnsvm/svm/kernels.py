"""The three kernels, and how their matrices follow from inner products or squared distances."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances, linear_kernel
from sklearn.preprocessing import StandardScaler

KERNELS = ("linear", "rbf", "poly")


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
        """Return the kernel matrix, shape (len(X), len(Y)), float64."""
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
    """Return what a kernel needs of two sets of rows, whatever its parameters.

    Parameters
    ----------
    name : {"linear", "rbf", "poly"}
        Name of the kernel.
    X, Y : ndarray of float64, shapes (n, n_features) and (m, n_features)
        Rows.

    Returns
    -------
    ndarray of float64, shape (n, m)
        Squared Euclidean distances for ``rbf``, inner products for the others.
    """
    if name == "rbf":
        return euclidean_distances(X, Y, squared=True)
    return linear_kernel(X, Y)


def make_kernel(name: str, params: dict[str, Any], unit: float) -> Kernel:
    """Build a kernel from searched parameters.

    Parameters
    ----------
    name : {"linear", "rbf", "poly"}
        Name of the kernel.
    params : dict
        May hold ``gamma_factor``, ``degree`` and ``coef0``; other keys are ignored.
    unit : float
        What ``gamma_factor`` multiplies: :func:`gamma_unit` of the rows that are fitted.
    """
    gamma = unit * params.get("gamma_factor", 1.0)
    return Kernel(name, gamma, params.get("degree", 1), params.get("coef0", 0.0))


def gamma_unit(Z: np.ndarray) -> float:
    """Return scikit-learn's ``gamma="scale"``, 1 / (n_features * Z.var()); 1 for constant rows."""
    variance = float(Z.var())
    return 1.0 / (Z.shape[1] * variance) if variance > 0 else 1.0


def fit_scaler(X: np.ndarray, scale: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return each feature's mean and standard deviation.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_features)
        Rows.
    scale : bool
        Without it the means are 0 and the deviations 1.

    Returns
    -------
    mean, deviation : ndarray of float64, shape (n_features,)
        The deviation of a constant feature is given as 1, as ``StandardScaler`` does.
    """
    if not scale:
        return np.zeros(X.shape[1]), np.ones(X.shape[1])
    scaler = StandardScaler().fit(X)
    return scaler.mean_, scaler.scale_
