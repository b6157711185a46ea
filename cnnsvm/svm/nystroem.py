"""Support vector machines on more rows than a kernel matrix could hold, by way of landmarks.

The Nystroem method (Williams & Seeger, NIPS 2000) stands for a kernel by features: those of a row
``x`` are ``k(x, L) K**(-1/2)``, with some rows ``L`` as landmarks and their kernel matrix ``K``. A
linear machine on them, which is fitted in the primal, is a kernel machine whose support vectors
are the landmarks, and is kept and saved as one.
"""

import os

import numpy as np
from sklearn.svm import LinearSVC

from cnnsvm.svm.kernels import Kernel
from cnnsvm.svm.machine import Dual

#: Share of the largest eigenvalue below which a direction is rounding, and is left out.
MIN_EIGENVALUE = 1e-10
#: Matrices of rows by landmarks that are alive at once: squared distances, kernel, features.
N_COPIES = 3


def choose_landmarks(n_rows: int, n_landmarks: int | None, seed: int) -> np.ndarray | None:
    """Draw which rows are landmarks.

    Returns
    -------
    ndarray of int64, shape (n_landmarks,), or None
        Sorted; None, which stands for an exact machine, if there are no more rows than that.
    """
    if n_landmarks is None or n_rows <= n_landmarks:
        return None
    check_memory(n_rows, n_landmarks)
    return np.sort(np.random.default_rng(seed).choice(n_rows, n_landmarks, replace=False))


def check_memory(n_rows: int, n_landmarks: int, available: int | None = None) -> None:
    """Refuse a fit that would not fit into the machine.

    Parameters
    ----------
    n_rows, n_landmarks : int
    available : int or None
        Bytes; None takes half of the machine's memory.

    Raises
    ------
    MemoryError
        If the matrices of rows by landmarks take more.
    """
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = pages // 2 if available is None else available
    needed = N_COPIES * 8 * n_rows * n_landmarks
    if needed > limit:
        raise MemoryError(
            f"nystroem={n_landmarks} landmarks and {n_rows:,} rows take {needed / 1e9:.1f} GB, "
            f"more than the {limit / 1e9:.1f} GB that a fit may use here. Take at most "
            f"{limit // (N_COPIES * 8 * n_rows)} landmarks."
        )


def solve_on_landmarks(
    kernel: Kernel,
    base: np.ndarray,
    landmarks: np.ndarray,
    targets: list[np.ndarray | None],
    params: dict[str, object],
) -> list[Dual | None]:
    """Fit linear machines with squared hinge loss on the features of landmarks.

    Parameters
    ----------
    kernel : Kernel
    base : ndarray of float64, shape (n_rows, n_landmarks)
        What the kernel needs of rows and landmarks (`cnnsvm.svm.kernels.pairwise_base`).
    landmarks : ndarray of int, shape (n_landmarks,)
        Which rows they are.
    targets : list of (ndarray of bool, shape (n_rows,)) or None
        True for the positive class of each machine; None gives None.
    params : dict
        ``C`` and ``class_weight``; other keys are ignored.

    Returns
    -------
    list of Dual or None
        With the landmarks as their support.
    """
    gram = kernel.transform(base)
    root = inverse_root(gram[landmarks])
    features = gram @ root
    duals: list[Dual | None] = []
    for target in targets:
        if target is None:
            duals.append(None)
            continue
        svc = LinearSVC(C=params["C"], class_weight=params["class_weight"], dual=False, tol=1e-3)
        svc.fit(features, target)
        weight, intercept = svc.coef_[0], float(svc.intercept_[0])
        centre = float((features @ weight).mean()) + intercept
        norm = float(np.linalg.norm(weight)) or 1.0
        duals.append(Dual(landmarks, root @ weight, intercept, centre, norm))
    return duals


def inverse_root(matrix: np.ndarray) -> np.ndarray:
    """Return the pseudo-inverse square root of a positive semidefinite matrix (m, m)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > MIN_EIGENVALUE * max(values[-1], 0.0)
    return (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T
