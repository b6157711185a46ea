"""torchvision's networks, and two plain CNNs of our own."""

import os
from collections.abc import Callable
from typing import Any

from torch import nn

from cnnsvm.features.backbones import Body
from cnnsvm.features.backbones.network import MeanAndDeviation
from cnnsvm.features.backbones.stems import set_channels, set_stem
from cnnsvm.features.backbones.weights import load_weights

PLAIN_CNN = "plain_cnn"
PLAIN_CNN_7 = "plain_cnn_7"


class PlainCNN(nn.Module):
    """Four times convolution, batch norm, ReLU and 2x2 max pool: what a deeper one has to beat.

    Torchvision has nothing as small; the classifiers published with CIFAKE are of this kind.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.features = nn.Sequential()
        for before, after in zip((3, *widths[:-1]), widths, strict=True):
            self.features.extend(_convolution(before, after))
            self.features.append(_pool())


class PlainCNN7(nn.Module):
    """Seven convolutions: one at full size, then three stages of two that halve it.

    The pool of a stage stands behind its first convolution, before the batch norm, as in Jordan,
    "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv:2404.00498), whose first layer is a
    fixed one instead. For images of 32 pixels: 60 million multiply-adds, a seventh of those of
    a ResNet-18 that is cut after its third stage.
    """

    def __init__(self, widths: tuple[int, ...] = (48, 128, 192)) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("first", nn.Sequential(*_convolution(3, FIRST_WIDTH)))
        for number, (before, after) in enumerate(
            zip((FIRST_WIDTH, *widths[:-1]), widths, strict=True), start=1
        ):
            convolution, *rest = _convolution(before, after)
            stage = nn.Sequential(convolution, _pool(), *rest, *_convolution(after, after))
            self.features.add_module(f"stage{number}", stage)


FIRST_WIDTH = 24


def _convolution(before: int, after: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.ReLU()]


def _pool() -> nn.Module:
    return nn.MaxPool2d(2, ceil_mode=True)  # a last odd row counts too


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
    network = _PLAIN[name]() if name in _PLAIN else _torchvisions(name)
    set_channels(network, n_channels)
    if weights is not None:
        load_weights(network, name, weights)
    set_stem(network, stem)
    return Body(_cut(network, name, truncate_at))


def _torchvisions(name: str) -> nn.Module:
    import torchvision  # a second and a half, which most calls need not wait for

    network: nn.Module = torchvision.models.get_model(name, weights=None)
    return network


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
