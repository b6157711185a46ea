"""What localisers cost: parameters, multiply-adds, and images a second."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sklearn.base import clone
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnsvm import InpaintLocalizer
from cnnsvm.evaluation.runs import settings_of
from cnnsvm.features.devices import autocast, choose_device, choose_precision
from cnnsvm.features.trainer import OPTIMIZERS
from cnnsvm.io.files import read_json, write_json
from cnnsvm.localization.training import LOSSES


def count_parameters(network: nn.Module) -> int:
    """Count the numbers that training may change."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Count the multiply-adds of one image's forward pass: convolutions and matrix products.

    Half of the floating-point operations that `torch.utils.flop_counter` counts. The network runs
    once, in evaluation mode, where its weights are.
    """
    device = next(network.parameters()).device
    pixels = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(pixels)
    finally:
        network.train(was_training)
    return counter.get_total_flops() // 2


def measure_cost(design: InpaintLocalizer, n_steps: int = 5) -> dict[str, Any]:
    """Measure one design on random pixels of its crop size, a batch at a time.

    Parameters
    ----------
    design : InpaintLocalizer
        Its network, loss, optimiser, batch and crop size, device and precision are used.
    n_steps : int
        Steps of each kind after one that warms up; the median counts.

    Returns
    -------
    dict
        ``parameters``, ``multiply_adds`` (of one crop), ``crop_size``, ``batch_size``,
        ``train_images_per_second`` and ``inference_images_per_second``.
    """
    settings = design.settings
    device = choose_device(design.device, design.gpu_memory_fraction)
    dtype = choose_precision(design.precision, device)
    network = design.build_network().to(device)
    side, n = design.crop_size, design.batch_size
    facts: dict[str, Any] = {"parameters": count_parameters(network)}
    facts["multiply_adds"] = count_multiply_adds(network, side, side)
    facts |= {"crop_size": side, "batch_size": n}
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    targets = (torch.rand(n, 1, side, side, generator=generator) < 0.5).float().to(device)
    pixels = pixels.to(device)
    optimiser = OPTIMIZERS[settings.optimizer](network.parameters(), lr=settings.learning_rate)

    def learn() -> None:
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            logits = network(pixels).float()
        LOSSES[settings.loss](logits, targets).backward()
        optimiser.step()

    def look() -> None:
        with torch.inference_mode(), autocast(device, dtype):
            network(pixels)

    facts["train_images_per_second"] = n / _seconds(learn, network.train(), device, n_steps)
    facts["inference_images_per_second"] = n / _seconds(look, network.eval(), device, n_steps)
    return facts


def stored_cost(design: InpaintLocalizer, folder: Path, n_steps: int = 5) -> dict[str, Any]:
    """Measure the cost of a design, or read what an earlier call measured on the same terms.

    Parameters
    ----------
    design, n_steps
        As for `measure_cost`.
    folder : Path
        One file a design is stored there.
    """
    file = folder / f"{settings_of(clone(design).set_params(distributed=False)).hex()}.json"
    if not (known := read_json(file)):
        known = measure_cost(design, n_steps)
        write_json(file, known)
    return known


def _seconds(
    step: Callable[[], None], network: nn.Module, device: torch.device, n_steps: int
) -> float:
    """Time a step of a network that is in the right mode already."""
    times = []
    for _ in range(n_steps + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])
