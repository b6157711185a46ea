"""Training patches: crops of an image and its mask that go through the same geometry."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cnnsvm.features.augmentation import Augmentation, apply_plan, draw_plan
from cnnsvm.features.crops import MEMORY, fixed_crops, wrap_to
from cnnsvm.localization.masks import load_pair

#: Share of repainted pixels that a balanced patch should have, and places tried to find one.
WANTED_SHARE = (0.1, 0.9)
N_TRIES = 10
#: Share of the recompressed patches that are cut on the image's 8-pixel grid. A file that is
#: saved again has its second grid where it had the first, and that leaves another trace than a grid
#: that is moved, as after cropping.
ON_GRID, GRID = 0.5, 8


class Pairs:
    """Images and their masks (see `load_pair`), kept in ``memory`` bytes once decoded."""

    def __init__(
        self, images: Sequence[Any], masks: Sequence[Any], policy: str, memory: int = MEMORY
    ) -> None:
        self.images, self.masks, self.policy, self.free = images, masks, policy, memory
        self.kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index in self.kept:
            return self.kept[index]
        pair = load_pair(self.images[index], self.masks[index], self.policy)
        n_bytes = sum(part.nbytes for part in pair)
        if n_bytes <= self.free:
            self.kept[index] = pair
            self.free -= n_bytes
        return pair


@dataclass(frozen=True)
class PatchDraw:
    """One training patch: of which image, and the seed of all that is drawn for it."""

    index: int
    seed: tuple[int, ...]


def draw_patches(
    indices: np.ndarray, per_image: int, batch_size: int, seed: int, epoch: int
) -> list[PatchDraw]:
    """List the patches of one epoch, in random order.

    Each of the images at ``indices`` gives ``per_image`` patches, and a few give one more, so that
    the last batch is full: every step has as many patches, in one process or shared by several.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(np.repeat(indices, per_image))
    order = np.resize(order, -(-len(order) // batch_size) * batch_size)
    return [PatchDraw(int(i), (seed, epoch, place)) for place, i in enumerate(order)]


def cut_patch(
    pixels: np.ndarray,
    mask: np.ndarray,
    size: int,
    augmentation: Augmentation,
    balance: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one training patch, uint8 (size, size, 3), with its target, bool (size, size).

    Pixels, uint8 (H, W, 3), and mask, bool (H, W), get the same place (see `choose_place`),
    resizing, turn, flip and shift; blur, noise, codecs and erasing are the image's alone. An image
    smaller than the patch is repeated, and so is its mask.
    """
    plan = draw_plan(augmentation, rng)
    side = size if plan.scale is None else max(1, round(size / plan.scale))
    pixels, mask = wrap_to(pixels, side), wrap_to(mask, side)
    top, left = choose_place(mask, side, balance, rng)
    if rng.random() < ON_GRID and plan.codec is not None and plan.scale is None:
        top, left = top - top % GRID, left - left % GRID
    place = slice(top, top + side), slice(left, left + side)
    painted = np.repeat(np.where(mask[place], np.uint8(255), np.uint8(0))[..., None], 3, axis=2)
    geometry = replace(plan, blur=None, noise=None, codec=None, second_codec=None, erase=None)
    target = apply_plan(painted, geometry, size)[..., 0] >= 128
    return apply_plan(pixels[place], plan, size), target


def choose_place(
    mask: np.ndarray, side: int, balance: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Choose the top and left of a patch in a mask (H, W) of at least ``side`` pixels a side.

    With probability ``balance`` a pixel of the rarer kind is drawn and a place that has it in
    the patch, `N_TRIES` times, until between 10 and 90 % of the patch are repainted; else any
    place is as likely. So boundaries are seen often, and the inside of both kinds as well.
    """
    free = np.array(mask.shape) - side
    share = int(np.count_nonzero(mask)) / mask.size
    if rng.random() >= balance or share in (0, 1):
        top, left = rng.integers(free + 1).tolist()
        return top, left
    tried: list[tuple[float, tuple[int, int]]] = []
    for _ in range(N_TRIES):
        pixel = np.array(divmod(_pixel_of(mask, share <= 0.5, rng), mask.shape[1]))
        top, left = rng.integers(np.maximum(0, pixel - side + 1), np.minimum(pixel, free) + 1)
        repainted = float(mask[top : top + side, left : left + side].mean())
        tried.append((abs(repainted - 0.5), (int(top), int(left))))
        if WANTED_SHARE[0] <= repainted <= WANTED_SHARE[1]:
            return tried[-1][1]
    return min(tried)[1]


def _pixel_of(mask: np.ndarray, kind: bool, rng: np.random.Generator) -> int:
    """Draw a pixel of one kind, by its place in the flat mask; listing them all takes long."""
    drawn = rng.integers(mask.size, size=256)
    found = drawn[mask.ravel()[drawn] == kind]
    return int(found[0] if len(found) else rng.choice(np.flatnonzero(mask == kind)))


class DrawnPatches(Dataset):
    """Item i: the patch of draw i, uint8 (3, size, size), and its target (size, size)."""

    def __init__(
        self,
        pairs: Pairs,
        draws: Sequence[PatchDraw],
        size: int,
        augmentation: Augmentation,
        balance: float,
    ) -> None:
        self.pairs, self.draws, self.size = pairs, draws, size
        self.augmentation, self.balance = augmentation, balance

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        draw = self.draws[place]
        rng = np.random.default_rng(draw.seed)
        pair = self.pairs[draw.index]
        patch, target = cut_patch(*pair, self.size, self.augmentation, self.balance, rng)
        patches, targets = _to_tensors(patch[None], target[None])
        return patches[0], targets[0]


class FixedPatches(Dataset):
    """Item i: fixed patches of image i, uint8 (k, 3, size, size), k <= n_crops, and targets."""

    def __init__(self, pairs: Pairs, indices: Sequence[int], size: int, n_crops: int) -> None:
        self.pairs, self.indices, self.size, self.n_crops = pairs, indices, size, n_crops

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, mask = self.pairs[int(self.indices[place])]
        patches = fixed_crops(pixels, self.size, self.n_crops)
        return _to_tensors(patches, fixed_crops(mask, self.size, self.n_crops))


def _to_tensors(patches: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn patches (k, size, size, 3) and targets (k, size, size) into tensors, channels first."""
    parts = patches.transpose(0, 3, 1, 2), targets
    pixels, truth = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return pixels, truth
