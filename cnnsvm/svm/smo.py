"""Support vector machines on a kernel matrix of all rows, of which some are held out."""

from typing import Any

import numpy as np
from numba import njit
from sklearn.utils.class_weight import compute_class_weight

from cnnsvm.svm.machines import (
    MIN_ITER_LIMIT,
    gamma_unit,
    has_both,
    make_kernel,
    pairwise_base,
    weight_norm,
)

#: Curvature of a pair that counts as none, and share of the box below which a bound is reached.
_FLAT, _ROUNDING = 1e-12, 1e-12


class SharedGram:
    """The kernel matrices of one fold: of its training rows, and of those held out beside them.

    What they are computed from is kept for all trials and machines, float32 of (n_rows, n_rows). A
    held-out row has no weight, so what the solver knows of its gradient is its decision.

    Parameters
    ----------
    kernel_name : str
    rows : ndarray of shape (n_rows, n_features)
        Scaled by the training rows.
    train, test : ndarray of int
        Numbers of the rows that machines are fitted on, and of those that are scored.
    """

    def __init__(
        self, kernel_name: str, rows: np.ndarray, train: np.ndarray, test: np.ndarray
    ) -> None:
        self.kernel_name, self.train, self.test = kernel_name, train, test
        self.unit = gamma_unit(rows[train])
        single = rows.astype(np.float32)
        self.base = pairwise_base(kernel_name, single, single)

    def scores(
        self, params: dict[str, Any], targets: np.ndarray, as_distances: bool = False
    ) -> np.ndarray:
        """Fit a machine a column of ``targets``, bool (n_rows, n_machines), and score test rows.

        Returns margins, or signed distances from the plane through the centre of the training
        rows, float64 (n_test, n_machines); NaN where the training rows have one class.
        """
        gram = make_kernel(self.kernel_name, params, self.unit).transform(self.base)
        scores = np.full((len(self.test), targets.shape[1]), np.nan)
        for k in np.flatnonzero(has_both(targets[self.train])):
            box = self._box(targets[:, k], params)
            weights, margins = solve(gram, targets[:, k], box)
            scores[:, k] = margins[self.test]
            if as_distances:
                scores[:, k] -= margins[self.train].mean()
                # the intercept drops out: weights sum to 0
                scores[:, k] /= weight_norm(weights, margins, gram.diagonal())
        return scores

    def _box(self, target: np.ndarray, params: dict[str, Any]) -> np.ndarray:
        """Return the largest weight of each row: 0 for one that is held out."""
        own = target[self.train].astype(int)
        share = compute_class_weight(params["class_weight"], classes=np.array([0, 1]), y=own)
        box = np.zeros(len(target))
        box[self.train] = params["C"] * share[own]
        return box


def solve(
    gram: np.ndarray, target: np.ndarray, box: np.ndarray, tol: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a binary support vector classifier by sequential minimal optimization.

    Pairs of rows are chosen by second-order information, as libsvm does, which needs as many steps
    and the same criterion to stop.

    Parameters
    ----------
    gram : ndarray of float32 or float64, shape (n, n)
        The kernel matrix.
    target : ndarray of bool, shape (n,)
        Both values occur among the rows whose ``box`` is not 0.
    box : ndarray of float64, shape (n,)
        The largest weight of each row; rows of 0 are scored and not fitted.
    tol : float
        How far the optimality conditions may be violated at the end.

    Returns
    -------
    weights, margins : ndarray of float64, shape (n,)
        ``margins`` are ``gram @ weights`` plus the intercept; weights of True rows are positive.

    References
    ----------
    R.-E. Fan, P.-H. Chen and C.-J. Lin, "Working set selection using second order information for
    training support vector machines", JMLR 6, 2005.
    """
    signs = np.where(target, 1.0, -1.0)
    limit = max(MIN_ITER_LIMIT, 100 * len(target))
    weights, slack, high, low = _optimize(gram, signs, np.asarray(box, float), tol, limit)
    size = np.abs(weights)
    free = (size > 0) & (size < box)
    intercept = slack[free].mean() if free.any() else (high + low) / 2
    return weights, signs - slack + intercept


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _choose(
    gram: np.ndarray,
    diagonal: np.ndarray,
    slack: np.ndarray,
    can_grow: np.ndarray,
    can_shrink: np.ndarray,
) -> tuple[int, int, float, float]:
    """Choose the pair of rows of a step, -1 if there is none, and the extremes of the slack."""
    i, j, high, low, gain = 0, -1, -np.inf, np.inf, 0.0
    for k in range(len(slack)):
        if can_grow[k] and slack[k] > high:
            high, i = slack[k], k
    row = gram[i]
    for k in range(len(slack)):
        if can_shrink[k]:
            low = min(low, slack[k])
            gap = high - slack[k]
            if gap > 0:
                curvature = max(diagonal[i] + diagonal[k] - 2.0 * row[k], _FLAT)
                if gap * gap > gain * curvature:
                    gain, j = gap * gap / curvature, k
    return i, j, high, low


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _optimize(
    gram: np.ndarray, signs: np.ndarray, box: np.ndarray, tol: float, max_steps: int
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return weights, ``signs`` less the sums of kernels, and their extremes where they may move.

    The weight of row k lies between 0 and ``signs[k] * box[k]``. Each step moves weight between the
    row whose slack is the largest of those that may grow and the one of those that may shrink with
    which the objective falls the most.
    """
    n = len(signs)
    weights, slack, low_end, high_end = np.zeros(n), signs.copy(), np.zeros(n), np.zeros(n)
    diagonal = np.empty(n)
    for k in range(n):
        diagonal[k] = gram[k, k]
        low_end[k], high_end[k] = min(0.0, signs[k] * box[k]), max(0.0, signs[k] * box[k])
    can_grow, can_shrink = weights < high_end, weights > low_end
    high, low = -np.inf, np.inf
    for _ in range(max_steps):
        i, j, high, low = _choose(gram, diagonal, slack, can_grow, can_shrink)
        if j < 0 or high - low < tol:
            break
        row, other = gram[i], gram[j]
        step = (high - slack[j]) / max(diagonal[i] + diagonal[j] - 2.0 * row[j], _FLAT)
        step = min(step, high_end[i] - weights[i], weights[j] - low_end[j])
        weights[i] += step
        weights[j] -= step
        if high_end[i] - weights[i] < _ROUNDING * box[i]:
            weights[i] = high_end[i]
        if weights[j] - low_end[j] < _ROUNDING * box[j]:
            weights[j] = low_end[j]
        for k in (i, j):
            can_grow[k], can_shrink[k] = weights[k] < high_end[k], weights[k] > low_end[k]
        for k in range(n):
            slack[k] -= step * (row[k] - other[k])
    return weights, slack, high, low
