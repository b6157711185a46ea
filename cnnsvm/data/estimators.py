"""What the estimators share: the inputs they accept, and how `fit` installs what it learnt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from cnnsvm.data.images import check_images

#: Names of the class of untouched images, wherever it is in the order of the classes.
REAL_NAMES = ("real", "original", "untouched", "authentic", "genuine")


def check_labelled_images(
    X: Any, y: Any, groups: Any
) -> tuple[Sequence[Any], np.ndarray, np.ndarray | None]:
    """Line up images, labels and groups; a manifest brings its own of the latter two.

    Returns a sequence, an ndarray of shape (n_samples,), and an ndarray of that shape or None. A
    ValueError says that lengths differ, labels are missing, or there is only one class.
    """
    images = check_images(X)
    if hasattr(X, "columns"):
        y = X["label"] if y is None and "label" in X else y
        groups = X["source_id"] if groups is None and "source_id" in X else groups
    if y is None:
        raise ValueError("fit requires y to be passed, but the target y is None.")
    labels = column_or_1d(np.asarray(y))
    check_classification_targets(labels)
    check_consistent_length(images, labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"y contains only one class, {classes.tolist()!r}; a detector needs real and "
            "fake images."
        )
    if groups is not None:
        groups = np.asarray(groups)
        check_consistent_length(images, groups)
    return images, labels, groups


def check_auxiliary_labels(auxiliary_labels: Any, y: np.ndarray) -> np.ndarray | None:
    """Line auxiliary labels up with the labels; None stays None.

    A ValueError is raised if lengths differ or one is missing.
    """
    if auxiliary_labels is None:
        return None
    labels = column_or_1d(np.asarray(auxiliary_labels))
    check_consistent_length(labels, y)
    from pandas import isna  # half a second

    missing = np.flatnonzero(isna(labels))
    if len(missing):
        raise ValueError(
            f"auxiliary_labels[{missing[0]}] is missing ({labels[missing[0]]!r}); every image "
            "needs one. Give the others the name of their class."
        )
    return labels


def real_class(classes: Sequence[Any] | np.ndarray) -> int:
    """Find the class of untouched images: the one of a usual name, else the first."""
    names = [str(label).lower() for label in np.asarray(classes).tolist()]
    return next((k for k, name in enumerate(names) if name in REAL_NAMES), 0)


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Return an integer as it is; draw a seed from a generator or None."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def install(estimator: BaseEstimator, **learnt: Any) -> None:
    """Replace all that an earlier fit learnt by what this one did, in one step."""
    kept = {k: v for k, v in vars(estimator).items() if not k.endswith("_") or k.startswith("_")}
    estimator.__dict__ = kept | learnt
