"""FCN-ResNet50: torchvision's fully convolutional network with one output channel."""

import os
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck

from cnnsvm.features.backbones.stems import set_channels
from cnnsvm.features.backbones.weights import load_weights
from cnnsvm.features.preprocessing import InputLayer, Preprocessing, as_preprocessing

#: Of the last batch norm of a residual block.
FIRST_SCALE = 0.01


class Fcn(nn.Module):
    """Fully convolutional ResNet-50 of stride 8 (Shelhamer et al., IEEE TPAMI 39(4), 2017)."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.enter = InputLayer(preprocessing)
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 (N, 3, H, W) to logits (N, 1, H, W)."""
        values = self.enter(pixels).contiguous(memory_format=torch.channels_last)
        return self.network(values)["out"]


def build_fcn(
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | dict[str, Any] = "residual_bank",
) -> nn.Module:
    """Build FCN-ResNet50 without the auxiliary head, which serves training on COCO only.

    With random weights its residual blocks begin close to the identity: the scale of the last batch
    norm of each is `FIRST_SCALE` (nearly the zero of Goyal et al., arXiv 1706.02677, but gradients
    reach all). Without that its pixel AUC on spliced paintings was .71 (that of where masks tend to
    lie) after 120 steps of 8 patches of 64 pixels, with it .84 after 150 (one run each).

    ``weights`` are those of the ResNet-50: None for random ones, "imagenet" for torchvision's, or a
    file with torchvision's names. They were trained on colours and need
    ``preprocessing="imagenet"`` (see `cnnsvm.features.backbones.build_backbone`). From random
    weights the network finds the trace of repainting in residuals within some hundred steps, and in
    colours not. A WeightsError is raised if the weights cannot be had or do not fit, and a
    ValueError if the preprocessing is not known, or does not fit the weights.
    """
    settings = as_preprocessing(preprocessing)
    network = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=1, aux_loss=False
    )
    set_channels(network.backbone, settings.n_channels)
    for block in network.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, FIRST_SCALE)
    if weights is not None:
        if settings.residual is not None:
            raise ValueError(
                f"weights={os.fspath(weights)!r} were trained on colours and preprocessing="
                f"{preprocessing!r} gives residuals. Use preprocessing='imagenet' or weights=None."
            )
        resnet = torchvision.models.resnet50(weights=None)
        load_weights(resnet, "resnet50", weights)
        network.backbone.load_state_dict(resnet.state_dict(), strict=False)  # all but its fc
    return Fcn(network, settings)
