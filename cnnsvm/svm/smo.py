"""Support vector machines on a kernel matrix of all rows, of which some are held out."""

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from sklearn.exceptions import ConvergenceWarning

from cnnsvm.svm.machines import MIN_ITER_LIMIT

if TYPE_CHECKING:
    from cnnsvm.svm.gram import KernelRows

#: Problems of no more rows are solved at once, larger ones by working sets of so many.
WHOLE_ROWS, WORKING_ROWS = 5000, 2048
#: Curvature of a pair that counts as none, and share of the box below which a bound is reached.
_FLAT, _ROUNDING = 1e-12, 1e-12
#: Share of the violation in a working set that is left to the next.
_SHARE_LEFT = 0.1
#: Columns of a kernel matrix that are read at a time: sums of theirs stay in the cache.
_COLUMNS = 4096


class Solution(NamedTuple):
    """Weights of rows, float64 (n,), and margins: ``gram @ weights`` plus the intercept."""

    weights: np.ndarray
    margins: np.ndarray
    intercept: float


def solve(
    gram: "np.ndarray | KernelRows",
    target: np.ndarray,
    box: np.ndarray,
    tol: float = 1e-3,
    warn: bool = False,
) -> Solution:
    """Fit a binary support vector classifier by sequential minimal optimization.

    Pairs of rows are chosen by second-order information, as libsvm does, with the same criterion to
    stop. Of more than :data:`WHOLE_ROWS` rows, those that violate the optimality conditions most
    are optimised together until little is left of their violation; then the others are told.

    Parameters
    ----------
    gram : ndarray of float32 or float64, shape (n, n), or KernelRows
        The kernel matrix.
    target : ndarray of bool, shape (n,)
        Both values occur among the rows whose ``box`` is not 0.
    box : ndarray of float64, shape (n,)
        The largest weight of each row; rows of 0 are scored and not fitted.
    tol : float
        How far the optimality conditions may be violated at the end.
    warn : bool
        Whether to issue a ConvergenceWarning if they are violated more after 100 steps a row.

    Returns
    -------
    Solution
        Weights of True rows are positive.

    References
    ----------
    R.-E. Fan, P.-H. Chen and C.-J. Lin, "Working set selection using second order information for
    training support vector machines", JMLR 6, 2005; T. Joachims, "Making large-scale SVM learning
    practical", 1998, on working sets.
    """
    signs, box = np.where(target, 1.0, -1.0), np.asarray(box, float)
    ends = np.minimum(0.0, signs * box), np.maximum(0.0, signs * box)
    weights, slack, high, low = _descend(gram, signs, ends, tol)
    if warn and high - low >= tol:
        warnings.warn(
            f"The machine of C={box.max():.3g} has not converged: its optimality conditions are "
            f"violated by {high - low:.2g}, not {tol:.2g}. Scale the features, or use a smaller C.",
            ConvergenceWarning,
            stacklevel=2,
        )
    size = np.abs(weights)
    free = (size > 0) & (size < box)
    intercept = float(slack[free].mean() if free.any() else (high + low) / 2)
    return Solution(weights, signs - slack + intercept, intercept)


def _descend(
    gram: "np.ndarray | KernelRows",
    signs: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    tol: float,
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return weights, ``signs`` less the sums of kernels, and their extremes where they may move.

    The weight of a row lies between its ``ends``.
    """
    n_rows, (low_end, high_end) = len(signs), ends
    weights, slack = np.zeros(n_rows), signs.copy()
    chosen = np.arange(n_rows) if n_rows <= WHOLE_ROWS else np.empty(0, int)
    left = max(MIN_ITER_LIMIT, 100 * n_rows)
    while True:
        can_grow, can_shrink = weights < high_end, weights > low_end
        high = float(slack[can_grow].max(initial=-np.inf))
        low = float(slack[can_shrink].min(initial=np.inf))
        if high - low < tol or left <= 0:
            return weights, slack, high, low
        if n_rows > WHOLE_ROWS:
            chosen = _working_set(slack, can_grow, can_shrink, chosen)
        store, places = (gram, chosen) if isinstance(gram, np.ndarray) else gram.load(chosen)
        part = gram if store is gram and len(chosen) == n_rows else _gather(store, places, chosen)
        own = weights[chosen]
        goal = tol if len(chosen) == n_rows else max(tol / 2, _SHARE_LEFT * (high - low))
        bounds = low_end[chosen], high_end[chosen]
        n_steps = _optimize(part, slack[chosen], own, *bounds, goal, left)
        if not n_steps:
            return weights, slack, high, low
        left -= n_steps
        change = own - weights[chosen]
        moved = np.flatnonzero(change)
        _subtract(store, places[moved], change[moved], slack)
        weights[chosen] = own


def _working_set(
    slack: np.ndarray, can_grow: np.ndarray, can_shrink: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Choose the rows of both ends of the slack, and fill up with the newest of the last set."""
    fresh = WORKING_ROWS // 4
    highest = np.argpartition(np.where(can_grow, -slack, np.inf), fresh)[:fresh]
    lowest = np.argpartition(np.where(can_shrink, slack, np.inf), fresh)[:fresh]
    new = np.union1d(highest, lowest)
    return np.concatenate([new, last[~np.isin(last, new)][: WORKING_ROWS - len(new)]])


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
    gram: np.ndarray,
    slack: np.ndarray,
    weights: np.ndarray,
    low_end: np.ndarray,
    high_end: np.ndarray,
    tol: float,
    max_steps: int,
) -> int:
    """Move ``weights`` and ``slack`` in place until violations are below ``tol``; count the steps.

    Each step moves weight between the row whose slack is the largest of those that may grow and the
    one of those that may shrink with which the objective falls the most.
    """
    n = len(slack)
    diagonal = np.empty(n)
    for k in range(n):
        diagonal[k] = gram[k, k]
    can_grow, can_shrink = weights < high_end, weights > low_end
    for step_number in range(max_steps):
        i, j, high, low = _choose(gram, diagonal, slack, can_grow, can_shrink)
        if j < 0 or high - low < tol:
            return step_number
        row, other = gram[i], gram[j]
        step = (high - slack[j]) / max(diagonal[i] + diagonal[j] - 2.0 * row[j], _FLAT)
        step = min(step, high_end[i] - weights[i], weights[j] - low_end[j])
        weights[i] += step
        weights[j] -= step
        if high_end[i] - weights[i] < _ROUNDING * (high_end[i] - low_end[i]):
            weights[i] = high_end[i]
        if weights[j] - low_end[j] < _ROUNDING * (high_end[j] - low_end[j]):
            weights[j] = low_end[j]
        for k in (i, j):
            can_grow[k], can_shrink[k] = weights[k] < high_end[k], weights[k] > low_end[k]
        for k in range(n):
            slack[k] -= step * (row[k] - other[k])
    return max_steps


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _subtract(gram: np.ndarray, rows: np.ndarray, factors: np.ndarray, sums: np.ndarray) -> None:
    """Subtract the product of ``factors`` and rows of a matrix from ``sums``, in place."""
    for start in range(0, len(sums), _COLUMNS):
        stop = min(start + _COLUMNS, len(sums))
        part = sums[start:stop]
        for r in range(len(rows)):
            row, factor = gram[rows[r], start:stop], factors[r]
            for k in range(len(part)):
                part[k] -= factor * row[k]


@njit(cache=True, nogil=True)
def _gather(gram: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return ``gram[np.ix_(rows, columns)]``.

    Each row is copied first: in order, memory is read several times as fast.
    """
    found, row = np.empty((len(rows), len(columns)), gram.dtype), np.empty_like(gram[0])
    for r in range(len(rows)):
        row[:] = gram[rows[r]]
        for c in range(len(columns)):
            found[r, c] = row[columns[c]]
    return found
