"""IID-Net (Wu & Zhou, IEEE TCSVT 32(3), 2022)."""

from collections.abc import Sequence

from torch import nn

from cnnsvm.localization.architectures.iidnet.genotype import (
    OPERATIONS,
    PUBLISHED,
    Genotype,
    check_genotype,
)
from cnnsvm.localization.architectures.iidnet.network import IidNet

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

    Parameters
    ----------
    size : {"published", "light", "small"}
        5.8, 3.4 and 0.9 million parameters. "light" has a narrower decoder, "small" also half the
        channels in its cells.
    genotype : sequence of 10 sequences of 3 str
        Operations of the cells, keys of `OPERATIONS`.

    Raises
    ------
    ValueError
        If the size is not known or the genotype is none.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    return IidNet(check_genotype(genotype), *SIZES[size])


__all__ = ["OPERATIONS", "PUBLISHED", "SIZES", "Genotype", "IidNet", "build_iidnet"]
