"""Fitting machines on scaled rows, by way of a kernel matrix where memory allows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnsvm.svm.kernels import Kernel, gamma_unit, make_kernel, pairwise_base
from cnnsvm.svm.machine import BinaryMachine, Dual, build_machine, solve_dual
from cnnsvm.svm.nystroem import choose_landmarks, solve_on_landmarks

MEGABYTE = 10**6


@dataclass(frozen=True)
class TrainingRows:
    """Scaled rows to fit on, with their pairwise base where memory allows.

    libsvm on a precomputed kernel matrix is several times as quick as libsvm on rows of a
    thousand features, and every trial can reuse the base. With ``landmarks``, indices of rows, the
    base is that of all rows with these, and machines are approximate (`cnnsvm.svm.nystroem`).
    """

    kernel_name: str
    rows: np.ndarray
    unit: float
    base: np.ndarray | None
    cache_size: float
    landmarks: np.ndarray | None = None

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
        if self.landmarks is not None:
            return kernel, self._solve_on_landmarks(self.landmarks, kernel, params, targets)
        matrix = self.rows if self.base is None else kernel.transform(self.base)
        built_in = kernel if self.base is None else None
        duals = [
            solve_dual(matrix, target, params, built_in, self.cache_size) if fittable else None
            for target, fittable in zip(targets.T, has_both(targets), strict=True)
        ]
        return kernel, duals

    def _solve_on_landmarks(
        self, landmarks: np.ndarray, kernel: Kernel, params: dict[str, Any], targets: np.ndarray
    ) -> list[Dual | None]:
        base = self.base
        if base is None:
            base = pairwise_base(self.kernel_name, self.rows, self.rows[landmarks])
        fittable = zip(targets.T, has_both(targets), strict=True)
        wanted = [target if both else None for target, both in fittable]
        return solve_on_landmarks(kernel, base, landmarks, wanted, params)


def training_rows(
    name: str,
    Z: np.ndarray,
    cache_size: float,
    with_base: bool,
    landmarks: np.ndarray | None = None,
) -> TrainingRows:
    """Prepare scaled rows for fitting machines with the named kernel."""
    others = Z if landmarks is None else Z[landmarks]
    base = pairwise_base(name, Z, others) if with_base else None
    return TrainingRows(name, Z, gamma_unit(Z), base, cache_size, landmarks)


def fit_machines(
    name: str,
    Z: np.ndarray,
    targets: np.ndarray,
    params: dict[str, Any],
    cache_size: float,
    nystroem: int | None = None,
    seed: int = 0,
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
    nystroem : int or None
        Landmarks of an approximate machine; None fits exact ones.
    seed : int
        Which rows are landmarks.

    Returns
    -------
    machines : list of BinaryMachine
        One a column.
    duals : list of Dual
        Their solutions.
    """
    landmarks = choose_landmarks(len(Z), nystroem, seed)
    with_base = 2 * Z.itemsize * len(Z) ** 2 <= cache_size * MEGABYTE and landmarks is None
    training = training_rows(name, Z, cache_size, with_base, landmarks)
    kernel, solved = training.solve(params, targets)
    duals = [dual for dual in solved if dual is not None]
    return [build_machine(kernel, Z, dual) for dual in duals], duals


def has_both(targets: np.ndarray) -> np.ndarray:
    """Say of each column whether both values occur in it."""
    return np.ptp(targets.astype(np.int8), axis=0) > 0
