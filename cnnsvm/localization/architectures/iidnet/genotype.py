"""What a cell of IID-Net does: operations by name, and which cell has which."""

from collections.abc import Callable, Sequence

from torch import nn

N_CELLS = 10
#: Operations that a genotype chooses in each cell; only the last may halve the maps.
N_CHOICES = 3

Genotype = tuple[tuple[str, ...], ...]


def separable(
    n_inputs: int, n_outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Build a depthwise convolution and the 1x1 convolution that mixes its channels."""
    return nn.Sequential(_depthwise(n_inputs, kernel, stride, dilation), _mix(n_inputs, n_outputs))


def normalised_separable(
    n_inputs: int, n_outputs: int, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Build a 3x3 `separable` with a batch norm between its halves, as in Xception."""
    return nn.Sequential(
        _depthwise(n_inputs, 3, stride, dilation),
        nn.BatchNorm2d(n_inputs),
        _mix(n_inputs, n_outputs),
    )


def _depthwise(channels: int, kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = kernel // 2 * dilation
    return nn.Conv2d(
        *(channels, channels, kernel, stride, padding, dilation), groups=channels, bias=False
    )


def _mix(n_inputs: int, n_outputs: int) -> nn.Conv2d:
    return nn.Conv2d(n_inputs, n_outputs, 1, bias=False)


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


def check_genotype(genotype: Sequence[Sequence[str]]) -> Genotype:
    """Return a genotype as tuples.

    Parameters
    ----------
    genotype : sequence of 10 sequences of 3 str
        Operations of each cell, keys of `OPERATIONS`; such as JSON gives back.

    Raises
    ------
    ValueError
        If a number is wrong or an operation is not known.
    """
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
