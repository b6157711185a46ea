"""What a resize and a JPEG leave in the pixels, measured without a model.

No engine imitates either, so that finding them in the fakes alone means other post-processing:

- A resize gives the mean magnitude of a high-pass filter along an axis a spectral line at (old
  size / new size) cycles a pixel (Gallagher, CRV 2005; Mahdian and Saic, IEEE TIFS 3(3), 2008;
  Kirchner, MM&Sec 2008). Lines at multiples of 1/8 and 1/16 are left out: the JPEG grid and
  engines leave those too. Photographs are resized before they are published, so hypotheses such
  as "resized to 512x512" are chosen on the training folds and judged on the test fold.
- A JPEG rounds the DCT coefficients of 8x8 blocks to multiples of the quantiser, which survives
  decoding to a lossless file (Fan and de Queiroz, IEEE TIP 12(2), 2003).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import dctn

from cnnsvm.data.splits import Fold

N_FFT = 4096
#: Frequencies of a spectrum, in cycles a pixel.
FREQUENCIES = np.arange(N_FFT // 2 + 1) / N_FFT
MAX_SIDE = 1024  # pixels; more of an image costs time and hardly sharpens a line
MIN_SIDE = 64  # below, a line cannot be told from its surroundings
_LOWEST = 0.06  # below, the image itself varies
_NEAR, _FAR = 3, 16  # surroundings of a line, in bins of the image's own resolution
_SMOOTHING = 21
_CLIP = 4.0  # robust standard deviations; a seam of a mask is one spike with a flat spectrum

_BLOCK = 8
_N_BLOCKS = 2048
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_QUANTISERS = np.arange(3, 33)
_MIN_COEFFICIENTS = 40
_BEST = 16
#: `double_compression` of an image that was a JPEG: in the wide gap to those that were not.
WAS_JPEG = 0.4

#: Height from which a line counts, and how much more than that counts, since engines weaken lines.
PRESENT, _MOST = 3.0, 2.0
#: For a line anywhere; among some hundred frequencies chance reaches 4.
PRESENT_ANYWHERE = 5.0
_COMMON = (299, 300, 336, 400, 500, 560, 600, 720, 800, 1000, 1080, 1200, 1500, 1920, 2160)
#: Pixels that a side may have been resized from or to.
_SIDES = np.array(sorted({*range(64, 2049, 32), *_COMMON}))
_OBLONG = ((640, 480), (800, 600), (1024, 768), (768, 512), (1024, 576), (1280, 720), (1920, 1080))
_FLANK = 0.02  # cycles a pixel
_STEP = 0.002  # cycles a pixel between constant factors
_LEAST_FACTOR = 0.1  # cycles a pixel; below, the edge of a smooth filling is taken for a line
_AS_GOOD = 0.03
_LEAST_GAIN = 0.05  # such as strong lines along one axis of a tenth of the fakes

ANYWHERE = "a line anywhere"
BY_ONE_FACTOR = "by one factor"


def resampling_spectrum(pixels: np.ndarray) -> np.ndarray:
    """Measure periodic interpolation along both axes of uint8 pixels (H, W, 3).

    The magnitude of the sixth difference (Gallagher's second difference, three times, which sees
    Lanczos too) of the green channel's middle is averaged across the axis; its spectrum is divided
    by that of the surroundings. Returns float16 (2, 2049), the height of the line at each of
    `FREQUENCIES` along the width and the height. Without a line about Rayleigh distributed with
    scale 1: above 3 in 1 of 100. 0 where no line can be told.
    """
    green = _middle(pixels[:, :, 1]).astype(np.int16)
    means = (sixth_difference(rows).mean(axis=0, dtype=np.float64) for rows in (green, green.T))
    return np.stack([line_heights(profile) for profile in means])


def was_resampled(pixels: np.ndarray) -> bool:
    """Tell whether uint8 pixels (H, W, 3) have a line that chance does not give."""
    clear = resampling_spectrum(pixels)[:, _is_clear(FREQUENCIES)]
    return bool(clear.max() > PRESENT_ANYWHERE)


def sixth_difference(rows: np.ndarray) -> np.ndarray:
    """Return the magnitude of the sixth difference along rows of int16 (H, W), shape (H, W - 6)."""
    for _ in range(3):  # at most 64 * 255, which int16 holds
        rows = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return np.abs(rows)


def line_heights(profile: np.ndarray) -> np.ndarray:
    """Divide the spectrum of a profile by its surroundings: one axis of `resampling_spectrum`."""
    length = len(profile)
    if length < MIN_SIDE - 6:
        return np.zeros(len(FREQUENCIES), np.float16)
    window = np.hanning(length + 2)[1:-1]
    power = np.abs(np.fft.rfft(_detrend(profile) * window, N_FFT)) ** 2
    level = _surroundings(power, length)
    heights = np.sqrt(2 * power / np.maximum(level, 1e-12)) * (level > 0)
    heights[_is_on_grid(power, length)] = 0
    return np.minimum(heights, 1e4).astype(np.float16)


def grid_features(pixels: np.ndarray) -> np.ndarray:
    """Describe what repeats every 8 uint8 pixels (H, W, 3) by 32 numbers.

    For each axis the mean magnitudes of the first and of the second difference at the 8 positions
    of the grid, divided by their mean.
    """
    green = _middle(pixels[:, :, 1], multiple=_BLOCK).astype(np.int16)
    return np.concatenate([_phases(green), _phases(green.T)])


def double_compression(pixels: np.ndarray) -> float:
    """Measure how closely the DCT coefficients keep to multiples of a JPEG quantiser, in [-1, 1].

    For each AC coefficient c of uint8 pixels (H, W, 3) and each quantiser q from 3 to 32, the mean
    of cos(2 pi c / q) over the |c| > q / 2; the best q counts, and the best 16 coefficients. Of
    1,100 images below 0.25 if it never was a JPEG, above 0.7 if it was one of quality 50 to 98. At
    most 0 for an image of a few blocks.
    """
    magnitudes = np.abs(_dct_blocks(pixels)).reshape(-1, _BLOCK * _BLOCK)[:, 1:]
    best = [_comb(values[values > _QUANTISERS[0] / 2]) for values in magnitudes.T]
    return float(np.mean(sorted(best)[-_BEST:])) if len(magnitudes) else 0.0


@dataclass(frozen=True)
class Hypotheses:
    """Resizes that images may have gone through, and the lines that each predicts."""

    names: list[str]
    heights: np.ndarray  # (n_images, n_hypotheses), above `PRESENT`, in [0, 2] an axis, added up
    clear: np.ndarray  # (n_hypotheses,), whether most lines lie away from multiples of 1/8


def predict_lines(spectra: np.ndarray, sizes: np.ndarray) -> Hypotheses:
    """Look up the lines that each hypothesis predicts.

    ``spectra`` (n_images, 2, n_frequencies) are of `resampling_spectrum`, ``sizes`` (n_images, 2)
    are widths and heights.
    """
    names, ratios = _ratios(sizes.astype(np.float64))
    folded = np.abs(ratios - np.rint(ratios))  # aliasing brings every frequency to 0-0.5
    places = np.rint(folded * N_FFT).astype(int)
    images, axes = np.arange(len(sizes))[:, None, None], np.arange(2)[:, None]
    lines = _excess(spectra[images, axes, places], PRESENT).sum(axis=1)
    clear = (_is_clear(folded).any(axis=1).mean(axis=0) >= 0.5).tolist()
    anywhere = _excess(spectra[:, :, _is_clear(FREQUENCIES)].max(axis=(1, 2)), PRESENT_ANYWHERE)
    heights = np.column_stack([lines, anywhere])
    return Hypotheses([*names, ANYWHERE], heights, np.array([*clear, True]))


def judge_lines(
    hypotheses: Hypotheses, labels: np.ndarray, folds: Sequence[Fold]
) -> tuple[np.ndarray, list[int]]:
    """Score every image by the hypothesis that explains most on the other folds.

    Only lines that the fakes have more often count: an engine may wipe out those of its input.
    Returns a score in [0, 1] an image, and the hypothesis chosen in each fold, -1 for none.
    """
    score = np.zeros(len(labels))
    chosen = []
    scaled = hypotheses.heights / (2 * _MOST)
    for train, test in folds:
        fake, real = (scaled[train][labels[train] == label].mean(axis=0) for label in (1, 0))
        gain = fake - real
        best = simplest(gain)
        chosen.append(best if gain[best] >= _LEAST_GAIN else -1)
        if chosen[-1] >= 0:
            score[test] = scaled[test, best]
    return score, chosen


def simplest(values: np.ndarray) -> int:
    """Return the first hypothesis that is about as good as the best: the simple ones come first."""
    return int(np.argmax(values >= values.max() - _AS_GOOD))


def _middle(channel: np.ndarray, multiple: int = 1) -> np.ndarray:
    """Cut the middle out of a large channel, starting at a multiple of some pixels."""
    starts = [max(0, (side - MAX_SIDE) // 2) // multiple * multiple for side in channel.shape]
    return channel[starts[0] :, starts[1] :][:MAX_SIDE, :MAX_SIDE]


def _detrend(profile: np.ndarray) -> np.ndarray:
    padded = np.pad(profile, _SMOOTHING // 2, mode="reflect")
    rest = profile - np.convolve(padded, np.full(_SMOOTHING, 1 / _SMOOTHING), "valid")
    limit = _CLIP * 1.4826 * np.median(np.abs(rest))
    return np.clip(rest, -limit, limit)


def _surroundings(power: np.ndarray, length: int) -> np.ndarray:
    """Return the mean power on the higher side of each frequency: broad peaks make no lines."""
    counts = (_distance(FREQUENCIES, 8) > 3 / length) & (FREQUENCIES > 1 / 32)
    sums = np.concatenate([[0.0], np.cumsum(power * counts)])
    weights = np.concatenate([[0], np.cumsum(counts)])
    near, far = (round(bins / length * N_FFT) for bins in (_NEAR, _FAR))
    places = np.arange(len(power))

    def mean(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        start, stop = np.clip(start, 0, len(power)), np.clip(stop, 0, len(power))
        weight = weights[stop] - weights[start]
        enough = weight > (far - near) / 4
        return np.where(enough, (sums[stop] - sums[start]) / np.maximum(weight, 1), 0)

    return np.maximum(mean(places - far, places - near), mean(places + near, places + far))


def _is_on_grid(power: np.ndarray, length: int) -> np.ndarray:
    """Tell which frequencies an engine may have filled itself."""
    places = np.rint(np.rint(FREQUENCIES * 16) / 16 * N_FFT).astype(int)
    flank = (_distance(FREQUENCIES, 16) < 2 / length) & (power <= power[places])
    return flank | (_distance(FREQUENCIES, 8) < 3 / length) | (FREQUENCIES < _LOWEST)


def _distance(frequencies: np.ndarray, n: int) -> np.ndarray:
    """Return the distance of each frequency from the nearest multiple of 1/n."""
    return np.abs(frequencies - np.rint(frequencies * n) / n)


def _phases(rows: np.ndarray) -> np.ndarray:
    described = []
    for order in (1, 2):
        size = np.abs(np.diff(rows, order, axis=1)).mean(axis=0, dtype=np.float64)
        whole = len(size) // _BLOCK * _BLOCK
        phases = size[:whole].reshape(-1, _BLOCK).mean(axis=0) if whole else np.ones(_BLOCK)
        described.append(phases / max(phases.mean(), 1e-6))
    return np.concatenate(described)


def _dct_blocks(pixels: np.ndarray) -> np.ndarray:
    height, width = (side // _BLOCK for side in pixels.shape[:2])
    n_blocks = height * width
    chosen = np.linspace(0, n_blocks - 1, min(n_blocks, _N_BLOCKS)).astype(int)
    corners = _BLOCK * np.stack([chosen // max(1, width), chosen % max(1, width)], axis=1)
    blocks = np.empty((len(chosen), _BLOCK, _BLOCK), np.float32)
    for block, (top, left) in zip(blocks, corners.tolist(), strict=True):
        block[:] = pixels[top : top + _BLOCK, left : left + _BLOCK] @ _LUMA
    return dctn(blocks, axes=(1, 2), norm="ortho")


def _comb(magnitudes: np.ndarray) -> float:
    beyond = magnitudes[:, None] > _QUANTISERS / 2
    n_beyond = beyond.sum(axis=0)
    waves = np.cos(magnitudes[:, None] * (2 * np.pi / _QUANTISERS.astype(np.float32)))
    means = (waves * beyond).sum(axis=0) / np.maximum(n_beyond, 1)
    return float(means[n_beyond >= _MIN_COEFFICIENTS].max(initial=-1))


def _is_clear(frequencies: np.ndarray) -> np.ndarray:
    return _distance(frequencies, 8) > _FLANK


def _excess(heights: np.ndarray, least: float) -> np.ndarray:
    return np.clip(heights.astype(np.float32) - least, 0, _MOST)


def _ratios(sizes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the hypotheses and old by new size, shape (n_images, 2, n_hypotheses)."""
    long, short = sizes.max(axis=1), sizes.min(axis=1)
    factors = np.arange(_LEAST_FACTOR, 0.5, _STEP)
    factors = factors[_is_clear(factors)]  # no second size could confirm these
    oblong = np.array(_OBLONG)
    upright = np.where((sizes[:, 1] > sizes[:, 0])[:, None, None], oblong[:, ::-1], oblong)
    ratios = [
        np.broadcast_to(_SIDES, (len(sizes), 2, len(_SIDES))) / sizes[:, :, None],
        upright.swapaxes(1, 2) / sizes[:, :, None],
        np.repeat((_SIDES / long[:, None])[:, None], 2, axis=1),
        np.repeat((_SIDES / short[:, None])[:, None], 2, axis=1),
        np.broadcast_to(factors, (len(sizes), 2, len(factors))),
    ]
    names = [
        *(f"from or by way of {side}x{side}" for side in _SIDES),
        *(f"from or by way of {width}x{height}" for width, height in _OBLONG),
        *(f"from or by way of a {k} side of {side}" for k in ("long", "short") for side in _SIDES),
        *(f"{BY_ONE_FACTOR}, with a line at {factor:.3f} cycles a pixel" for factor in factors),
    ]
    return names, np.concatenate(ratios, axis=2)
