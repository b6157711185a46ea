"""Residual statistics: a hand-made embedding beside the network's.

A generator cannot draw the noise that a camera and its processing leave, and its upsampling
shapes the spectrum. Both show in what a high-pass filter lets through, whatever is depicted:

- `cooccurrence/*`: how often each run of three or four neighbouring residuals, quantised and
  truncated, occurs. This is the spatial rich model [1]_ cut down to the filters that matter most,
  with the symmetries of SPAM [2]_. The square roots of the frequencies are kept, so that a dot
  product compares two histograms by Hellinger's affinity [3]_.
- `spectrum/*`: the logarithm of the power spectrum of the residual (Welch's method [4]_) in a
  coarse grid. Resampling and upsampling show as peaks and band limits [5]_.
- `correlation`: how alike the residuals of the colour channels are, which demosaicking raises.

No statistic refers to the position of a pixel in the crop, hence none to the grid of JPEG blocks.

References
----------
.. [1] J. Fridrich, J. Kodovsky, "Rich models for steganalysis of digital images", IEEE
   Transactions on Information Forensics and Security 7(3), 2012.
.. [2] T. Pevny, P. Bas, J. Fridrich, "Steganalysis by subtractive pixel adjacency matrix", IEEE
   Transactions on Information Forensics and Security 5(2), 2010.
.. [3] A. Vedaldi, A. Zisserman, "Efficient additive kernels via explicit feature maps", IEEE
   Transactions on Pattern Analysis and Machine Intelligence 34(3), 2012.
.. [4] P. Welch, "The use of fast Fourier transform for the estimation of power spectra", IEEE
   Transactions on Audio and Electroacoustics 15(2), 1967.
.. [5] A. C. Popescu, H. Farid, "Exposing digital forgeries by detecting traces of resampling",
   IEEE Transactions on Signal Processing 53(2), 2005.
"""

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import one_hot, pad

MIN_SIDE = 16
TRUNCATION = 2
N_LEVELS = 2 * TRUNCATION + 1
N_BANDS = 8
#: Power, in squared grey levels a pixel, that counts as nothing: a tenth of what rounding to whole
#: grey levels adds, so that the logarithm of an empty band says "empty" and not how empty.
POWER_FLOOR = 0.01


class Cooccurrence(NamedTuple):
    """One histogram of runs of ``order`` residuals, quantised in steps of ``step`` grey levels.

    ``scans`` are the residuals whose runs are counted together, each with the axis of its runs: 1
    down, 2 across. Both directions share a histogram, for a crop is small.
    """

    scans: tuple[tuple[str, int], ...]
    order: int
    step: float


#: Long runs are quantised coarsely, to survive JPEG; short ones finely, to see faint noise.
COOCCURRENCES = {
    "first-along": Cooccurrence((("first-x", 2), ("first-y", 1)), order=3, step=1),
    "first-across": Cooccurrence((("first-x", 1), ("first-y", 2)), order=3, step=1),
    "second-along": Cooccurrence((("second-x", 2), ("second-y", 1)), order=4, step=2),
    "second-across": Cooccurrence((("second-x", 1), ("second-y", 2)), order=3, step=1),
    "square": Cooccurrence((("square", 2), ("square", 1)), order=4, step=2),
    "square-chroma": Cooccurrence(
        (("square-cb", 2), ("square-cb", 1), ("square-cr", 2), ("square-cr", 1)), order=3, step=0.5
    ),
}


@cache
def _orbits(order: int) -> np.ndarray:
    """Number the runs so that a run, its reversal and their negatives share a number."""
    levels = range(-TRUNCATION, TRUNCATION + 1)
    numbers: dict[tuple[int, ...], int] = {}
    orbits = []
    for run in itertools.product(levels, repeat=order):
        negative = tuple(-level for level in run)
        first = min(run, run[::-1], negative, negative[::-1])
        orbits.append(numbers.setdefault(first, len(numbers)))
    return np.array(orbits)


def _blocks() -> dict[str, slice]:
    sizes = {f"cooccurrence/{k}": int(_orbits(v.order).max()) + 1 for k, v in COOCCURRENCES.items()}
    sizes |= {"spectrum/luma": 1 + N_BANDS**2, "spectrum/chroma": 1 + N_BANDS**2, "correlation": 3}
    stops = list(itertools.accumulate(sizes.values()))
    return {
        name: slice(stop - size, stop)
        for (name, size), stop in zip(sizes.items(), stops, strict=True)
    }


#: Where each kind of statistic lies in a row, in the order of the columns.
STATISTICS_BLOCKS = _blocks()
STATISTICS_DIM = max(block.stop for block in STATISTICS_BLOCKS.values())


@torch.no_grad()
def residual_statistics(crops: torch.Tensor) -> torch.Tensor:
    """Describe what high-pass filters leave of each crop.

    A crop, its mirror images, its quarter turns and its photographic negative have the same
    co-occurrences and correlations. The mirror images and the negative have the same spectrum too
    where the sides are multiples of 16; of other crops the spectrum leaves out up to 15 pixels at
    the right and at the bottom.

    Parameters
    ----------
    crops : Tensor of uint8, shape (N, 3, H, W)
        RGB, 0 to 255, on any device, with H and W at least 16. The input is not changed.

    Returns
    -------
    Tensor of float32, shape (N, STATISTICS_DIM)
        On the device of ``crops`` and always finite. `STATISTICS_BLOCKS` says which columns are
        what:

        - ``cooccurrence/<filter>`` (39 columns for runs of three residuals, 169 for four): square
          roots of frequencies, whose squares sum to 1. ``first`` and ``second`` are differences
          of luma, run ``along`` the direction of the difference or ``across`` it; ``square`` is
          the 3x3 filter of second differences in both directions, on luma or both chroma.
        - ``spectrum/luma``, ``spectrum/chroma`` (65 each): the mean over all bands of the
          logarithm of the power (log energy; grey levels squared, natural logarithm), then what
          each band has above that mean. Bands are ordered by vertical, then horizontal frequency,
          eight equal steps each from 0 to 1/2 cycle a pixel.
        - ``correlation`` (3): of the residuals of R and G, G and B, R and B; 0 for a flat one.

    Raises
    ------
    ValueError
        If ``crops`` has another dtype or shape.
    """
    _check_crops(crops)
    if crops.shape[0] == 0:  # MKL of torch 2.14 transforms no empty batch
        return torch.empty((0, STATISTICS_DIM), device=crops.device)
    rgb = crops.float()
    residuals = _residuals(rgb)
    parts = [
        *_cooccurrences(residuals),
        _spectrum(residuals["square"]),
        _spectrum(residuals["square-cb"], residuals["square-cr"]),
        _correlation(_square(rgb)),
    ]
    return torch.cat([part.float() for part in parts], dim=1)


def _check_crops(crops: torch.Tensor) -> None:
    if crops.dtype != torch.uint8:
        raise ValueError(
            f"crops must be uint8 RGB from 0 to 255, got {crops.dtype}; "
            "pass the pixels as decoded, not scaled or normalised."
        )
    if crops.ndim != 4 or crops.shape[1] != 3:
        raise ValueError(
            f"crops must have the shape (N, 3, H, W), got {tuple(crops.shape)}; "
            "permute channels-last images with crops.permute(0, 3, 1, 2)."
        )
    if min(crops.shape[2:]) < MIN_SIDE:
        raise ValueError(
            f"crops must measure at least {MIN_SIDE}x{MIN_SIDE} pixels, "
            f"got {crops.shape[3]}x{crops.shape[2]}; cut larger ones, or wrap a small image with "
            "cnnsvm.features.crops.wrap_to."
        )


def _residuals(rgb: torch.Tensor) -> dict[str, torch.Tensor]:
    """Filter luma and chroma; filters have a centre weight of 1, so that all are in grey levels."""
    red, green, blue = rgb.unbind(1)
    # BT.601 in multiples of 1/256: all values and residuals are exact in float32, hence the same
    # on every device, and a negative has exactly the negative residuals. The offset 128 of chroma
    # is left out, as every filter removes it.
    luma = (77 * red + 150 * green + 29 * blue) / 256
    return {
        "first-x": luma.diff(dim=2),
        "first-y": luma.diff(dim=1),
        "second-x": luma.diff(n=2, dim=2) / 2,
        "second-y": luma.diff(n=2, dim=1) / 2,
        "square": _square(luma),
        "square-cb": _square((128 * blue - 43 * red - 85 * green) / 256),
        "square-cr": _square((128 * red - 107 * green - 21 * blue) / 256),
    }


def _square(planes: torch.Tensor) -> torch.Tensor:
    """Apply the filter [1 -2 1; -2 4 -2; 1 -2 1] / 4 to planes of shape (..., H, W)."""
    return planes.diff(n=2, dim=-1).diff(n=2, dim=-2) / 4


def _cooccurrences(residuals: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    wanted = {(name, c.step) for c in COOCCURRENCES.values() for name, _ in c.scans}
    levels = {(name, step): _quantise(residuals[name], step) for name, step in wanted}
    histograms = []
    for scans, order, step in COOCCURRENCES.values():
        counts = torch.stack(
            [_count_runs(levels[name, step], order, axis) for name, axis in scans]
        ).sum(0)
        orbits = torch.from_numpy(_orbits(order)).to(counts.device)
        folded = counts.new_zeros(counts.shape[0], int(_orbits(order).max()) + 1)
        folded.index_add_(1, orbits, counts)
        histograms.append((folded / folded.sum(dim=1, keepdim=True)).sqrt())
    return histograms


def _quantise(residual: torch.Tensor, step: float) -> torch.Tensor:
    """Cut a residual into the levels 0 to 4; `torch.round` (half to even) is an odd function."""
    cut = (residual / step).round_().clamp_(-TRUNCATION, TRUNCATION)
    return cut.add_(TRUNCATION).to(torch.int16)


def _count_runs(levels: torch.Tensor, order: int, axis: int) -> torch.Tensor:
    """Count the runs of each crop: int64, shape (N, 5**order), first residual most significant."""
    length = levels.shape[axis] - order + 1
    runs = levels.narrow(axis, 0, length)
    for shift in range(1, order):
        runs = runs * N_LEVELS + levels.narrow(axis, shift, length)
    places = runs.flatten(1).long()
    counts = places.new_zeros(levels.shape[0], N_LEVELS**order)
    return counts.scatter_add_(1, places, torch.ones_like(places))


def _spectrum(*planes: torch.Tensor) -> torch.Tensor:
    """Estimate the log power of the sum of planes, (N, H, W), in bands: (N, 1 + bands)."""
    # In double precision, which neither autocast nor TF32 shortens, for the products that follow.
    power = torch.stack([_power(plane) for plane in planes]).sum(0).double()
    n_rows, n_columns = power.shape[1:]
    rows, columns = (_band_weights(n_rows, n, power.device) for n in (n_rows, n_columns))
    log_power = (rows @ power @ columns.mT + POWER_FLOOR).log().flatten(1)
    log_energy = log_power.mean(dim=1, keepdim=True)
    return torch.cat([log_energy, log_power - log_energy], dim=1)


def _power(plane: torch.Tensor) -> torch.Tensor:
    """Estimate the power of each frequency by Welch's method, (N, side, side // 2 + 1).

    Hann windows of 32x32 pixels (16x16 in smaller crops) overlap by half. One plane at a time and
    the mean of the windows first: less leaves the caches of a processor.
    """
    plane = pad(plane, (1, 1, 1, 1))  # as large as the crop, which 16-pixel steps often divide
    side = 32 if min(plane.shape[-2:]) >= 32 else 16
    hann = torch.hann_window(side, periodic=False, device=plane.device)
    window = hann / hann.square().sum().sqrt()
    blocks = plane.unfold(1, side, side // 2).unfold(2, side, side // 2)
    transform = torch.view_as_real(torch.fft.rfft2(blocks * (window[:, None] * window)))
    return transform.square().mean(dim=(1, 2)).sum(dim=-1)


def _band_weights(side: int, n: int, device: torch.device) -> torch.Tensor:
    """Average the first ``n`` frequencies of a transform, of either sign, in (N_BANDS, n) bands."""
    step = torch.arange(n, device=device)
    band = (torch.minimum(step, side - step) * (2 * N_BANDS) // side).clamp(max=N_BANDS - 1)
    members = one_hot(band, N_BANDS).mT.double()
    return members / members.sum(dim=1, keepdim=True)


def _correlation(residual: torch.Tensor) -> torch.Tensor:
    """Correlate R-G, G-B and R-B over the pixels of each crop: (N, 3, H, W) -> (N, 3)."""
    residual = residual.flatten(2)  # its mean is zero but for the border: nothing to subtract
    scale = residual.square().sum(dim=2).sqrt()
    first, second = [0, 1, 0], [1, 2, 2]
    products = (residual[:, first] * residual[:, second]).sum(dim=2)
    return products / (scale[:, first] * scale[:, second]).clamp(min=1e-6)
