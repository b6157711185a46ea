"""What :class:`cnnsvm.svm.TunedSVC` accepts."""

from collections.abc import Callable
from numbers import Integral, Real
from os import PathLike
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from cnnsvm.svm.kernels import KERNELS


def kernel_names(kernel: Any) -> list[str]:
    """Return the names in a ``kernel`` parameter, which is one name or a tuple of them.

    Raises
    ------
    ValueError
        If there is no name, an unknown one, or one twice.
    """
    names = [kernel] if isinstance(kernel, str) else kernel
    valid = isinstance(names, tuple | list) and len(names) > 0
    if not valid or any(name not in KERNELS for name in names) or len(set(names)) < len(names):
        raise ValueError(
            f"kernel must be one of {KERNELS} or a tuple of different ones, got {kernel!r}."
        )
    return list(names)


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not _is_bool(value) and int(value) >= least


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "voting": (
        lambda value: value in (None, "soft"),
        "None (the best kernel wins) or 'soft'",
    ),
    "n_trials": (
        lambda value: _is_integer(value, 1),
        "an integer of at least 1; 1 evaluates the default hyperparameters only",
    ),
    "cv": (
        lambda value: _is_integer(value, 2),
        "an integer number of folds, at least 2; pass groups to fit to keep rows together",
    ),
    "calibrate": (_is_bool, "a bool"),
    "scale": (_is_bool, "a bool"),
    "verbose": (_is_bool, "a bool"),
    "cache_size": (
        lambda value: isinstance(value, Real) and not _is_bool(value) and 0 < float(value) < np.inf,
        "a positive number of megabytes",
    ),
    "nystroem": (
        lambda value: value is None or _is_integer(value, 1),
        "None (exact) or a number of landmarks, such as 1000",
    ),
    "storage": (
        lambda value: value is None or isinstance(value, str | PathLike),
        "None or the path of a journal file",
    ),
}


def check_params(params: dict[str, Any]) -> None:
    """Check the parameters of TunedSVC.

    Raises
    ------
    ValueError
        If one is out of its range; the message names the parameter, its value and the rule.
    """
    kernel_names(params["kernel"])
    for name, (is_valid, rule) in RULES.items():
        if not is_valid(params[name]):
            raise ValueError(f"{name} must be {rule}; got {params[name]!r}.")
    if params["voting"] == "soft" and not params["calibrate"]:
        raise ValueError(
            "voting='soft' averages probabilities, but calibrate=False makes none. "
            "Set calibrate=True or voting=None."
        )
    check_random_state(params["random_state"])


def check_finite(X: np.ndarray) -> None:
    """Check that embeddings are finite.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_features)
        Embeddings.

    Raises
    ------
    ValueError
        If an element is NaN or infinite; the message names the first one.
    """
    # The sum is finite unless an element is not (or it overflows): a pass without a mask.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):
            return
    bad = np.argwhere(~np.isfinite(X))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"X[{row}, {column}] is {X[row, column]}, but embeddings must not contain NaN or "
            f"inf. Drop row {row} or look at the image it was made from."
        )


def check_classes(classes: np.ndarray) -> None:
    """Check that there is something to tell apart.

    Raises
    ------
    ValueError
        If there are fewer than two classes.
    """
    if len(classes) < 2:
        raise ValueError(
            f"y contains only one class, {classes.tolist()[0]!r}, but a classifier needs at "
            "least 2 classes. Add rows of another class."
        )


def calibration_rows(calibration: np.ndarray | None, codes: np.ndarray) -> np.ndarray:
    """Find the rows to calibrate on: the wanted ones if every class is among them, else all.

    Parameters
    ----------
    calibration : array-like of bool, shape (n_samples,), or None
    codes : ndarray of int, shape (n_samples,)
        Class of each row.

    Returns
    -------
    ndarray of bool, shape (n_samples,)

    Raises
    ------
    ValueError
        If it is not one boolean a row.
    """
    if calibration is None:
        return np.ones(len(codes), dtype=bool)
    rows = np.asarray(calibration)
    if rows.dtype != np.bool_ or rows.shape != codes.shape:
        raise ValueError(
            f"calibration must be bool of shape {codes.shape}, one a row, got {rows.dtype} "
            f"{rows.shape}. Pass None to calibrate on all rows."
        )
    if len(np.unique(codes[rows])) < len(np.unique(codes)):
        return np.ones(len(codes), dtype=bool)
    return rows
