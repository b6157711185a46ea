"""Maps of images of any size: overlapping tiles, blended by a smooth window."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cnnsvm.features.devices import autocast


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
    a running one: where tiles agree to the bit, so does the map, float32 (H, W) in [0, 1]. Beside
    it another 4 bytes a pixel are needed, and what the network needs for ``most_pixels``.
    """
    height, width = pixels.shape[:2]
    blended, weight_sum = np.zeros((2, height, width), dtype=np.float32)
    window = _window(min(height, tiling.tile))[:, None] * _window(min(width, tiling.tile))
    for (top, left), probability in _tile_maps(network, pixels, tiling):
        place = slice(top, top + len(window)), slice(left, left + window.shape[1])
        weight_sum[place] += window
        blended[place] += (probability - blended[place]) * (window / weight_sum[place])
    return np.clip(blended, 0, 1, out=blended)


def _tile_maps(
    network: nn.Module, pixels: np.ndarray, tiling: Tiling
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield place (top, left) and probabilities, float32 (h, w), of one tile after the other."""
    height, width = (min(side, tiling.tile) for side in pixels.shape[:2])
    places = [
        (top, left)
        for top in tile_starts(pixels.shape[0], tiling.tile, tiling.overlap)
        for left in tile_starts(pixels.shape[1], tiling.tile, tiling.overlap)
    ]
    n_at_once = max(1, tiling.most_pixels // (height * width))
    for start in range(0, len(places), n_at_once):
        batch = places[start : start + n_at_once]
        tiles = np.stack([pixels[y : y + height, x : x + width] for y, x in batch])
        yield from zip(batch, _probabilities(network, tiles, tiling), strict=True)


def _probabilities(network: nn.Module, tiles: np.ndarray, tiling: Tiling) -> np.ndarray:
    inputs = torch.from_numpy(np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)))
    with torch.inference_mode(), autocast(tiling.device, tiling.dtype):
        logits = network(inputs.to(tiling.device))
    return torch.sigmoid(logits[:, 0].float()).cpu().numpy()


def _window(side: int) -> np.ndarray:
    """Weights of the pixels of a side, sine squared: above 0 everywhere, 1 in the middle."""
    return np.sin(np.pi * (np.arange(side, dtype=np.float64) + 0.5) / side).astype(np.float32) ** 2
