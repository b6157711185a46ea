"""The crops and views that networks and classifiers are trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cnnsvm.features.augmentation import (
    Augmentation,
    apply_plan,
    apply_to_whole,
    draw_plan,
)
from cnnsvm.features.crops import to_tensor
from cnnsvm.features.reading import Decoded


@dataclass(frozen=True)
class Draw:
    """One training crop: which image, and the seed of its plan (shared by a source's fakes)."""

    index: int
    plan_seed: tuple[int, ...]


class DrawnCrops(Dataset):
    """Item i: the training crop that draw i asks for, and its class code."""

    def __init__(
        self,
        images: Decoded,
        codes: np.ndarray,
        draws: Sequence[Draw],
        size: int,
        augmentation: Augmentation,
    ) -> None:
        self.images, self.codes, self.draws = images, codes, draws
        self.size, self.augmentation = size, augmentation

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        draw = self.draws[position]
        plan = draw_plan(self.augmentation, np.random.default_rng(draw.plan_seed))
        crop = apply_plan(self.images[draw.index], plan, self.size)
        return to_tensor(crop[None])[0], int(self.codes[draw.index])


class DegradedImages(Sequence[np.ndarray]):
    """Views of images: item i is the image of draw i, degraded whole by the draw's plan.

    The first draw of each source and class (see `view_draws`) shows the image as it is.
    """

    def __init__(self, images: Decoded, draws: Sequence[Draw], augmentation: Augmentation) -> None:
        self.images, self.draws, self.augmentation = images, draws, augmentation

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, position: Any) -> Any:
        draw = self.draws[position]
        image = self.images[draw.index]
        if draw.plan_seed[-1] == 0:
            return image
        plan = draw_plan(self.augmentation, np.random.default_rng(draw.plan_seed))
        return apply_to_whole(image, plan)


def paired_draws(
    codes: np.ndarray, groups: np.ndarray, seed: int, epoch: int, most: int | None = None
) -> list[Draw]:
    """List the crops of one epoch, a source beside its fakes and as often as them.

    Within each group every class is repeated to the size of the group's largest class, and the k-th
    crop of each class gets the same plan: the same place, turn, codec and noise. ``most`` pairs of
    a group at most are drawn, anew for each epoch; None takes them all. The pairs are in random
    order, the members of a pair next to each other.
    """
    rng = np.random.default_rng([seed, epoch])
    pairs: list[list[Draw]] = []
    for group, classes, n_pairs in _classes(codes, groups):
        taken = np.arange(n_pairs) if most is None else rng.permutation(n_pairs)[:most]
        for place, k in enumerate(taken.tolist()):
            plan_seed = (seed, epoch, group, place)
            pairs.append([Draw(int(c[k * len(c) // n_pairs]), plan_seed) for c in classes])
    return [draw for i in rng.permutation(len(pairs)) for draw in pairs[i]]


def view_draws(codes: np.ndarray, groups: np.ndarray, seed: int, n_views: int) -> list[Draw]:
    """List the views that a classifier is fitted on: ``n_views`` of each class of each source.

    The k-th view of each class gets the same plan; the first of them shows the image as it is (see
    `DegradedImages`). A class with fewer images gives some of them several times.
    """
    rng = np.random.default_rng([seed, n_views])
    draws = []
    for group, classes, n_pairs in _classes(codes, groups):
        taken = np.resize(rng.permutation(n_pairs), n_views)
        for view, k in enumerate(taken.tolist()):
            plan_seed = (seed, n_views, group, view)
            draws += [Draw(int(c[k * len(c) // n_pairs]), plan_seed) for c in classes]
    return draws


def _classes(codes: np.ndarray, groups: np.ndarray) -> Iterator[tuple[int, list[np.ndarray], int]]:
    """Yield each group, the images of each of its classes, and how many the largest class has."""
    order = np.argsort(groups, kind="stable")  # no pass over all images for each group
    names, starts = np.unique(groups[order], return_index=True)
    for group, members in zip(names.tolist(), np.split(order, starts[1:]), strict=True):
        classes = [members[codes[members] == code] for code in np.unique(codes[members])]
        yield group, classes, max(map(len, classes))
