"""Backbones from several libraries, each cut at its pooled embedding.

A source is a module with ``build(name, weights, n_channels, stem, truncate_at) -> Body``; its line
in `SOURCES` is all that it takes to add one.
"""

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn

from cnnsvm.features.backbones.network import (
    STATISTICS_BATCH,
    Backbone,
    MeanAndDeviation,
    Standardise,
    embedding_dim,
)
from cnnsvm.features.backbones.weights import WeightsError
from cnnsvm.features.preprocessing import PREPROCESSING, RAW, Preprocessing, as_preprocessing
from cnnsvm.features.statistics import STATISTICS_DIM

__all__ = [
    "PROJECTION_DIM",
    "SOURCES",
    "STATISTICS_BATCH",
    "Backbone",
    "Body",
    "MeanAndDeviation",
    "Standardise",
    "WeightsError",
    "build_backbone",
    "build_statistics",
    "embedding_dim",
    "source_of",
]

PROJECTION_DIM = 256
_HERE = "cnnsvm.features.backbones"
#: Prefix of a backbone's name, as in "timm:NAME" -> module that builds it. Names without a prefix
#: are torchvision's and this package's own.
SOURCES = {
    "torchvision": f"{_HERE}.torchvision_source",
    "timm": f"{_HERE}.timm_source",
    "hf": f"{_HERE}.hf_source",
    "onnx": f"{_HERE}.onnx_source",
}


@dataclass(frozen=True)
class Body:
    """What a source builds.

    ``module`` maps a normalised (N, n_channels, H, W) batch to (N, d); ``preprocessing`` is how the
    library that trained its weights normalises images; ``trainable`` says whether it has weights
    that gradients reach. From ``offline_name`` the same architecture is built without its file or
    hub, to load saved weights into it; None if the name that it was built from will do.
    """

    module: nn.Module
    preprocessing: Preprocessing = PREPROCESSING["imagenet"]
    trainable: bool = True
    offline_name: str | None = None


def source_of(backbone: str) -> tuple[str, str]:
    """Split the name of a backbone into source and name, as in ("timm", "resnet18")."""
    prefix, colon, name = backbone.partition(":")
    return (prefix, name) if colon and prefix in SOURCES else ("torchvision", backbone)


def build_backbone(
    backbone: str | nn.Module,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | dict[str, Any] | Preprocessing = "imagenet",
    random_state: int = 0,
    projection: bool = False,
    *,
    stem: str = "native",
    truncate_at: str | int | tuple[int, ...] | None = None,
) -> Backbone:
    """Build a backbone in float32 on the CPU, with gradients on.

    ``backbone`` is a name of torchvision, "plain_cnn", "plain_cnn_7", "timm:NAME",
    "hf:ID-or-folder", "onnx:FILE", or a module that maps float (N, 3, H, W) to (N, d) or (N, d, h,
    w). ``weights`` None draws random ones from ``random_state``, "imagenet" loads those that the
    library publishes, a path names a .safetensors, .pth or .pt file with the library's parameter
    names; those of the classifier that is cut off may be missing. ``preprocessing`` is a key of
    `cnnsvm.features.preprocessing.PREPROCESSING`, the fields of a `Preprocessing`, or "auto":
    residuals for random weights, else the library's own normalisation; with other than three
    channels the first convolution is a new one. ``projection`` puts a linear layer of 256 features
    and a ReLU on top, whose output is the embedding: the part that ``finetune="head"`` trains.
    ``stem`` is a key of `cnnsvm.features.backbones.stems.STEMS`. ``truncate_at`` is the last stage
    that is kept, such as "layer2" of a ResNet or "15" of vgg16, for timm the number of a feature
    level; the embedding is then the mean and the standard deviation of each channel. For
    transformers it is the layer, or layers, whose class token is the embedding. None keeps the
    network whole.

    A ValueError is raised if the name, the stem or the stage is not known, a WeightsError if the
    weights cannot be had or do not fit the network, an ImportError if the library is not installed.
    """
    settings = None if preprocessing == "auto" else as_preprocessing(preprocessing)
    if settings is None and weights is None and isinstance(backbone, str):
        settings = PREPROCESSING["residual"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        if isinstance(backbone, nn.Module):
            body = Body(nn.Sequential(backbone, Pooled()))
        else:
            source, name = source_of(backbone)
            n_channels = 3 if settings is None else settings.n_channels
            build = import_module(SOURCES[source]).build
            body = build(name, weights, n_channels=n_channels, stem=stem, truncate_at=truncate_at)
        network = Backbone(body.module, settings or body.preprocessing)
        network.offline_name = body.offline_name
        if not body.trainable and projection:
            raise ValueError(f"backbone {backbone!r} cannot be trained. Use finetune='none'.")
        if projection:
            layer = nn.Linear(embedding_dim(network), PROJECTION_DIM)
            network.projection = nn.Sequential(layer, nn.ReLU())
    return network.to(memory_format=torch.channels_last)


def build_statistics(learnt: bool, random_state: int = 0) -> Backbone:
    """Build the embedding of residual statistics.

    ``learnt`` puts two layers of 512 and 256 features, drawn from ``random_state``, on the
    standardised statistics; else they are the embedding as they are.
    """
    if not learnt:
        return Backbone(None, RAW, nn.Identity())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        layers = nn.Sequential(
            Standardise(STATISTICS_DIM),
            nn.Linear(STATISTICS_DIM, 2 * PROJECTION_DIM),
            nn.ReLU(),
            nn.Dropout(0.3),  # there are few sources and many rows
            nn.Linear(2 * PROJECTION_DIM, PROJECTION_DIM),
            nn.ReLU(),
        )
    return Backbone(None, RAW, layers)


class Pooled(nn.Module):
    """Average a map (N, d, h, w) over its pixels; an embedding (N, d) stays as it is."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return (N, d)."""
        return values.mean(dim=(2, 3)) if values.ndim == 4 else values.flatten(1)
