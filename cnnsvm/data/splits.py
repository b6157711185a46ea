"""Groups and folds: the one place that decides which images may not be separated."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, column_or_1d

Fold = tuple[np.ndarray, np.ndarray]


def encode_groups(groups: Sequence[Any] | np.ndarray | None, n_samples: int) -> np.ndarray:
    """Number the groups from 0, int64 (n_samples,); without groups every sample is its own.

    Groups are any hashable labels, such as ``source_id``. A ValueError says that there are not
    ``n_samples`` of them, or one is missing.
    """
    if groups is None:
        return np.arange(n_samples)
    labels = column_or_1d(np.asarray(groups, dtype=object))
    check_consistent_length(labels, np.empty(n_samples))
    from pandas import isna  # half a second, of which who judges an image needs nothing

    missing = [i for i, label in enumerate(labels) if isna(label)]
    if missing:
        raise ValueError(
            f"groups[{missing[0]}] is missing ({labels[missing[0]]!r}); every sample needs "
            "a group. Give an image without relatives a group of its own, such as its path."
        )
    return np.unique(labels.astype(str), return_inverse=True)[1].astype(np.int64)


def grouped_folds(
    y: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    n_splits: int,
    random_state: int | None = 0,
) -> list[Fold]:
    """Split samples into stratified folds that never separate a group.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels; the folds keep their proportions as far as the groups allow.
    groups : array-like of shape (n_samples,) or None
        Group of each sample; None makes each sample its own group.
    n_splits : int
        Number of folds, at least 2 and at most the number of groups of any class.
    random_state : int or None
        Seed of the shuffle.

    Returns
    -------
    list of (train, test)
        Integer index arrays; the test parts are disjoint and cover every sample.

    Raises
    ------
    ValueError
        If there are fewer groups than folds, overall or in one class.
    """
    labels = np.asarray(y)
    codes = encode_groups(groups, len(labels))
    if n_splits < 2:
        raise ValueError(f"n_splits must be at least 2, got {n_splits!r}.")
    for label in np.unique(labels):
        n_groups = len(np.unique(codes[labels == label]))
        if n_groups < n_splits:
            raise ValueError(
                f"class {np.asarray(label).item()!r} has {n_groups} group(s) but "
                f"{n_splits} folds were asked for; each fold needs at least one. Add sources or "
                "lower the number of folds."
            )
    from cnnsvm.data.stratified import QuickStratifiedGroupKFold  # half a second

    splitter = QuickStratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    return list(splitter.split(np.zeros((len(labels), 1)), labels, codes))
