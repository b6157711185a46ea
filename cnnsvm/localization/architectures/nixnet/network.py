"""NIX-Net: image and noise residual, fused across scales and streams."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from cnnsvm.features.preprocessing import PREPROCESSING, InputLayer
from cnnsvm.localization.architectures.nixnet.fusion import CrossScaleFusion, resample


class Stream(nn.Module):
    """Residual blocks at three scales, each half as large as the one before.

    Parameters
    ----------
    n_channels : int
        Of the input.
    widths : tuple of int
        Channels at each scale, finest first.
    depth : int
        Residual blocks a scale.
    """

    def __init__(self, n_channels: int, widths: tuple[int, ...], depth: int) -> None:
        super().__init__()
        inputs = (n_channels, *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                _halving_block(before, width),
                *(BasicBlock(width, width) for _ in range(depth - 1)),
            )
            for before, width in zip(inputs, widths, strict=True)
        )

    def forward(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Map (N, n_channels, H, W) to maps (N, widths[k], H / 2**(k + 1), W / 2**(k + 1))."""
        maps = []
        for stage in self.stages:
            values = stage(values)
            maps.append(values)
        return maps


class NixNet(nn.Module):
    """Noise-image cross-fusion network (Li et al., arXiv 2106.01532).

    Each stream fuses its scales; at each scale the streams are joined by a convolution; the joint
    maps are fused once more, enlarged to the finest scale and read out.

    Parameters
    ----------
    width : int
        Channels at the finest scale, which is half the picture's; they double at each next one.
    depth : int
        Residual blocks a scale and stream.
    """

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        bank = PREPROCESSING["residual_bank"]
        self.see = InputLayer(PREPROCESSING["imagenet"])
        self.listen = InputLayer(bank)
        self.image = Stream(3, widths, depth)
        self.noise = Stream(bank.n_channels, widths, depth)
        self.fuse_image = CrossScaleFusion(widths)
        self.fuse_noise = CrossScaleFusion(widths)
        self.join = nn.ModuleList(_convolution(2 * channels, channels) for channels in widths)
        self.fuse_joint = CrossScaleFusion(widths)
        self.enlarge = nn.ModuleList(resample(scale, 0, widths) for scale in range(3))
        self.head = nn.Sequential(
            _convolution(3 * width, width),
            nn.Conv2d(width, 1, 1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 (N, 3, H, W), H and W multiples of 8, to logits (N, 1, H, W)."""
        image, noise = (
            fuse(stream(enter(pixels).contiguous(memory_format=torch.channels_last)))
            for enter, stream, fuse in (
                (self.see, self.image, self.fuse_image),
                (self.listen, self.noise, self.fuse_noise),
            )
        )
        pairs = zip(self.join, image, noise, strict=True)
        joint = self.fuse_joint([join(torch.cat([a, b], dim=1)) for join, a, b in pairs])
        enlarged = [way(values) for way, values in zip(self.enlarge, joint, strict=True)]
        return self.head(torch.cat(enlarged, dim=1))


def _convolution(n_inputs: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(n_inputs, n_outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(),
    )


def _halving_block(n_inputs: int, n_outputs: int) -> BasicBlock:
    # The shortcut averages first, as a 1x1 convolution of stride 2 would skip three of four values
    # (He et al., "Bag of tricks", CVPR 2019, figure 2c), and its gradient overruns memory on CPUs
    # for fewer than 16 channels (oneDNN issue 6035).
    shortcut = nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(n_inputs, n_outputs, 1, bias=False),
        nn.BatchNorm2d(n_outputs),
    )
    return BasicBlock(n_inputs, n_outputs, stride=2, downsample=shortcut)
