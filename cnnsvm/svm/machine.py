"""Binary support vector machines: fitted by libsvm, kept and evaluated as plain arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.svm import SVC
from sklearn.utils import gen_batches

from cnnsvm.svm.kernels import Kernel

# libsvm needs a small multiple of n_samples; a nearly separable problem at a large C, whose
# solution hardly changes any more, would take millions.
MIN_ITER_LIMIT = 100_000
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Dual:
    """The solution of a binary SVM: which rows support it, and how much each weighs.

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

        The kernel matrix is made in blocks of rows of at most about 64 MiB.
        """
        block = max(1, BLOCK_BYTES // (8 * len(self.vectors)))
        margins = np.empty(len(Z))
        for rows in gen_batches(len(Z), block):
            margins[rows] = self.kernel(Z[rows], self.vectors) @ self.coef + self.intercept
        return margins


def solve_dual(
    matrix: np.ndarray,
    target: np.ndarray,
    params: dict[str, Any],
    kernel: Kernel | None = None,
    cache_size: float = 200,
    tol: float = 1e-3,
) -> Dual:
    """Fit a binary support vector classifier.

    Parameters
    ----------
    matrix : ndarray of float64, shape (n, n) or (n, n_features)
        The kernel matrix or, if ``kernel`` is given, scaled rows.
    target : ndarray of bool, shape (n,)
        True for the positive class; both values must occur.
    params : dict
        ``C`` and ``class_weight`` as for :class:`sklearn.svm.SVC`; other keys are ignored.
    kernel : Kernel or None
        Kernel that libsvm evaluates on the rows; None means that ``matrix`` is its result.
    cache_size : float
        Memory of libsvm's cache, in MB.
    tol : float
        Tolerance of libsvm's stopping criterion.
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
    norm = _safe_norm(float(coef @ sums[support]), coef)
    return Dual(support, coef, intercept, float(sums.mean()) + intercept, norm)


def _safe_norm(squared: float, coef: np.ndarray) -> float:
    """Return the root, or 1 where rounding is all there is (rows that are all equal)."""
    return float(np.sqrt(squared)) if squared > 1e-14 * np.abs(coef).sum() ** 2 else 1.0


def build_machine(kernel: Kernel, Z: np.ndarray, dual: Dual) -> BinaryMachine:
    """Keep what evaluating a fitted machine takes: support vectors, or one primal weight.

    Parameters
    ----------
    kernel : Kernel
        Kernel that the machine was fitted with.
    Z : ndarray of float64, shape (n_samples, n_features)
        Scaled rows that it was fitted on.
    dual : Dual
        Solution, whose ``support`` indexes the rows.
    """
    vectors = Z[dual.support]
    if kernel.name != "linear":
        return BinaryMachine(kernel, vectors, dual.coef, dual.intercept)
    weight = kernel.gamma * (dual.coef @ vectors)
    return BinaryMachine(Kernel("linear"), weight[np.newaxis], np.ones(1), dual.intercept)
