"""The fitted model of one kernel: one machine a one-vs-rest problem, each calibrated."""

from dataclasses import dataclass

import numpy as np

from cnnsvm.svm.calibration import fit_platt
from cnnsvm.svm.machine import BinaryMachine


@dataclass(frozen=True)
class KernelModel:
    """Machines of one kernel with the Platt scaling of each.

    Parameters
    ----------
    machines : list of BinaryMachine
        One for two classes, else one a class.
    slope, offset : ndarray of float64, shape (n_machines,)
        The decision of a machine is ``slope * margin + offset``.
    """

    machines: list[BinaryMachine]
    slope: np.ndarray
    offset: np.ndarray

    def decide(self, Z: np.ndarray) -> np.ndarray:
        """Return the decisions of scaled rows, shape (n_samples, n_machines)."""
        return self.scaled(np.column_stack([machine.decide(Z) for machine in self.machines]))

    def scaled(self, margins: np.ndarray) -> np.ndarray:
        """Turn margins (n_samples, n_machines) into decisions of the same shape."""
        return self.slope * margins + self.offset


def one_vs_rest(codes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the machines' targets.

    Parameters
    ----------
    codes : ndarray of int, shape (n_samples,)
        Class indices.
    n_classes : int
        At least 2.

    Returns
    -------
    ndarray of bool, shape (n_samples, 1) or (n_samples, n_classes)
        One column, True for the second class, if there are two; else one column a class.
    """
    positive = np.array([1]) if n_classes == 2 else np.arange(n_classes)
    return codes[:, np.newaxis] == positive


def platt_columns(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit the Platt scaling of every machine on its out-of-fold scores.

    Parameters
    ----------
    scores : ndarray of float64, shape (n_samples, n_machines)
        NaN where a row was never held out.
    targets : ndarray of bool, shape (n_samples, n_machines)
        True for the positive class of each machine.

    Returns
    -------
    slope, offset : ndarray of float64, shape (n_machines,)
        NaN for a machine whose finite scores are all of one class.
    """
    slope, offset = np.full((2, targets.shape[1]), np.nan)
    for k in range(targets.shape[1]):
        finite = np.isfinite(scores[:, k])
        if len(np.unique(targets[finite, k])) == 2:
            slope[k], offset[k] = fit_platt(scores[finite, k], targets[finite, k])
    return slope, offset
