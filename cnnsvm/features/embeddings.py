"""One embedding an image: its crops through the network, pooled."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cnnsvm.devices import autocast
from cnnsvm.features.loading import Decoded, FixedCrops, iterate_crops

POOLINGS = ("mean", "mean_max", "mean_std")


def pool_crops(crops: np.ndarray, pooling: str) -> np.ndarray:
    """Pool the embeddings of one image's crops.

    Parameters
    ----------
    crops : ndarray of float32, shape (k, d)
    pooling : {"mean", "mean_max", "mean_std"}
        The mean alone, or followed by the largest value or the standard deviation over the crops.
        A half-repainted image has crops of both kinds, which the second part keeps apart.

    Returns
    -------
    ndarray of float32, shape (d,) or (2 * d,)
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
    parts = [crops.mean(axis=0)]
    if pooling == "mean_max":
        parts.append(crops.max(axis=0))
    elif pooling == "mean_std":
        parts.append(crops.std(axis=0))
    return np.concatenate(parts)


def embed_images(
    network: nn.Module,
    images: Sequence[Any],
    *,
    crop_size: int,
    n_crops: int,
    pooling: str = "mean",
    batch_size: int = 8,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    n_jobs: int = 0,
    label: str = "embedding",
) -> np.ndarray:
    """Embed images in their order.

    Parameters
    ----------
    network : nn.Module
        From uint8 (N, 3, crop_size, crop_size) to (N, d). It is run in evaluation mode.
    images : sequence of image inputs (see `cnnsvm.images.load_image`)
    crop_size, n_crops : int
        Side of a crop in pixels, and crops an image at most.
    pooling : str
        See `pool_crops`.
    batch_size : int
        Crops in one forward pass.
    device : torch.device
    dtype : torch.dtype
        Precision of the forward pass.
    n_jobs : int
        Processes that decode images; 0 decodes in this one.
    label : str
        What the progress bar says.

    Returns
    -------
    ndarray of float32, shape (len(images), d) or (len(images), 2 * d)

    Raises
    ------
    ImageError
        If an image cannot be read.
    ValueError
        If an embedding is not finite.
    """
    network.to(device).eval()
    rows = []
    dataset = FixedCrops(Decoded(images, memory=0), crop_size, n_crops)
    progress = tqdm(total=len(images), desc=label, unit="image", disable=not sys.stderr.isatty())
    with torch.inference_mode(), progress:
        for counts, crops in iterate_crops(dataset, batch_size, n_jobs):
            with autocast(device, dtype):
                output = network(crops.to(device, non_blocking=True))
            parts = np.split(output.float().cpu().numpy(), np.cumsum(counts)[:-1])
            rows += [pool_crops(part, pooling) for part in parts]
            progress.update(len(counts))
    return _check_finite(np.stack(rows))


def _check_finite(embeddings: np.ndarray) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} embedding(s) hold NaN or infinity, the first of image {bad[0]}. "
            "The network has diverged or overflowed: lower learning_rate or use "
            "precision='float32'."
        )
    return embeddings
