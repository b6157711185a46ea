"""Small generators: autoencoders and a denoiser with different fingerprints.

The last layers of a decoder leave a fingerprint in its images. This family varies upsampling,
factor, bottleneck and loss, so that a detector can be trained on many fingerprints and tested on
an unseen one.
"""

from dataclasses import dataclass

import torch
from torch import nn

UPSAMPLINGS = ("nearest", "bilinear", "transposed", "pixelshuffle")
BOTTLENECKS = ("kl", "vq")
LOSSES = ("l1", "pyramid", "adversarial")
FACTORS = (4, 8)
#: Channels of the latent of each enlargement: as many as keep the round trip above about 25 dB.
LATENT_CHANNELS = {4: 8, 8: 32}
N_CODES = 256
CODE_DIM = 4
_NORM_GROUPS = 8
_MAX_WIDTH = 512
_HEIGHT_OF_A_LOG = 30.0


@dataclass(frozen=True)
class DecoderSpec:
    """Architecture of an autoencoder; a `ValueError` if a value is not allowed.

    ``upsampling`` is how the decoder doubles its sides: interpolation and a convolution, a
    transposed convolution (Zeiler et al., CVPR 2010), or sub-pixel convolution (Shi et al., CVPR
    2016). ``factor`` is the sides of the image over those of the latent. The ``bottleneck`` is
    "kl", a normal posterior (Kingma & Welling, ICLR 2014), or "vq", vectors out of a codebook (van
    den Oord et al., NeurIPS 2017). The ``loss`` is the mean absolute error, alone ("l1"), with that
    of three levels of a Laplacian pyramid, or with a patch discriminator (Isola et al., CVPR 2017).
    ``width`` is the number of channels at the finest level, a multiple of 8 from 8 to 512.
    """

    upsampling: str
    factor: int
    bottleneck: str
    loss: str
    width: int = 24

    def __post_init__(self) -> None:
        choices = {"upsampling": UPSAMPLINGS, "factor": FACTORS}
        for name, allowed in (choices | {"bottleneck": BOTTLENECKS, "loss": LOSSES}).items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")
        check_width(self.width)

    @property
    def name(self) -> str:
        """Such as ``nearest-8-kl-l1``."""
        return f"{self.upsampling}-{self.factor}-{self.bottleneck}-{self.loss}"


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_NORM_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        return values + self.layers(values)


class KlBottleneck(nn.Module):
    """Normal posterior: sampled in training, its mode otherwise."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.inwards = nn.Conv2d(width, 2 * channels, 1)
        self.outwards = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latent, mapped back to (N, width, h, w), and the KL divergence a value."""
        mean, log_variance = self.inwards(values).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-_HEIGHT_OF_A_LOG, _HEIGHT_OF_A_LOG)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        if self.training:
            mean = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return self.outwards(mean), 1e-4 * divergence


class VqBottleneck(nn.Module):
    """Each group of 4 channels becomes the nearest of 256 learnt vectors.

    In training the gradient goes straight through.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.n_groups = channels // CODE_DIM
        self.inwards = nn.Conv2d(width, channels, 1)
        self.codes = nn.Parameter(torch.randn(self.n_groups, N_CODES, CODE_DIM))
        self.outwards = nn.Conv2d(channels, width, 3, padding=1)

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the quantised latent, mapped back to (N, width, h, w), and the commitment loss."""
        latent = self.inwards(values).float()
        n, _, height, width = latent.shape
        parts = latent.view(n, self.n_groups, CODE_DIM, -1).permute(1, 0, 3, 2).flatten(1, 2)
        nearest = torch.cdist(parts, self.codes.float()).argmin(dim=2)
        found = torch.gather(self.codes, 1, nearest[..., None].expand(-1, -1, CODE_DIM))
        found = found.view(self.n_groups, n, height * width, CODE_DIM).permute(1, 0, 3, 2)
        quantised = found.reshape(latent.shape)
        gap = (quantised - latent.detach()).pow(2).mean()
        commitment = (latent - quantised.detach()).pow(2).mean()
        if self.training:  # the gradient of what was quantised; its rounding is no matter here
            quantised = latent + (quantised - latent).detach()
        return self.outwards(quantised), gap + 0.25 * commitment


class Autoencoder(nn.Module):
    """Convolutional autoencoder after a `DecoderSpec`, for sides that are multiples of 8.

    Values are RGB in [-1, 1].
    """

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.name = spec.name
        widths = [spec.width * min(2**i, 4) for i in range({4: 2, 8: 3}[spec.factor])]
        deepest, channels = widths[-1], LATENT_CHANNELS[spec.factor]
        down: list[nn.Module] = []
        for before, after in zip([3, *widths[:-1]], widths, strict=True):
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1), ResidualBlock(after)]
        self.encoder = nn.Sequential(*down)
        kind = KlBottleneck if spec.bottleneck == "kl" else VqBottleneck
        self.bottleneck = kind(deepest, channels)
        up: list[nn.Module] = [ResidualBlock(deepest)]
        for before, after in zip(widths[::-1], [*widths[-2::-1], spec.width], strict=True):
            up += [_enlarge(spec.upsampling, before, after), nn.SiLU()]
            up += [ResidualBlock(after)]
        up[-1] = nn.Identity()  # the finest level keeps to two convolutions
        self.decoder = nn.Sequential(*up, nn.Conv2d(spec.width, 3, 3, padding=1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the round trip of (N, 3, H, W) and the bottleneck's loss."""
        latent, penalty = self.bottleneck(self.encoder(images))
        return self.decoder(latent), penalty


class Denoiser(nn.Module):
    """Small U-Net that predicts the noise in an image, for pixel-space diffusion.

    Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020. Values are RGB
    in [-1, 1]; sides are multiples of 4. The noise level enters as a constant channel. ``width``
    is that of a `DecoderSpec`.
    """

    name = "denoiser"

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        check_width(width)
        self.width = width
        self.enter = nn.Conv2d(4, width, 3, padding=1)
        self.fine = ResidualBlock(width)
        self.down1 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.middle = ResidualBlock(2 * width)
        self.down2 = nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1)
        self.coarse = nn.Sequential(ResidualBlock(4 * width), ResidualBlock(4 * width))
        self.up2 = _enlarge("nearest", 4 * width, 2 * width)
        self.middle_back = ResidualBlock(2 * width)
        self.up1 = _enlarge("nearest", 2 * width, width)
        self.leave = nn.Sequential(
            ResidualBlock(width), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)
        )

    def forward(self, noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Predict the noise of (N, 3, H, W) at levels (N,) in [0, 1]."""
        channel = level.view(-1, 1, 1, 1).expand(-1, 1, *noisy.shape[2:])
        fine = self.fine(self.enter(torch.cat([noisy, channel.to(noisy.dtype)], dim=1)))
        middle = self.middle(self.down1(fine))
        coarse = self.coarse(self.down2(middle))
        back = self.middle_back(middle + self.up2(coarse))
        return self.leave(fine + self.up1(back))


def signal_and_noise(level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn levels (N,) in [0, 1] into the shares of image and noise, shape (N, 1, 1, 1).

    The cosine schedule of Nichol and Dhariwal, "Improved denoising diffusion probabilistic
    models", ICML 2021: their squares sum to 1.
    """
    angle = level.view(-1, 1, 1, 1) * torch.pi / 2
    return angle.cos(), angle.sin()


def check_width(width: object) -> None:
    """Refuse a width that the normalisation cannot split into its groups (`ValueError`)."""
    whole = isinstance(width, int) and not isinstance(width, bool)
    if not whole or width % _NORM_GROUPS or not _NORM_GROUPS <= width <= _MAX_WIDTH:  # type: ignore[operator]
        raise ValueError(
            f"width must be a multiple of {_NORM_GROUPS} from {_NORM_GROUPS} to {_MAX_WIDTH}, "
            f"got {width!r}."
        )


def _enlarge(upsampling: str, before: int, after: int) -> nn.Module:
    """Double the sides of (N, before, H, W) and map to ``after`` channels."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
    if upsampling == "pixelshuffle":
        return nn.Sequential(nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2))
    smooth = {"align_corners": False} if upsampling == "bilinear" else {}
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode=upsampling, **smooth),
        nn.Conv2d(before, after, 3, padding=1),
    )
