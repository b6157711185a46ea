"""NIX-Net (Li et al., arXiv 2106.01532): image and noise residual, fused across scales."""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from cnnsvm.features.preprocessing import PREPROCESSING, InputLayer

#: Name of a size, its parameters in millions -> width and depth of a `NixNet`.
SIZES: dict[str, tuple[int, int]] = {
    "2m": (28, 2),
    "28m": (136, 1),
    "40m": (128, 2),
    "60m": (160, 2),
    "85m": (192, 2),
    "140m": (192, 4),
}


def build_nixnet(size: str = "28m") -> nn.Module:
    """Build NIX-Net in a size of `SIZES`: from 28m up for GPUs; 2m trains on a CPU."""
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    return NixNet(*SIZES[size])


def resample(source: int, target: int, widths: tuple[int, ...]) -> nn.Module:
    """Build the way of maps from one scale to another; scale k is half as large as scale k - 1.

    Downwards a 3x3 convolution of stride 2 for each halving, upwards one 1x1 convolution before
    bilinear enlargement: the two commute, and this order is the cheaper. ``widths`` are the
    channels at each scale, finest first.
    """
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(widths[source], widths[target], 1, bias=False),
            nn.BatchNorm2d(widths[target]),
            nn.Upsample(scale_factor=2 ** (source - target), mode="bilinear"),
        )
    layers: list[nn.Module] = []
    for scale in range(source, target):
        layers += [
            nn.Conv2d(widths[scale], widths[scale + 1], 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[scale + 1]),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers[:-1])


class ScaleSum(nn.Module):
    """Sum the maps of all scales at one of them."""

    def __init__(self, target: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.ways = nn.ModuleList(resample(source, target, widths) for source in range(len(widths)))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Map a list of (N, widths[k], H / 2**k, W / 2**k) to one of its shapes, at least 0."""
        first, *rest = (way(values) for way, values in zip(self.ways, maps, strict=True))
        return torch.relu(sum(rest, start=first))


class CrossScaleFusion(nn.Module):
    """Give each scale the sum of all, resampled (Wang et al., "HRNet", IEEE TPAMI 43(10), 2021)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.sums = nn.ModuleList(ScaleSum(target, widths) for target in range(len(widths)))

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map a list of (N, widths[k], H / 2**k, W / 2**k) to another of the same shapes."""
        return [at_scale(maps) for at_scale in self.sums]


class Stream(nn.Module):
    """Residual blocks, ``depth`` a scale, at three scales, each half as large as the one before."""

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
    maps are fused once more, enlarged to the finest scale and read out. ``width`` is the number of
    channels at the finest scale, half the image's size, which double at each next one; ``depth`` is
    the number of residual blocks a scale and stream.
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
