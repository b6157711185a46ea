"""How pixels become a network's input."""

from dataclasses import asdict, dataclass
from typing import Any

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
    """Filter each channel of grey levels (N, C, H, W) with each kernel and clamp.

    ``filters`` are keys of `FILTERS`. Returns float (N, C * len(filters), H, W) in [-limit, limit]:
    the residuals of the first channel, then those of the next.
    """
    kernels = torch.tensor([FILTERS[name] for name in filters], device=pixels.device)
    n_channels = pixels.shape[1]
    weight = kernels.to(pixels.dtype).repeat(n_channels, 1, 1)[:, None]
    padded = nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(pixels.device.type, enabled=False):  # bfloat16 has 8 bits of mantissa
        residuals = nn.functional.conv2d(padded, weight, groups=n_channels)
    return residuals.clamp(-limit, limit)


@dataclass(frozen=True)
class Preprocessing:
    """How pixels 0-255 become a network's input: ``(pixels * scale - mean) / std``.

    ``mean`` and ``std`` are in the network's own channel order, "rgb" or "bgr", and scale; they are
    not used on residuals. With ``residual`` each channel is first replaced by its high-pass
    residuals, clamped to plus or minus so many grey levels: the image's content goes, traces of its
    making stay. ``filters`` are their kernels, keys of `FILTERS`; the input then has three channels
    for each.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    channels: str = "rgb"
    residual: float | None = None
    filters: tuple[str, ...] = ("square",)

    def __post_init__(self) -> None:
        unknown = [name for name in self.filters if name not in FILTERS]
        if unknown or not self.filters:
            raise ValueError(
                f"filters must name some of {', '.join(FILTERS)}, got {self.filters!r}."
            )

    @property
    def n_channels(self) -> int:
        """Channels of the network's input."""
        return 3 if self.residual is None else 3 * len(self.filters)


#: "imagenet" is torchvision's; "caffe" is that of networks converted from Caffe. The others are for
#: networks that are trained from scratch, as no pretrained one has seen residuals: "residual" of
#: one kernel, "residual_bank" of six, which tells more at little more cost.
PREPROCESSING = {
    "imagenet": Preprocessing(),
    "caffe": Preprocessing((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 1.0, "bgr"),
    "residual": Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 4, residual=8.0),
    "residual_bank": Preprocessing(
        (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 4, residual=8.0, filters=tuple(FILTERS)
    ),
}


#: Grey levels as they are.
RAW = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0)


def as_preprocessing(value: str | dict[str, Any] | Preprocessing) -> Preprocessing:
    """Look up a `Preprocessing` by name, or make one of its fields."""
    if isinstance(value, Preprocessing):
        return value
    if isinstance(value, dict):
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items()
        }
        return Preprocessing(**fields)
    if value not in PREPROCESSING:
        raise ValueError(
            f"preprocessing {value!r} is not known. Choose one of {', '.join(PREPROCESSING)}, or "
            f"give a dict with {', '.join(asdict(Preprocessing()))}."
        )
    return PREPROCESSING[value]


class InputLayer(nn.Module):
    """The first, fixed layer of a backbone: applies a `Preprocessing`."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(shape), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn a uint8 batch of shape (N, 3, H, W), RGB, into float (N, n_channels, H, W)."""
        settings = self.preprocessing
        values = pixels.float()
        if settings.residual is not None:
            return high_pass(values, settings.residual, settings.filters) * settings.scale
        scaled = values * settings.scale
        if settings.channels == "bgr":
            scaled = scaled.flip(1)
        return (scaled - self.mean) / self.std
