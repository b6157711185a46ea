"""Pictures of any size for networks that halve their maps three times."""

import torch
from torch import nn

#: What height and width must be multiples of inside the networks, in pixels.
STRIDE = 8
#: Smallest height and width inside. At stride 8 they leave maps of 4x4, and batch norm needs more
#: than one value a channel when it trains on a single picture.
LEAST = 32


class AnySize(nn.Module):
    """Mirror pictures up to a size that the body can take, and crop its answer back.

    Mirrored, as repeated border pixels would look smoothed, which is a trace of repainting.

    Parameters
    ----------
    body : nn.Module
        From uint8 pixels (N, 3, h, w) to logits (N, 1, h, w), for h and w that are multiples of
        `STRIDE` and at least `LEAST`.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Localise.

        Parameters
        ----------
        pixels : uint8 tensor, shape (N, 3, H, W)
            RGB, 0-255, H and W from 1 up.

        Returns
        -------
        float32 tensor, shape (N, 1, H, W)
            Logits: above 0 where the pixel looks repainted.

        Raises
        ------
        ValueError
            If the pixels have another dtype or shape.
        """
        _check_pixels(pixels)
        height, width = pixels.shape[2:]
        logits = self.body(mirror_up(pixels))
        return logits[:, :, :height, :width].float()


def mirror_up(pixels: torch.Tensor) -> torch.Tensor:
    """Extend a batch (N, C, H, W) below and to the right by its mirror image, as often as needed.

    Returns
    -------
    tensor, shape (N, C, h, w)
        Of the same dtype; h and w are the next multiples of `STRIDE` from `LEAST` up.
    """
    for dim in (2, 3):
        size = pixels.shape[dim]
        target = max(LEAST, -(-size // STRIDE) * STRIDE)
        if target != size:
            pixels = pixels.index_select(dim, _mirrored(size, target, pixels.device))
    return pixels


def _mirrored(size: int, target: int, device: torch.device) -> torch.Tensor:
    """Count 0, 1, .., size - 1, size - 2, .., 0, 1, .. up to ``target`` numbers."""
    period = max(2 * (size - 1), 1)
    steps = torch.arange(target, device=device) % period
    return torch.minimum(steps, period - steps)


def _check_pixels(pixels: torch.Tensor) -> None:
    shape = tuple(pixels.shape)
    if pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise ValueError(
            f"pixels must be uint8 of shape (N, 3, H, W), RGB 0-255, got {pixels.dtype} of shape "
            f"{shape}. The networks scale pixels themselves: pass them as they are read."
        )
