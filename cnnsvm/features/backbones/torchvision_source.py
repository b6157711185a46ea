"""torchvision's networks, and two plain CNNs of our own."""

import os
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn

from cnnsvm.features.backbones import Body
from cnnsvm.features.backbones.network import MeanAndDeviation
from cnnsvm.features.backbones.plain_cnn import PLAIN_CNN, PLAIN_CNN_7, PlainCNN, PlainCNN7
from cnnsvm.features.backbones.stems import set_channels, set_stem
from cnnsvm.features.backbones.weights import load_weights


def _cut_fc(network: Any) -> nn.Module:
    network.fc = nn.Identity()
    return network


def _cut_features(network: Any) -> nn.Module:
    return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _cut_densenet(network: Any) -> nn.Module:
    # its feature stack ends in a batch norm whose ReLU torchvision applies in forward
    return nn.Sequential(network.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


_FC = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")
_FEATURES = (
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "efficientnet_b0", "efficientnet_b2"),
)
_PLAIN: dict[str, Callable[[], nn.Module]] = {PLAIN_CNN: PlainCNN, PLAIN_CNN_7: PlainCNN7}

#: Name of each network -> function that cuts it at its pooled embedding.
BACKBONES: dict[str, Callable[[nn.Module], nn.Module]] = {
    **dict.fromkeys(_FC, _cut_fc),
    **dict.fromkeys(_FEATURES, _cut_features),
    **dict.fromkeys(("densenet121", "densenet169"), _cut_densenet),
    **dict.fromkeys(_PLAIN, _cut_features),
}


def build(
    name: str,
    weights: str | os.PathLike[str] | None,
    *,
    n_channels: int,
    stem: str,
    truncate_at: Any,
) -> Body:
    """Build one of `BACKBONES` (see `cnnsvm.features.backbones.build_backbone`)."""
    if name not in BACKBONES:
        raise ValueError(
            f"backbone {name!r} is not known. Choose one of {', '.join(sorted(BACKBONES))}, or "
            "'timm:NAME', 'hf:ID', 'onnx:FILE'."
        )
    own = _PLAIN.get(name)
    network = own() if own else torchvision.models.get_model(name, weights=None)
    set_channels(network, n_channels)
    if weights is not None:
        load_weights(network, name, weights)
    set_stem(network, stem)
    return Body(_cut(network, name, truncate_at))


def _cut(network: Any, name: str, truncate_at: str | None) -> nn.Module:
    if truncate_at is None:
        return BACKBONES[name](network)
    stages = dict((getattr(network, "features", network)).named_children())
    allowed = [stage for stage in stages if stage not in ("avgpool", "fc")]
    if truncate_at not in allowed:
        raise ValueError(
            f"truncate_at must name a stage of {name}, got {truncate_at!r}. Choose one of "
            f"{', '.join(allowed)}."
        )
    body = nn.Sequential()
    for stage in allowed[: allowed.index(truncate_at) + 1]:
        body.add_module(stage, stages[stage])
    body.add_module("pooled", MeanAndDeviation())
    return body
