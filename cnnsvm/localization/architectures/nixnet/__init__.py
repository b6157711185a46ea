"""NIX-Net (Li et al., arXiv 2106.01532) in sizes from 2 to 140 million parameters."""

from torch import nn

from cnnsvm.localization.architectures.nixnet.network import NixNet

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
    """Build NIX-Net.

    Parameters
    ----------
    size : str
        A key of `SIZES`. Those from 28m up are for GPUs; 2m trains on a CPU and is 9 MB on disk.

    Raises
    ------
    ValueError
        If the size is not known.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    return NixNet(*SIZES[size])


__all__ = ["SIZES", "NixNet", "build_nixnet"]
