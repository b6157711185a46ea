"""Auxiliary labels: finer classes that a network is trained on, each within one of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class AuxiliaryLabels:
    """What a network is trained on instead of the classes, such as "cat, fake" instead of "fake".

    A network that also learns what an image shows tells real from fake better (multi-task
    learning: Caruana, Machine Learning 28, 1997).

    Parameters
    ----------
    codes : ndarray of int, shape (n_samples,)
        Auxiliary label of each image, 0 .. n_labels - 1.
    parents : tuple of int, length n_labels
        Class of each auxiliary label.
    """

    codes: np.ndarray
    parents: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray, codes: np.ndarray) -> "AuxiliaryLabels":
        """Number auxiliary labels, and find the class of each.

        Parameters
        ----------
        labels : ndarray, shape (n_samples,)
        codes : ndarray of int, shape (n_samples,)
            Class of each image.

        Raises
        ------
        ValueError
            If images of one auxiliary label are of several classes.
        """
        names, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
        parents = codes[first]
        astray = np.flatnonzero(parents[numbers] != codes)
        if len(astray):
            image, label = astray[0], numbers[astray[0]]
            raise ValueError(
                f"auxiliary_labels: {names[label].item()!r} is in two classes of y, as images "
                f"{first[label]} and {image} show. An auxiliary label lies within one class, such "
                "as 'cat, fake'."
            )
        return cls(numbers, tuple(parents.tolist()))


def collapse(logits: torch.Tensor, parents: Sequence[int] | None) -> torch.Tensor:
    """Add up the probabilities of each class's auxiliary labels.

    Parameters
    ----------
    logits : float tensor, shape (N, n_labels)
    parents : sequence of int, length n_labels, or None
        Class of each auxiliary label; None leaves the logits as they are.

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
