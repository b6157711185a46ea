"""Kernel matrices that a search shares, or of which rows are computed when a solver asks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.utils import gen_batches
from sklearn.utils.class_weight import compute_class_weight

from cnnsvm.data.splits import Fold
from cnnsvm.svm import smo
from cnnsvm.svm.machines import (
    MEGABYTE,
    Dual,
    Kernel,
    gamma_unit,
    has_both,
    make_kernel,
    to_base,
    weight_norm,
)
from cnnsvm.svm.smo import Solution, solve

#: Rows of a matrix that a thread transforms at a time.
_TILE = 256


class SharedGram:
    """The kernel matrices of some rows, for all trials and machines.

    What they are computed from is kept, float32 of (n_rows, n_rows).

    Parameters
    ----------
    kernel_name : str
    rows : ndarray of shape (n_rows, n_features)
        Scaled.
    fitted : ndarray of int
        Numbers of the rows that gamma is relative to, see `cnnsvm.svm.machines.gamma_unit`.
    n_threads : int
        For the matrix of a trial.
    """

    def __init__(
        self, kernel_name: str, rows: np.ndarray, fitted: np.ndarray, n_threads: int = 1
    ) -> None:
        self.kernel_name, self.n_threads = kernel_name, n_threads
        self.unit = gamma_unit(rows[fitted])
        single, squares = _single(kernel_name, rows, fitted)
        self.base = single @ single.T  # half the work of a product that is not symmetric

        def finish(tile: slice) -> None:
            to_base(kernel_name, self.base[tile], squares[tile], squares)

        self._tile(finish)

    def matrix(self, params: dict[str, Any], out: np.ndarray | None = None) -> np.ndarray:
        """Return the kernel matrix of a trial, float32 (n_rows, n_rows), in ``out`` if given."""
        kernel = make_kernel(self.kernel_name, params, self.unit)
        gram = np.empty_like(self.base) if out is None else out

        def transform(tile: slice) -> None:
            kernel.transform(self.base[tile], out=gram[tile])

        self._tile(transform)
        return gram

    def _tile(self, work: Callable[[slice], None]) -> None:
        with ThreadPoolExecutor(self.n_threads) as pool:
            list(pool.map(work, gen_batches(len(self.base), _TILE)))


class KernelRows:
    """The rows of a kernel matrix that is too large to hold; those used last are kept.

    Rows are computed in blocks by a matrix product in single precision, for a solver that works on
    many at a time (Z. Wen et al., "ThunderSVM: a fast SVM library on GPUs and CPUs", JMLR 19,
    2018).

    Parameters
    ----------
    kernel : Kernel
    rows : ndarray of shape (n_rows, n_features)
        Scaled.
    fitted : ndarray of int
        Numbers of the rows that are not held out.
    cache_size : float
        Memory in MB for what is kept; a working set of the solver is kept in any case.
    """

    def __init__(
        self, kernel: Kernel, rows: np.ndarray, fitted: np.ndarray, cache_size: float
    ) -> None:
        self.kernel = kernel
        self.rows, self.squares = _single(kernel.name, rows, fitted)
        n_rows = len(rows)
        fitting = int(cache_size * MEGABYTE // (np.float32().itemsize * n_rows))
        least = n_rows if n_rows <= smo.WHOLE_ROWS else smo.WORKING_ROWS
        capacity = min(n_rows, max(least, fitting))
        self._kept = np.empty((capacity, n_rows), np.float32)
        self._place = np.full(n_rows, -1)  # in _kept, of each row
        self._number = np.full(capacity, -1)  # of the row in each place
        self._used = np.zeros(capacity, int)  # when last
        self._clock = 0

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a matrix whose rows include those asked for, and their places in it."""
        self._clock += 1
        places = self._place[numbers]
        self._used[places[places >= 0]] = self._clock
        missing = numbers[places < 0]
        free = np.argsort(self._used, kind="stable")[: len(missing)]
        self._place[self._number[free][self._number[free] >= 0]] = -1
        self._place[missing], self._number[free], self._used[free] = free, missing, self._clock
        self._kept[free] = self._compute(missing)
        return self._kept, self._place[numbers]

    def _compute(self, numbers: np.ndarray) -> np.ndarray:
        block = self.rows[numbers] @ self.rows.T
        to_base(self.kernel.name, block, self.squares[numbers], self.squares)
        return self.kernel.transform(block, out=block)

    def diagonal(self) -> np.ndarray:
        """Return the kernel of each row with itself, float (n_rows,)."""
        return self.kernel.diagonal(self.rows)


def _single(
    kernel_name: str, rows: np.ndarray, fitted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows in single precision, and their squared lengths.

    Where distances count, they are centred by the fitted ones, so that these lose fewer digits.
    """
    single = np.empty(rows.shape, np.float32)
    centre = rows[fitted].mean(axis=0, dtype=np.float64) if kernel_name == "rbf" else 0.0
    for block in gen_batches(len(rows), _TILE):
        single[block] = rows[block] - centre
    return single, np.einsum("ij,ij->i", single, single)


def fit_fold(
    gram: np.ndarray | KernelRows,
    fold: Fold,
    targets: np.ndarray,
    params: dict[str, Any],
    starts: Sequence[Solution | None] | None = None,
) -> list[Solution | None]:
    """Fit a machine a column of ``targets`` to the training rows of a fold.

    ``gram`` and ``targets``, bool (n_rows, n_machines), are of all rows. ``starts`` are what this
    returned of another fold. None stands for a machine whose training rows have one class.
    """
    train, known = fold[0], starts or [None] * targets.shape[1]
    both = has_both(targets[train])
    return [
        solve(gram, target, largest_weights(target, train, params), start=start) if own else None
        for target, own, start in zip(targets.T, both, known, strict=True)
    ]


def score_fold(
    gram: np.ndarray | KernelRows,
    fold: Fold,
    targets: np.ndarray,
    params: dict[str, Any],
    as_distances: bool = False,
    starts: Sequence[Solution | None] | None = None,
) -> np.ndarray:
    """Fit the machines of `fit_fold`, and score the rows that are held out.

    They have no weight, so what the solver knows of their gradient is their decision. Returns
    margins, or signed distances from the plane through the centre of the training rows, float64
    (n_test, n_machines); NaN where the training rows have one class.
    """
    train, test = fold
    scores = np.full((len(test), targets.shape[1]), np.nan)
    for k, found in enumerate(fit_fold(gram, fold, targets, params, starts)):
        if found is None:
            continue
        scores[:, k] = found.margins[test]
        if as_distances:
            scores[:, k] -= found.margins[train].mean()
            # the intercept drops out: weights sum to 0
            scores[:, k] /= weight_norm(found.weights, found.margins, gram.diagonal())
    return scores


def fit_rows(
    kernel: Kernel,
    Z: np.ndarray,
    targets: np.ndarray,
    params: dict[str, Any],
    cache_size: float,
) -> list[Dual]:
    """Fit a machine a column of ``targets``, bool (n_rows, n_machines), to all scaled rows.

    Kernels are computed when needed. The arguments are those of
    `cnnsvm.svm.machines.fit_machines`.
    """
    gram = KernelRows(kernel, Z, np.arange(len(Z)), cache_size)
    return [_fit_dual(gram, target, params) for target in targets.T]


def _fit_dual(gram: KernelRows, target: np.ndarray, params: dict[str, Any]) -> Dual:
    box = largest_weights(target, np.arange(len(target)), params)
    found = solve(gram, target, box, warn=True)
    support = np.flatnonzero(found.weights)
    norm = weight_norm(found.weights, found.margins - found.intercept, gram.diagonal())
    centre = float(found.margins.mean())
    return Dual(support, found.weights[support], found.intercept, centre, norm)


def largest_weights(
    target: np.ndarray, train: Sequence[int] | np.ndarray, params: dict[str, Any]
) -> np.ndarray:
    """Return C times the weight of its class for each training row, and 0 for the others."""
    own = target[train].astype(int)
    share = compute_class_weight(params["class_weight"], classes=np.array([0, 1]), y=own)
    box = np.zeros(len(target))
    box[train] = params["C"] * share[own]
    return box
