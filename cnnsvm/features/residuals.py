"""High-pass residuals: what a picture shows goes, what made it stays."""

import torch
from torch import nn

#: Kernels of the spatial rich model (Fridrich & Kodovsky, IEEE TIFS 7(3), 2012), each scaled so
#: that its centre is -1: differences to one neighbour across, down and along the diagonal, second
#: differences across and down, and the 3x3 "square".
FILTERS: dict[str, tuple[tuple[float, ...], ...]] = {
    "across": ((0, 0, 0), (0, -1, 1), (0, 0, 0)),
    "down": ((0, 0, 0), (0, -1, 0), (0, 1, 0)),
    "across2": ((0, 0, 0), (0.5, -1, 0.5), (0, 0, 0)),
    "down2": ((0, 0.5, 0), (0, -1, 0), (0, 0.5, 0)),
    "diagonal2": ((0.5, 0, 0), (0, -1, 0), (0, 0, 0.5)),
    "square": ((-0.25, 0.5, -0.25), (0.5, -1, 0.5), (-0.25, 0.5, -0.25)),
}


def high_pass(
    pixels: torch.Tensor, limit: float, filters: tuple[str, ...] = ("square",)
) -> torch.Tensor:
    """Filter each channel with each kernel and clamp.

    Parameters
    ----------
    pixels : float tensor, shape (N, C, H, W)
        Grey levels 0-255.
    limit : float
        Largest residual kept, in grey levels.
    filters : tuple of str
        Keys of `FILTERS`.

    Returns
    -------
    float tensor, shape (N, C * len(filters), H, W), values in [-limit, limit]
        The residuals of the first channel, then those of the next.
    """
    kernels = torch.tensor([FILTERS[name] for name in filters], device=pixels.device)
    n_channels = pixels.shape[1]
    weight = kernels.to(pixels.dtype).repeat(n_channels, 1, 1)[:, None]
    padded = nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(pixels.device.type, enabled=False):  # bfloat16 has 8 bits of mantissa
        residuals = nn.functional.conv2d(padded, weight, groups=n_channels)
    return residuals.clamp(-limit, limit)
