"""Parts of an image: the patches a training cuts with their mask, the tiles a map is made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from cnnsvm.features.augmentation import Augmentation, apply_plan, draw_plan
from cnnsvm.features.crops import fixed_crops, wrap_to
from cnnsvm.features.devices import autocast
from cnnsvm.features.reading import MEMORY
from cnnsvm.io.progress import show_progress
from cnnsvm.localization.masks import load_pair

#: Share of repainted pixels that a balanced patch should have, and places tried to find one.
WANTED_SHARE = (0.1, 0.9)
N_TRIES = 10
#: Share of the recompressed patches that are cut on the image's 8-pixel grid. A file that is
#: saved again has its second grid where it had the first, and that leaves another trace than a grid
#: that is moved, as after cropping.
ON_GRID, GRID = 0.5, 8
#: Tiles of an image beyond which they are counted on a terminal.
MANY_TILES = 32


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


@dataclass(frozen=True)
class Tiling:
    """How an image goes through a network.

    ``tile`` is the longest side of what the network gets at once, ``overlap`` the least overlap of
    two neighbouring tiles, both in pixels; ``most_pixels`` may be in the network at once, but a
    single tile always goes.
    """

    tile: int
    overlap: int
    most_pixels: int
    device: torch.device
    dtype: torch.dtype


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Spread tiles evenly over a side, the first at its start and the last at its end.

    The starts ascend, neighbours at most ``tile - overlap`` pixels apart; a side that is not longer
    than a tile gets a single one.
    """
    free = max(0, side - tile)
    n_steps = -(-free // (tile - overlap))
    return [round(free * i / n_steps) for i in range(n_steps + 1)] if n_steps else [0]


def predict_map(network: nn.Module, pixels: np.ndarray, tiling: Tiling) -> np.ndarray:
    """Return the probability of each of the pixels, uint8 (H, W, 3), that it was repainted.

    The network maps uint8 (N, 3, h, w) to logits (N, 1, h, w), in evaluation mode on
    ``tiling.device``. Where tiles overlap, their probabilities are averaged with weights that fall
    off towards the edge of a tile, where a network has the least context. Probabilities rather than
    logits, so that one tile that is wrong and very sure counts no more than its weight. The mean is
    a running one: where tiles agree to the bit, so does the map, float32 (H, W) in [0, 1].
    """
    height, width = pixels.shape[:2]
    blended = np.zeros((height, width), dtype=np.float32)
    window = _window(min(height, tiling.tile))[:, None] * _window(min(width, tiling.tile))
    weights, first = np.zeros((len(window), width), dtype=np.float32), 0  # of one row of tiles
    for (top, left), probability in _tile_maps(network, pixels, tiling):
        if top != first:
            weights = np.roll(weights, first - top, axis=0)
            weights[first - top :] = 0
            first = top
        columns = slice(left, left + window.shape[1])
        place = slice(top, top + len(window)), columns
        weights[:, columns] += window
        blended[place] += (probability - blended[place]) * (window / weights[:, columns])
    return np.clip(blended, 0, 1, out=blended)


def _tile_maps(
    network: nn.Module, pixels: np.ndarray, tiling: Tiling
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield place (top, left) and probabilities, float32 (h, w), of one tile after the other.

    Progress is shown if there are many.
    """
    height, width = (min(side, tiling.tile) for side in pixels.shape[:2])
    places = [
        (top, left)
        for top in tile_starts(pixels.shape[0], tiling.tile, tiling.overlap)
        for left in tile_starts(pixels.shape[1], tiling.tile, tiling.overlap)
    ]
    n_at_once = max(1, tiling.most_pixels // (height * width))

    def maps() -> Iterator[np.ndarray]:
        for start in range(0, len(places), n_at_once):
            batch = places[start : start + n_at_once]
            tiles = np.stack([pixels[y : y + height, x : x + width] for y, x in batch])
            yield from _probabilities(network, tiles, tiling)

    shown = show_progress(maps(), len(places), "tiles", len(places) > MANY_TILES)
    yield from zip(places, shown, strict=True)


def _probabilities(network: nn.Module, tiles: np.ndarray, tiling: Tiling) -> np.ndarray:
    inputs = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)))
    with torch.inference_mode(), autocast(tiling.device, tiling.dtype):
        logits = network(inputs.to(tiling.device))
    return torch.sigmoid(logits[:, 0].float()).cpu().numpy()


def _window(side: int) -> np.ndarray:
    """Weights of the pixels of a side, sine squared: above 0 everywhere, 1 in the middle."""
    return np.sin(np.pi * (np.arange(side, dtype=np.float64) + 0.5) / side).astype(np.float32) ** 2
