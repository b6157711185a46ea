"""Finer classes that a network is taught, each within one of the classes that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class FineClasses:
    """What a network is taught instead of the classes, such as "cat, fake" instead of "fake".

    Whoever knows what a picture shows can tell more from how it shows it (multi-task learning:
    Caruana, Machine Learning 28, 1997).

    Parameters
    ----------
    codes : ndarray of int, shape (n_samples,)
        Fine class of each image, 0 .. n_fine - 1.
    parents : tuple of int, length n_fine
        Class of each fine class.
    """

    codes: np.ndarray
    parents: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray, codes: np.ndarray) -> "FineClasses":
        """Number fine labels, and find the class of each.

        Parameters
        ----------
        labels : ndarray, shape (n_samples,)
        codes : ndarray of int, shape (n_samples,)
            Class of each image.

        Raises
        ------
        ValueError
            If images of one fine label are of several classes.
        """
        names, first, fine = np.unique(labels, return_index=True, return_inverse=True)
        parents = codes[first]
        astray = np.flatnonzero(parents[fine] != codes)
        if len(astray):
            raise ValueError(
                f"fine_labels: {names[fine[astray[0]]].item()!r} is in two classes of y, as image "
                f"{first[fine[astray[0]]]} and image {astray[0]} have it. A fine label lies within "
                "one class, such as 'cat, fake'."
            )
        return cls(fine, tuple(parents.tolist()))


def collapse(logits: torch.Tensor, parents: Sequence[int] | None) -> torch.Tensor:
    """Add up the probabilities of each class's fine classes.

    Parameters
    ----------
    logits : float tensor, shape (N, n_fine)
    parents : sequence of int, length n_fine, or None
        Class of each fine class; None leaves the logits as they are.

    Returns
    -------
    float tensor, shape (N, n_classes)
        Logits of the classes.
    """
    if parents is None:
        return logits
    member = torch.tensor(parents, device=logits.device)
    parts = [logits[:, member == k].logsumexp(dim=1) for k in range(max(parents) + 1)]
    return torch.stack(parts, dim=1)
