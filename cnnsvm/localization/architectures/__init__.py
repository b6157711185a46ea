"""Networks that tell of each pixel whether it was repainted.

Each takes uint8 pixels (N, 3, H, W), RGB 0-255, of any size, and returns float32 logits
(N, 1, H, W): preprocessing, padding and cropping are inside.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import nn

from cnnsvm.localization.architectures.any_size import AnySize
from cnnsvm.localization.architectures.fcn import build_fcn
from cnnsvm.localization.architectures.iidnet import build_iidnet
from cnnsvm.localization.architectures.nixnet import build_nixnet

#: Name of an architecture -> function that builds it with the options that it has.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "fcn_resnet50": build_fcn,
    "nixnet": build_nixnet,
    "iidnet": build_iidnet,
}


def build_network(
    architecture: str,
    *,
    size: str | None = None,
    genotype: Sequence[Sequence[str]] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | dict[str, Any] | None = None,
    random_state: int = 0,
) -> AnySize:
    """Build a network. Options that are None take the architecture's default.

    Parameters
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
    size : str or None
        Of "nixnet" ("28m" by default) and "iidnet" ("published"); see ``SIZES`` of each.
    genotype : sequence of 10 sequences of 3 str, or None
        Operations of the cells of "iidnet"; the published ones by default.
    weights : None, "imagenet" or path
        Of the backbone of "fcn_resnet50"; random ones by default.
    preprocessing : str, dict or None
        Of "fcn_resnet50": see `cnnsvm.features.backbones.build_backbone`; "residual_bank" by
        default. With weights it must be "imagenet".
    random_state : int
        Seed of the random weights.

    Returns
    -------
    AnySize
        In float32 and channels-last on the default device, in train mode.

    Raises
    ------
    ValueError
        If the architecture or an option is not known, or the architecture lacks an option.
    WeightsError
        If the weights cannot be had or do not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}."
        )
    options = {
        "size": size,
        "genotype": genotype,
        "weights": weights,
        "preprocessing": preprocessing,
    }
    given = {name: value for name, value in options.items() if value is not None}
    _check_options(architecture, given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        network = AnySize(ARCHITECTURES[architecture](**given))
    return network.to(memory_format=torch.channels_last)


def _check_options(architecture: str, given: Mapping[str, object]) -> None:
    known = signature(ARCHITECTURES[architecture]).parameters
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{name}={value!r} means nothing to {architecture!r}, whose options are "
                f"{', '.join(known)}. Use {name}=None."
            )


__all__ = ["ARCHITECTURES", "AnySize", "build_network"]
