"""Networks that locate repainted pixels.

Each takes uint8 pixels (N, 3, H, W), RGB 0-255, of any size, and returns float32 logits
(N, 1, H, W): preprocessing, padding and cropping are inside.
"""

import os
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn

from cnnsvm.localization.architectures.fcn import build_fcn
from cnnsvm.localization.architectures.iidnet import build_iidnet
from cnnsvm.localization.architectures.nixnet import build_nixnet

#: Name of an architecture -> function that builds it with the options that it has. A network takes
#: uint8 pixels (N, 3, h, w), h and w multiples of `STRIDE` and at least `LEAST`.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "fcn_resnet50": build_fcn,
    "nixnet": build_nixnet,
    "iidnet": build_iidnet,
}
#: What height and width must be multiples of inside the networks, in pixels.
STRIDE = 8
#: Smallest height and width inside. At stride 8 they leave maps of 4x4, and batch norm needs more
#: than one value a channel when it trains on a single image.
LEAST = 32


class AnySize(nn.Module):
    """Mirror images up to a size that a network can take, and crop its answer back.

    Mirrored, as repeated border pixels would look smoothed, which is a trace of repainting.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 (N, 3, H, W), H and W from 1 up, to float32 logits (N, 1, H, W).

        A logit is above 0 where the pixel looks repainted. Another dtype or shape is a ValueError.
        """
        shape = tuple(pixels.shape)
        if pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise ValueError(
                f"pixels must be uint8 of shape (N, 3, H, W), RGB 0-255, got {pixels.dtype} of "
                f"shape {shape}. The networks scale pixels themselves."
            )
        logits = self.body(mirror_up(pixels))
        return logits[:, :, : shape[2], : shape[3]].float()


def mirror_up(pixels: torch.Tensor) -> torch.Tensor:
    """Extend a batch (N, C, H, W) below and to the right by its mirror image, as often as needed.

    Height and width become the next multiples of `STRIDE` from `LEAST` up.
    """
    for dim in (2, 3):
        size = pixels.shape[dim]
        target = max(LEAST, -(-size // STRIDE) * STRIDE)
        if target != size:  # 0, 1, .., size - 1, size - 2, .., 0, 1, ..
            period = max(2 * (size - 1), 1)
            steps = torch.arange(target, device=pixels.device) % period
            pixels = pixels.index_select(dim, torch.minimum(steps, period - steps))
    return pixels


def build_network(
    architecture: str,
    *,
    size: str | None = None,
    genotype: Sequence[Sequence[str]] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | dict[str, Any] | None = None,
    random_state: int = 0,
) -> AnySize:
    """Build a network in train mode. Options that are None take the architecture's default.

    ``architecture`` is a key of `ARCHITECTURES`. ``size`` is for "nixnet" and "iidnet", see
    ``SIZES`` of each; ``genotype``, 10 sequences of 3 str, for "iidnet"; ``weights`` and
    ``preprocessing`` for "fcn_resnet50", see `build_fcn`. ``random_state`` is the seed of the
    random weights. A ValueError is raised if the architecture or an option is not known, or the
    architecture lacks an option, and a WeightsError if the weights cannot be had or do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}."
        )
    build = ARCHITECTURES[architecture]
    options: dict[str, Any] = {"size": size, "genotype": genotype, "weights": weights}
    options |= {"preprocessing": preprocessing}
    given = {name: value for name, value in options.items() if value is not None}
    known = signature(build).parameters
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{name}={value!r} means nothing to {architecture!r}, whose options are "
                f"{', '.join(known)}. Use {name}=None."
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        network = AnySize(build(**given))
    return network.to(memory_format=torch.channels_last)


__all__ = ["ARCHITECTURES", "AnySize", "build_network"]
