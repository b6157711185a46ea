"""Exchange between the three scales of NIX-Net."""

import torch
from torch import nn


def resample(source: int, target: int, widths: tuple[int, ...]) -> nn.Module:
    """Build the way of maps from one scale to another; scale k is half as large as scale k - 1.

    Downwards a 3x3 convolution of stride 2 for each halving, upwards one 1x1 convolution before
    bilinear enlargement: the two commute, and this order is the cheaper.

    Parameters
    ----------
    source, target : int
        Positions in ``widths``.
    widths : tuple of int
        Channels at each scale.
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
    """Sum the maps of all scales at one of them.

    Parameters
    ----------
    target : int
        Position of that scale in ``widths``.
    widths : tuple of int
        Channels at each scale, finest first.
    """

    def __init__(self, target: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.ways = nn.ModuleList(resample(source, target, widths) for source in range(len(widths)))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Map a list of (N, widths[k], H / 2**k, W / 2**k) to one of its shapes, at least 0."""
        first, *rest = (way(values) for way, values in zip(self.ways, maps, strict=True))
        return torch.relu(sum(rest, start=first))


class CrossScaleFusion(nn.Module):
    """Give each scale the sum of all, resampled (Wang et al., "HRNet", IEEE TPAMI 43(10), 2021).

    Parameters
    ----------
    widths : tuple of int
        Channels at each scale, finest first.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.sums = nn.ModuleList(ScaleSum(target, widths) for target in range(len(widths)))

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Map a list of (N, widths[k], H / 2**k, W / 2**k) to another of the same shapes."""
        return [at_scale(maps) for at_scale in self.sums]
