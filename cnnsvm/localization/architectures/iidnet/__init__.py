"""IID-Net (Wu & Zhou, IEEE TCSVT 32(3), 2022): enhancement, searched cells, attention, decision."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from cnnsvm.localization.architectures.iidnet.layers import (
    Enhancement,
    GlobalAttention,
    LocalAttention,
)

N_CELLS = 10
#: Operations that a genotype chooses in each cell; only the last may halve the maps.
N_CHOICES = 3

Genotype = tuple[tuple[str, ...], ...]
#: What Wu & Zhou found among 1,000 sampled candidates (IEEE TCSVT 32(3), 2022; the values are
#: those of their repository HighwayWu/InpaintingForensics).
PUBLISHED: Genotype = (
    ("separable_3x3", "identity", "dilated_3x3"),
    ("separable_5x5", "dilated_3x3", "dilated_3x3"),
    ("identity", "separable_5x5", "dilated_3x3"),
    ("separable_3x3", "dilated_3x3", "separable_3x3"),
    ("dilated_3x3", "separable_5x5", "dilated_3x3"),
    ("dilated_3x3", "separable_3x3", "dilated_3x3"),
    ("separable_5x5", "identity", "separable_5x5"),
    ("identity", "identity", "dilated_3x3"),
    ("separable_5x5", "separable_5x5", "dilated_3x3"),
    ("dilated_3x3", "separable_3x3", "identity"),
)
#: Scale of what a new cell adds to what it passes on. At 1, the default of a batch norm, ten cells
#: had a pixel AUC of .72 after 300 steps on VAE splices of 64 pixels, which is what the place of a
#: pixel tells alone; at 0 .95 (one run each; Goyal et al., arXiv 1706.02677, begin at 0 too, but
#: gradients need a little to reach every parameter).
FIRST_SCALE = 0.01
#: Name of a size -> width and decoder of an `IidNet`. Seven eighths of the published network's
#: multiply-adds are its decoder's, so the others taper it.
SIZES: dict[str, tuple[int, tuple[int, int]]] = {
    "published": (64, (256, 256)),
    "light": (64, (128, 64)),
    "small": (32, (64, 32)),
}


def build_iidnet(
    size: str = "published", genotype: Sequence[Sequence[str]] = PUBLISHED
) -> nn.Module:
    """Build IID-Net.

    The sizes "published", "light" and "small" have 5.8, 3.4 and 0.9 million parameters: "light" has
    a narrower decoder, "small" also half the channels in its cells. ``genotype`` lists the
    operations of the 10 cells, 3 keys of `OPERATIONS` each. A ValueError is raised if the size is
    not known or the genotype is none.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    return IidNet(check_genotype(genotype), *SIZES[size])


class IidNet(nn.Module):
    """Image inpainting detection network (Wu & Zhou, IEEE TCSVT 32(3), 2022).

    ``width`` is the number of channels of the first maps, 64 in the paper; the cells have two and
    four times as many. ``decoder`` has the channels at a quarter and at half of the image's size,
    256 and 256 in the paper.
    """

    def __init__(
        self, genotype: Genotype, width: int = 64, decoder: tuple[int, int] = (256, 256)
    ) -> None:
        super().__init__()
        wide = 4 * width
        self.enhance = Enhancement()
        self.stem = nn.Sequential(
            *_convolution(Enhancement.n_outputs, width // 2, stride=2),
            *_convolution(width // 2, width),
        )
        self.cells = nn.Sequential(
            Cell(width, 2 * width, genotype[0], stride=2),
            Cell(2 * width, wide, genotype[1], stride=2),
            Cell(wide, wide, genotype[2]),
            *(Cell(wide, wide, gene, dilation=2) for gene in genotype[3:]),
        )
        self.look_everywhere = GlobalAttention()
        self.look_around = LocalAttention()
        coarse, fine = decoder
        self.decide = nn.Sequential(
            _double(),
            *_convolution(3 * wide, coarse),
            *_convolution(coarse, coarse),
            _double(),
            *_convolution(coarse, fine),
            *_convolution(fine, fine),
            nn.Conv2d(fine, 1, 3, padding=1),
            _double(),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 (N, 3, H, W), H and W multiples of 8, to logits (N, 1, H, W)."""
        traces = self.enhance(pixels).contiguous(memory_format=torch.channels_last)
        features = self.cells(self.stem(traces))
        parts = [features, self.look_everywhere(features), self.look_around(features)]
        return self.decide(torch.cat([part.to(features.dtype) for part in parts], dim=1))


class Cell(nn.Module):
    """A residual block: an entry, then the operations that a genotype names for this cell.

    The stride is that of the last operation, the dilation that of all others.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        operations: tuple[str, ...],
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        first = normalised_separable(n_inputs, n_outputs, dilation=dilation)
        middle = [OPERATIONS[name](n_outputs, 1, dilation) for name in operations[:-1]]
        last = OPERATIONS[operations[-1]](n_outputs, stride, 1)
        self.layers = nn.Sequential(
            *(_activated(layer, n_outputs) for layer in (first, *middle)),
            _activated(last, n_outputs, FIRST_SCALE),
        )
        self.skip: nn.Module = nn.Identity()
        if n_inputs != n_outputs or stride != 1:
            self.skip = nn.Sequential(
                nn.Conv2d(n_inputs, n_outputs, 1, stride, bias=False), nn.BatchNorm2d(n_outputs)
            )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (N, n_inputs, H, W) to (N, n_outputs, H / stride, W / stride)."""
        return self.layers(values) + self.skip(values)


def check_genotype(genotype: Sequence[Sequence[str]]) -> Genotype:
    """Return a genotype, 10 cells of 3 known operations, as tuples (or a ValueError)."""
    if isinstance(genotype, str) or len(genotype) != N_CELLS:
        raise ValueError(
            f"a genotype must list {N_CELLS} cells, got {len(genotype)}: {genotype!r}. "
            "None takes the published one."
        )
    for number, cell in enumerate(genotype, start=1):
        if isinstance(cell, str) or len(cell) != N_CHOICES:
            raise ValueError(f"cell {number} must list {N_CHOICES} operations, got {cell!r}.")
        for name in cell:
            if name not in OPERATIONS:
                raise ValueError(
                    f"operation {name!r} of cell {number} is not known. Choose one of "
                    f"{', '.join(OPERATIONS)}."
                )
    return tuple(tuple(cell) for cell in genotype)


def _activated(layer: nn.Module, channels: int, scale: float = 1.0) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(nn.ReLU(), layer, norm)


def _convolution(n_inputs: int, n_outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(n_inputs, n_outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(),
    ]


def _double() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear")


def separable(n_inputs: int, n_outputs: int, kernel: int, stride: int) -> nn.Module:
    """Build a depthwise convolution and the 1x1 convolution that mixes its channels."""
    return nn.Sequential(
        _depthwise(n_inputs, kernel, stride, 1),
        nn.Conv2d(n_inputs, n_outputs, 1, bias=False),
    )


def normalised_separable(
    n_inputs: int, n_outputs: int, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Build a 3x3 `separable` with a batch norm between its halves, as in Xception."""
    return nn.Sequential(
        _depthwise(n_inputs, 3, stride, dilation),
        nn.BatchNorm2d(n_inputs),
        nn.Conv2d(n_inputs, n_outputs, 1, bias=False),
    )


def _depthwise(channels: int, kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = kernel // 2 * dilation
    return nn.Conv2d(
        *(channels, channels, kernel, stride, padding, dilation), groups=channels, bias=False
    )


def _pass(channels: int, stride: int, dilation: int) -> nn.Module:
    # where a cell halves its maps, doing nothing is to average
    return nn.Identity() if stride == 1 else nn.AvgPool2d(stride)


#: Name -> function (channels, stride, dilation) -> layer that keeps the number of channels.
OPERATIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "dilated_3x3": lambda n, stride, dilation: normalised_separable(n, n, stride, dilation),
    "separable_3x3": lambda n, stride, dilation: separable(n, n, 3, stride),
    "separable_5x5": lambda n, stride, dilation: separable(n, n, 5, stride),
    "identity": _pass,
}
