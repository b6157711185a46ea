"""The seed project's network: four 3x3 convolutions and 256 features, trained from scratch."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from cnnsvm.features.backbones import Backbone
from cnnsvm.features.devices import autocast
from cnnsvm.features.preprocessing import Preprocessing
from cnnsvm.features.trainer import DivergedError

logger = logging.getLogger(__name__)

CHANNELS = (32, 64, 128, 256)
EMBEDDING_DIM = 256
UNIT = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255)


def build_small_cnn(size: int, n_classes: int, random_state: int) -> Backbone:
    """Build the network: four times convolution, ReLU and 2x2 max pool, then 256 features.

    Parameters
    ----------
    size : int
        Side in pixels of its images, at least 16.
    n_classes : int
    random_state : int
        Seed of the weights.

    Returns
    -------
    Backbone
        With a classifier on top of its embedding of 256.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        layers: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS[:-1]), CHANNELS, strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        flat = CHANNELS[-1] * (size // 2 ** len(CHANNELS)) ** 2
        layers += [nn.Flatten(), nn.Linear(flat, EMBEDDING_DIM), nn.ReLU()]
        network = Backbone(nn.Sequential(*layers), UNIT)
        network.classifier = nn.Linear(EMBEDDING_DIM, n_classes)
    return network.to(memory_format=torch.channels_last)


def train_small_cnn(
    network: Backbone,
    dataset: Any,
    codes: np.ndarray,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    random_state: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    n_jobs: int = 0,
) -> list[dict[str, float]]:
    """Train by cross-entropy and Adam on every image once an epoch, in random order.

    Parameters
    ----------
    network : Backbone
        Changed in place; ends on the CPU.
    dataset : Dataset
        Item i: image i, uint8 of shape (1, 3, size, size).
    codes : ndarray of int, shape (n_images,)
        Class of each image.
    epochs, batch_size, random_state, n_jobs : int
    learning_rate : float
    device, dtype : torch.device, torch.dtype

    Returns
    -------
    list of dict
        ``epoch`` and ``train_loss`` of each epoch.

    Raises
    ------
    DivergedError
        If the loss is no longer finite.
    """
    network.to(device).train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    history = []
    for epoch in range(epochs):
        losses = []
        order = np.random.default_rng([random_state, epoch]).permutation(len(codes))
        for places, images in _batches(dataset, order, batch_size, n_jobs):
            with autocast(device, dtype):
                logits = network.logits(images.to(device))
            targets = torch.from_numpy(codes[places]).to(device)
            loss = nn.functional.cross_entropy(logits.float(), targets)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"the small CNN diverged: the loss is {loss.item()}. Lower learning_rate "
                    f"(now {learning_rate:g}) or use precision='float32'."
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        history.append({"epoch": epoch, "train_loss": float(np.mean(losses))})
        logger.info("small CNN %s", history[-1])
    network.cpu()
    return history


def _batches(
    dataset: Any, order: np.ndarray, batch_size: int, n_jobs: int
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Yield (which images, the images) in the given order."""
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    loader = DataLoader(
        dataset,
        batch_sampler=[part.tolist() for part in parts],
        num_workers=n_jobs,
        collate_fn=torch.cat,
    )
    yield from zip(parts, loader, strict=True)
