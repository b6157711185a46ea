"""Fitting machines on scaled rows, by way of a kernel matrix where memory allows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnsvm.svm.kernels import Kernel, gamma_unit, make_kernel, pairwise_base
from cnnsvm.svm.machine import BinaryMachine, Dual, build_machine, solve_dual

MEGABYTE = 10**6


@dataclass(frozen=True)
class TrainingRows:
    """Scaled rows to fit on, with their pairwise base where memory allows.

    libsvm on a precomputed kernel matrix is several times as quick as libsvm on rows of a
    thousand features, and every trial can reuse the base.
    """

    kernel_name: str
    rows: np.ndarray
    unit: float
    base: np.ndarray | None
    cache_size: float

    def solve(
        self, params: dict[str, Any], targets: np.ndarray
    ) -> tuple[Kernel, list[Dual | None]]:
        """Fit one SVM a column of ``targets``; None where a column has one value only.

        Parameters
        ----------
        params : dict
            Hyperparameters of a trial.
        targets : ndarray of bool, shape (n_rows, n_machines)
            True for the positive class of each machine.
        """
        kernel = make_kernel(self.kernel_name, params, self.unit)
        matrix = self.rows if self.base is None else kernel.transform(self.base)
        built_in = kernel if self.base is None else None
        duals = [
            solve_dual(matrix, target, params, built_in, self.cache_size) if fittable else None
            for target, fittable in zip(targets.T, has_both(targets), strict=True)
        ]
        return kernel, duals


def training_rows(name: str, Z: np.ndarray, cache_size: float, with_base: bool) -> TrainingRows:
    """Prepare scaled rows for fitting machines with the named kernel."""
    base = pairwise_base(name, Z, Z) if with_base else None
    return TrainingRows(name, Z, gamma_unit(Z), base, cache_size)


def fit_machines(
    name: str, Z: np.ndarray, targets: np.ndarray, params: dict[str, Any], cache_size: float
) -> tuple[list[BinaryMachine], list[Dual]]:
    """Fit one machine a column of ``targets`` on all rows.

    Parameters
    ----------
    name : {"linear", "rbf", "poly"}
        Name of the kernel.
    Z : ndarray of float64, shape (n_samples, n_features)
        Scaled rows.
    targets : ndarray of bool, shape (n_samples, n_machines)
        True for the positive class of each machine; both values occur in every column.
    params : dict
        Hyperparameters of a trial.
    cache_size : float
        Memory of the kernel matrix, in MB.

    Returns
    -------
    machines : list of BinaryMachine
        One a column.
    duals : list of Dual
        Their solutions.
    """
    with_base = 2 * Z.itemsize * len(Z) ** 2 <= cache_size * MEGABYTE
    training = training_rows(name, Z, cache_size, with_base)
    kernel, solved = training.solve(params, targets)
    duals = [dual for dual in solved if dual is not None]
    return [build_machine(kernel, Z, dual) for dual in duals], duals


def has_both(targets: np.ndarray) -> np.ndarray:
    """Say of each column whether both values occur in it."""
    return np.ptp(targets.astype(np.int8), axis=0) > 0
