"""Train the small generators of `cnnsvm.generation.engines.decoder_networks`."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cnnsvm.data.images import load_image
from cnnsvm.features.devices import autocast
from cnnsvm.generation.engines.decoder_networks import (
    Autoencoder,
    DecoderSpec,
    Denoiser,
    signal_and_noise,
)

logger = logging.getLogger(__name__)

CROP = 64
BATCH = 16
LEARNING_RATE = 2e-3
ADVERSARIAL_WEIGHT = 0.02
PYRAMID_LEVELS = 3
MAX_IMAGES = 2000

Network = TypeVar("Network", bound=nn.Module)


def train_autoencoder(
    spec: DecoderSpec,
    images: Sequence[np.ndarray],
    *,
    n_steps: int = 2000,
    random_state: int = 0,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Autoencoder:
    """Train an autoencoder to give images back.

    Parameters
    ----------
    spec : DecoderSpec
    images : sequence of ndarray of uint8, shape (H, W, 3), RGB
        At least 64 pixels a side; random crops of them are seen, see `read_images`.
    n_steps : int
        Batches of 16 crops.
    random_state : int
        Seed of the weights and the crops.
    device, dtype : torch.device, torch.dtype
        Where, and in which precision the forward pass runs.

    Returns
    -------
    Autoencoder
        On the CPU, for evaluation.

    Raises
    ------
    ValueError
        If there is no image, or one is too small.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(random_state)
        model = Autoencoder(spec)
        critic = _critic() if spec.loss == "adversarial" else None
        for network in (model, critic):
            if network is not None:
                _place(network, device)
        optimiser, schedule = _optimiser(model, n_steps)
        judge = torch.optim.AdamW(critic.parameters(), 5e-4, (0.5, 0.9)) if critic else None
        for step, crops in _steps(images, n_steps, random_state, device, spec.name):
            with autocast(device, dtype):
                made, penalty = model(crops)
                loss = _reconstruction(spec, made.float(), crops) + penalty
                if critic is not None and step > n_steps // 4:
                    loss = loss - ADVERSARIAL_WEIGHT * critic(made).float().mean()
            _update(optimiser, loss)
            schedule.step()
            if critic is not None and judge is not None:
                with autocast(device, dtype):
                    real, fake = critic(crops).float(), critic(made.detach()).float()
                _update(judge, (1 - real).relu().mean() + (1 + fake).relu().mean())
        logger.info("%s: loss %.4f after %d steps", spec.name, loss.item(), n_steps)
    return _finished(model)


def train_denoiser(
    images: Sequence[np.ndarray],
    *,
    width: int = 24,
    n_steps: int = 2000,
    random_state: int = 0,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """Train a denoiser to tell the noise from the image.

    ``width`` is that of `Denoiser`, the other parameters are those of `train_autoencoder`.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(random_state)
        model = Denoiser(width)
        _place(model, device)
        optimiser, schedule = _optimiser(model, n_steps)
        for _, crops in _steps(images, n_steps, random_state, device, Denoiser.name):
            level = torch.rand(len(crops), device=device) ** 2  # mostly fine detail
            noise = torch.randn_like(crops)
            signal, sigma = signal_and_noise(level)
            with autocast(device, dtype):
                found = model(signal * crops + sigma * noise, level).float()
            loss = nn.functional.mse_loss(found, noise)
            _update(optimiser, loss)
            schedule.step()
        logger.info("%s: loss %.4f after %d steps", model.name, loss.item(), n_steps)
    return _finished(model)


def read_images(
    paths: Sequence[str | os.PathLike[str]], *, at_most: int = MAX_IMAGES, random_state: int = 0
) -> list[np.ndarray]:
    """Read images to train on, those with a side below 64 pixels left out.

    Parameters
    ----------
    paths : sequence of paths
    at_most : int
        Of more, as many are drawn, since all are held in memory.
    random_state : int

    Returns
    -------
    list of ndarray of uint8, shape (H, W, 3), RGB
        In the order of the paths.

    Raises
    ------
    ImageError
        If a file cannot be read.
    ValueError
        If none is large enough.
    """
    chosen: Sequence[int] = range(len(paths))
    if len(paths) > at_most:
        rng = np.random.default_rng(random_state)
        chosen = sorted(rng.choice(len(paths), at_most, replace=False).tolist())
        logger.info("training on %d of %d images", at_most, len(paths))
    images = [image for i in chosen if min((image := load_image(paths[i])).shape[:2]) >= CROP]
    if not images:
        raise ValueError(
            f"none of {len(paths)} images has at least {CROP} pixels a side. Give larger ones."
        )
    if len(images) < len(chosen):
        logger.info("left out %d images below %d pixels", len(chosen) - len(images), CROP)
    return images


def _place(model: nn.Module, device: torch.device) -> None:
    """Move a model, in place, to where it is trained."""
    model.to(device=device).to(memory_format=torch.channels_last).train()


def _finished(model: Network) -> Network:
    # laid out as one that was loaded, so that both compute the same to the bit
    return model.cpu().to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def _optimiser(
    model: nn.Module, n_steps: int
) -> tuple[torch.optim.Optimizer, "torch.optim.lr_scheduler.LRScheduler"]:
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, (0.9, 0.98))
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    return optimiser, one_cycle(optimiser, LEARNING_RATE, total_steps=n_steps + 1, pct_start=0.1)


def _update(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
    optimiser.step()


def _steps(
    images: Sequence[np.ndarray], n_steps: int, seed: int, device: torch.device, what: str
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (step, crops in [-1, 1]) with a progress bar."""
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps!r}.")
    smallest = min((min(image.shape[:2]) for image in images), default=0)
    if smallest < CROP:
        what_is_there = f"one has {smallest}" if len(images) else "there is none"
        raise ValueError(
            f"training takes images of at least {CROP} pixels a side, and {what_is_there}. Leave "
            "small ones out, as read_images does."
        )
    rng = np.random.default_rng(seed)
    for step in tqdm(range(n_steps), what, unit="step", disable=not sys.stderr.isatty()):
        crops = np.stack([_crop(images[i], rng) for i in rng.integers(len(images), size=BATCH)])
        values = torch.from_numpy(crops).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
        yield step, values.contiguous(memory_format=torch.channels_last)


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    top = rng.integers(image.shape[0] - CROP + 1)
    left = rng.integers(image.shape[1] - CROP + 1)
    crop = image[top : top + CROP, left : left + CROP]
    return crop[:, ::-1] if rng.integers(2) else crop


def _reconstruction(spec: DecoderSpec, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    loss = (made - wanted).abs().mean()
    if spec.loss != "pyramid":
        return loss
    gap = made - wanted
    for _ in range(PYRAMID_LEVELS):
        coarse = nn.functional.avg_pool2d(gap, 2)
        detail = gap - nn.functional.interpolate(coarse, scale_factor=2, mode="nearest")
        loss = loss + detail.abs().mean()
        gap = coarse
    return loss


def _critic() -> nn.Sequential:
    """Patch discriminator: (N, 3, H, W) -> (N, 1, h, w)."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))
