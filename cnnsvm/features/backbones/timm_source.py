"""Networks of timm (``"timm:NAME"``); needs ``pip install 'cnnsvm[timm]'``."""

import os
from typing import Any

import torch
from torch import nn

from cnnsvm.features.backbones import Body
from cnnsvm.features.backbones.network import MeanAndDeviation
from cnnsvm.features.backbones.stems import check_native
from cnnsvm.features.backbones.weights import WeightsError, load_state, read_state, require
from cnnsvm.features.preprocessing import Preprocessing


def build(
    name: str,
    weights: str | os.PathLike[str] | None,
    *,
    n_channels: int,
    stem: str,
    truncate_at: Any,
) -> Body:
    """Build a network of timm (see `cnnsvm.features.backbones.build_backbone`)."""
    timm = require("timm", "timm")
    check_native(f"timm:{name}", stem)
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}. timm.list_models('*NAME*') finds them.")
    level = {} if truncate_at is None else {"features_only": True, "out_indices": (truncate_at,)}
    options: dict[str, Any] = {"in_chans": n_channels, **(level or {"num_classes": 0})}
    published = weights == "imagenet"
    try:
        network = timm.create_model(name, pretrained=published, **options)
    except Exception as error:
        if not published:
            raise ValueError(f"timm:{name} with {options} cannot be built: {error}") from error
        raise WeightsError(
            f"weights='imagenet' for timm:{name} cannot be had ({error}). Pass "
            "weights='/path/to/file.safetensors' instead, or weights=None for random ones."
        ) from error
    if weights is not None and not published:
        load_state(network, f"timm:{name}", weights, read_state(weights))
    config = timm.data.resolve_model_data_config(network)
    body = network if truncate_at is None else nn.Sequential(_Only(network), MeanAndDeviation())
    return Body(body, Preprocessing(tuple(config["mean"]), tuple(config["std"])))


class _Only(nn.Module):
    """The single feature level that a ``features_only`` network returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.network(values)[0]
