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
#: What is added to the slack of a row that may not move, and rows that are compared at once.
_FAR, _LANES = 1e30, 64
#: Share of the violation in a working set that is left to the next.
_SHARE_LEFT = 0.1
#: No number is NaN or infinite.
_FAST = {"contract", "reassoc", "nsz", "nnan", "ninf"}
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
    start: Solution | None = None,
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
    start : Solution, optional
        Of the same matrix and classes where other rows were held out: of a fold, the next ones are
        found in fewer steps. Needs the whole matrix.

    Returns
    -------
    Solution
        Weights of True rows are positive.

    References
    ----------
    R.-E. Fan, P.-H. Chen and C.-J. Lin, "Working set selection using second order information for
    training support vector machines", JMLR 6, 2005; T. Joachims, "Making large-scale SVM learning
    practical", 1998, on working sets; D. DeCoste and K. Wagstaff, "Alpha seeding for support vector
    machines", KDD 2000, on starts.
    """
    signs, box = np.where(target, 1.0, -1.0), np.asarray(box, float)
    ends = np.minimum(0.0, signs * box), np.maximum(0.0, signs * box)
    weights, slack = np.zeros(len(signs)), signs.copy()
    if start is not None and isinstance(gram, np.ndarray):
        weights = _refill(start, signs, ends)
        change = weights - start.weights
        moved = np.flatnonzero(change)
        slack += start.intercept - start.margins
        _subtract(gram, moved, change[moved], slack)
    high, low = _descend(gram, weights, slack, ends, tol)
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
    weights: np.ndarray,
    slack: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    tol: float,
) -> tuple[float, float]:
    """Move weights, and slack, signs less the sums of kernels; return its extremes where they may.

    The weight of a row lies between its ``ends``.
    """
    (low_end, high_end), left = ends, max(MIN_ITER_LIMIT, 100 * len(weights))
    chosen = np.empty(0, int)
    if len(weights) <= WHOLE_ROWS:
        _optimize(_whole(gram), slack, weights, low_end, high_end, tol, left)
        left = 0
    while True:
        can_grow, can_shrink = weights < high_end, weights > low_end
        high = float(slack[can_grow].max(initial=-np.inf))
        low = float(slack[can_shrink].min(initial=np.inf))
        if high - low < tol or left <= 0:
            return high, low
        chosen = _working_set(slack, can_grow, can_shrink, chosen)
        store, places = (gram, chosen) if isinstance(gram, np.ndarray) else gram.load(chosen)
        own, goal = weights[chosen], max(tol / 2, _SHARE_LEFT * (high - low))
        part, bounds = _gather(store, places, chosen), (low_end[chosen], high_end[chosen])
        n_steps = _optimize(part, slack[chosen], own, *bounds, goal, left)
        if not n_steps:
            return high, low
        left -= n_steps
        change = own - weights[chosen]
        moved = np.flatnonzero(change)
        _subtract(store, places[moved], change[moved], slack)
        weights[chosen] = own


def _whole(gram: "np.ndarray | KernelRows") -> np.ndarray:
    """Return the matrix of all rows in their order."""
    if isinstance(gram, np.ndarray):
        return gram
    every = np.arange(len(gram))
    store, places = gram.load(every)
    return store if np.array_equal(places, every) else _gather(store, places, every)


def _refill(start: Solution, signs: np.ndarray, ends: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return weights between ``ends`` that sum to 0, near those of a solution.

    What rows lose that are held out now is given to those without weight, the worst judged first:
    those that were held out before.
    """
    weights = np.clip(start.weights, *ends)
    room = np.where(weights == 0, ends[1] - ends[0], 0.0)
    order = np.argsort(signs * start.margins, kind="stable")
    kinds = [order[signs[order] == sign] for sign in (1.0, -1.0)]
    have = [float(np.abs(weights[rows]).sum()) for rows in kinds]
    most = [own + float(room[rows].sum()) for own, rows in zip(have, kinds, strict=True)]
    goal = min(float(start.weights[kinds[0]].sum()), *most)
    if goal < max(have):  # one class has too few rows left
        return np.zeros(len(signs))
    for sign, own, rows in zip((1.0, -1.0), have, kinds, strict=True):
        before = np.cumsum(room[rows]) - room[rows]
        weights[rows] += sign * np.clip(goal - own - before, 0.0, room[rows])
    return weights


def _working_set(
    slack: np.ndarray, can_grow: np.ndarray, can_shrink: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Choose the rows of both ends of the slack, and fill up with the newest of the last set."""
    fresh = WORKING_ROWS // 4
    highest = np.argpartition(np.where(can_grow, -slack, np.inf), fresh)[:fresh]
    lowest = np.argpartition(np.where(can_shrink, slack, np.inf), fresh)[:fresh]
    new = np.union1d(highest, lowest)
    return np.concatenate([new, last[~np.isin(last, new)][: WORKING_ROWS - len(new)]])


@njit(cache=True, nogil=True, fastmath=_FAST)
def _move(
    slack: np.ndarray,
    row: np.ndarray,
    other: np.ndarray,
    step: float,
    grow: np.ndarray,
    best: np.ndarray,
) -> int:
    """Move weight from one row to another; return the row of the largest slack that may grow.

    ``best`` takes the largest of every `_LANES`-th row: a processor compares so many at a time.
    """
    best[:] = -_FAR
    for start in range(0, len(slack), _LANES):
        stop = start + _LANES
        part, ends = slack[start:stop], grow[start:stop]
        first, second = row[start:stop], other[start:stop]
        for k in range(len(part)):
            part[k] += step * second[k] - step * first[k]  # a float32 less another loses digits
            value = part[k] + ends[k]
            best[k] = value if value > best[k] else best[k]
    i = lane = int(best.argmax())
    for k in range(lane, len(slack), _LANES):
        if slack[k] + grow[k] > slack[i] + grow[i]:
            i = k
    return i


@njit(cache=True, nogil=True, fastmath=_FAST)
def _partner(
    row: np.ndarray,
    diagonal: np.ndarray,
    own: float,
    slack: np.ndarray,
    shrink: np.ndarray,
    high: float,
    best: np.ndarray,
    lowest: np.ndarray,
) -> tuple[int, float]:
    """Return the row with which a step gains the most, and the smallest slack that may shrink.

    ``row`` and ``own`` are kernels of the row that grows, whose slack is ``high``. ``best`` and
    ``lowest`` take gain and slack of lanes, as in `_move`.
    """
    best[:], lowest[:] = 0.0, _FAR
    for start in range(0, len(slack), _LANES):
        stop = start + _LANES
        part, ends = slack[start:stop], shrink[start:stop]
        kernels, curved = row[start:stop], diagonal[start:stop]
        for k in range(len(part)):
            value = part[k] + ends[k]
            lowest[k] = value if value < lowest[k] else lowest[k]
            gain = _gain(high - value, own + curved[k] - 2.0 * kernels[k])
            best[k] = gain if gain > best[k] else best[k]
    j = lane = int(best.argmax())
    most = 0.0
    for k in range(lane, len(slack), _LANES):
        gain = _gain(high - slack[k] - shrink[k], own + diagonal[k] - 2.0 * row[k])
        if gain > most:
            most, j = gain, k
    return j, lowest.min()


@njit(inline="always")
def _gain(gap: float, curvature: float) -> float:
    gap = gap if gap > 0.0 else 0.0
    return gap * gap / (curvature if curvature > _FLAT else _FLAT)


@njit(cache=True, nogil=True, fastmath=_FAST)
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
    diagonal = np.empty(len(slack))
    for k in range(len(slack)):
        diagonal[k] = gram[k, k]
    best, lowest = np.empty(_LANES), np.empty(_LANES)
    grow = np.where(weights < high_end, 0.0, -_FAR)
    shrink = np.where(weights > low_end, 0.0, _FAR)
    i = _move(slack, gram[0], gram[0], 0.0, grow, best)
    for step_number in range(max_steps):
        row, high = gram[i], slack[i] + grow[i]
        j, low = _partner(row, diagonal, diagonal[i], slack, shrink, high, best, lowest)
        if high - low < tol:
            return step_number
        other = gram[j]
        step = (high - slack[j]) / max(diagonal[i] + diagonal[j] - 2.0 * row[j], _FLAT)
        step = min(step, high_end[i] - weights[i], weights[j] - low_end[j])
        weights[i] += step
        weights[j] -= step
        if high_end[i] - weights[i] < _ROUNDING * (high_end[i] - low_end[i]):
            weights[i] = high_end[i]
        if weights[j] - low_end[j] < _ROUNDING * (high_end[j] - low_end[j]):
            weights[j] = low_end[j]
        for k in (i, j):
            grow[k] = 0.0 if weights[k] < high_end[k] else -_FAR
            shrink[k] = 0.0 if weights[k] > low_end[k] else _FAR
        i = _move(slack, row, other, step, grow, best)
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
