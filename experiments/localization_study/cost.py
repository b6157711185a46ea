"""What localisers cost: parameters, multiply-adds, and pictures a second."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sklearn.base import clone
from torch import nn

from cnnsvm.evaluation.runs import settings_of
from cnnsvm.features.devices import autocast, choose_device, choose_precision
from cnnsvm.features.trainer import OPTIMIZERS
from cnnsvm.io.files import read_json, write_json
from cnnsvm.localization.architectures.cost import count_multiply_adds, count_parameters
from cnnsvm.localization.bundle import build_network
from cnnsvm.localization.losses import LOSSES


def measure_cost(design: Any, n_steps: int = 5) -> dict[str, Any]:
    """Measure one design on random pixels of its crop size, a batch at a time.

    Parameters
    ----------
    design : InpaintLocalizer
        Its network, loss, optimiser, batch and crop size, device and precision are used.
    n_steps : int
        Of each sort, after one that warms up; the median counts.

    Returns
    -------
    dict
        ``parameters``, ``multiply_adds`` (of one crop), ``crop_size``, ``batch_size``,
        ``train_images_per_second`` and ``inference_images_per_second``.
    """
    params = design.get_params()
    device = choose_device(params["device"], params["gpu_memory_fraction"])
    dtype = choose_precision(params["precision"], device)
    network = build_network(params, seed=0).to(device)
    side, n = params["crop_size"], params["batch_size"]
    facts: dict[str, Any] = {"parameters": count_parameters(network)}
    facts["multiply_adds"] = count_multiply_adds(network, side, side)
    facts |= {"crop_size": side, "batch_size": n}
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    targets = (torch.rand(n, 1, side, side, generator=generator) < 0.5).float().to(device)
    pixels = pixels.to(device)
    optimiser = OPTIMIZERS[params["optimizer"]](network.parameters(), lr=params["learning_rate"])

    def learn() -> None:
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, dtype):
            logits = network(pixels).float()
        LOSSES[params["loss"]](logits, targets).backward()
        optimiser.step()

    def look() -> None:
        with torch.inference_mode(), autocast(device, dtype):
            network(pixels)

    facts["train_images_per_second"] = n / _seconds(learn, network.train(), device, n_steps)
    facts["inference_images_per_second"] = n / _seconds(look, network.eval(), device, n_steps)
    return facts


def kept_cost(design: Any, folder: Path, n_steps: int = 5) -> dict[str, Any]:
    """Measure the cost of a design, or read what an earlier call measured on the same terms.

    Parameters
    ----------
    design, n_steps
        As for `measure_cost`.
    folder : Path
        Keeps one file a design.
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
