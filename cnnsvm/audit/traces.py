"""What a resize and a JPEG leave in the pixels, measured without a model.

Both are looked for by what no engine imitates, so that finding them in the fakes alone means
another history and not an engine:

- A resize interpolates at positions that repeat with a period set by the old and the new size.
  High frequencies are damped more at some of these positions than at others, so the mean
  magnitude of a high-pass filter along an axis has a spectral line at (old size / new size)
  cycles a pixel (Gallagher, "Detection of linear and cubic interpolation in JPEG compressed
  images", CRV 2005; Mahdian and Saic, "Blind authentication using periodic properties of
  interpolation", IEEE TIFS 3(3), 2008; Kirchner, "Fast and reliable resampling detection by
  spectral analysis of fixed linear predictor residue", MM&Sec 2008). Lines at multiples of 1/8
  (the JPEG grid, decoders that enlarge 8 times, doubled pixels) and of 1/16 are left out, since
  an engine may leave those itself.
- A JPEG rounds the DCT coefficients of 8x8 blocks to multiples of the quantiser, which survives
  decoding to a lossless file (Fan and de Queiroz, "Identification of bitmap compression history",
  IEEE TIP 12(2), 2003).
"""

import numpy as np

N_FFT = 4096
#: Frequencies of a spectrum, in cycles a pixel.
FREQUENCIES = np.arange(N_FFT // 2 + 1) / N_FFT
MAX_SIDE = 1024  # pixels; more of an image costs time and hardly sharpens a line
MIN_SIDE = 64  # below, a line cannot be told from its surroundings
_LOWEST = 0.06  # below, the picture itself varies
_NEAR, _FAR = 3, 16  # surroundings of a line, in bins of the image's own resolution
_SMOOTHING = 21
_CLIP = 4.0  # robust standard deviations; a seam of a mask is one spike with a flat spectrum

_BLOCK = 8
_N_BLOCKS = 2048
_QUANTISERS = np.arange(3, 33)
_MIN_COEFFICIENTS = 40
_BEST = 16


def resampling_spectrum(pixels: np.ndarray) -> np.ndarray:
    """Measure periodic interpolation along both axes.

    The magnitude of the sixth difference (Gallagher's second difference, three times: it sees
    Lanczos too, which the second hardly does) is averaged across the axis; its spectrum is
    divided by that of the surroundings, the higher of the two sides.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)
        The green channel of the middle 1024 x 1024 pixels is used.

    Returns
    -------
    ndarray of float16, shape (2, 2049)
        Height of the spectral line at each of `FREQUENCIES`, for frequencies along the width and
        along the height. Without a line it is about Rayleigh distributed with scale 1: above 3 in
        1 of 100. 0 next to multiples of 1/8, below 0.06 cycles a pixel, where the line at a
        multiple of 1/16 is higher, and throughout for a side under 64 pixels.
    """
    green = _middle(pixels[:, :, 1]).astype(np.int16)
    return np.stack([_axis_lines(green), _axis_lines(green.T)])


def sixth_difference(rows: np.ndarray) -> np.ndarray:
    """Return the magnitude of the sixth difference along the rows.

    Parameters
    ----------
    rows : ndarray of int16, shape (H, W), values 0-255

    Returns
    -------
    ndarray of int16, shape (H, W - 6)
        Empty if the rows are shorter than that.
    """
    for _ in range(3):  # at most 64 * 255, which int16 holds
        rows = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return np.abs(rows)


def line_heights(profile: np.ndarray) -> np.ndarray:
    """Divide the spectrum of a profile by its surroundings.

    Parameters
    ----------
    profile : ndarray of float, shape (length,)
        Mean magnitude of a high-pass filter along an axis.

    Returns
    -------
    ndarray of float16, shape (2049,)
        As one axis of `resampling_spectrum`.
    """
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
    """Describe what repeats every 8 pixels, whatever it comes from.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    ndarray of float, shape (32,)
        For each axis the mean magnitudes of the first and of the second difference at the 8
        positions of the grid, divided by their mean over the positions.
    """
    green = _middle(pixels[:, :, 1], multiple=_BLOCK).astype(np.int16)
    return np.concatenate([_phases(green), _phases(green.T)])


def jpeg_past(pixels: np.ndarray) -> float:
    """Measure how closely the DCT coefficients keep to multiples of a JPEG quantiser.

    For each of the 63 AC coefficients c and each quantiser q from 3 to 32, the mean of
    cos(2 pi c / q) over the |c| > q / 2; of each coefficient the best q counts, and of the
    coefficients the best 16.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)
        Blocks are taken from the top left corner on, where a JPEG's begin.

    Returns
    -------
    float in [-1, 1]
        Measured on 1,100 photographs, paintings and engine outputs: below 0.25 without a JPEG in
        the past, above 0.7 with one of quality 50 to 98. At most 0 for an image of a few blocks.
    """
    magnitudes = np.abs(_dct_blocks(pixels)).reshape(-1, _BLOCK * _BLOCK)[:, 1:]
    best = [_comb(values[values > _QUANTISERS[0] / 2]) for values in magnitudes.T]
    return float(np.mean(sorted(best)[-_BEST:])) if len(magnitudes) else 0.0


def _middle(channel: np.ndarray, multiple: int = 1) -> np.ndarray:
    """Cut the middle out of a large channel, starting at a multiple of some pixels."""
    starts = [max(0, (side - MAX_SIDE) // 2) // multiple * multiple for side in channel.shape]
    return channel[starts[0] :, starts[1] :][:MAX_SIDE, :MAX_SIDE]


def _axis_lines(rows: np.ndarray) -> np.ndarray:
    return line_heights(sixth_difference(rows).mean(axis=0, dtype=np.float64))


def _detrend(profile: np.ndarray) -> np.ndarray:
    padded = np.pad(profile, _SMOOTHING // 2, mode="reflect")
    rest = profile - np.convolve(padded, np.full(_SMOOTHING, 1 / _SMOOTHING), "valid")
    limit = _CLIP * 1.4826 * np.median(np.abs(rest))
    return np.clip(rest, -limit, limit)


def _surroundings(power: np.ndarray, length: int) -> np.ndarray:
    """Return the mean power on the side of each frequency where it is higher.

    On the slope of a broad peak, such as JPEG's, the other side would make lines of nothing.
    """
    counts = (_distance(8) > 3 / length) & (FREQUENCIES > 1 / 32)
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
    flank = (_distance(16) < 2 / length) & (power <= power[places])
    return flank | (_distance(8) < 3 / length) | (FREQUENCIES < _LOWEST)


def _distance(n: int) -> np.ndarray:
    """Return the distance of each frequency from the nearest multiple of 1/n."""
    return np.abs(FREQUENCIES - np.rint(FREQUENCIES * n) / n)


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
    luma = pixels[: height * _BLOCK, : width * _BLOCK] @ _LUMA
    tiles = luma.reshape(height, _BLOCK, width, _BLOCK).swapaxes(1, 2)
    blocks = tiles.reshape(-1, _BLOCK, _BLOCK)
    if len(blocks) > _N_BLOCKS:
        blocks = blocks[np.linspace(0, len(blocks) - 1, _N_BLOCKS).astype(int)]
    return _DCT @ blocks @ _DCT.T


def _comb(magnitudes: np.ndarray) -> float:
    beyond = magnitudes[:, None] > _QUANTISERS / 2
    n_beyond = beyond.sum(axis=0)
    waves = np.cos(magnitudes[:, None] * (2 * np.pi / _QUANTISERS.astype(np.float32)))
    means = (waves * beyond).sum(axis=0) / np.maximum(n_beyond, 1)
    return float(means[n_beyond >= _MIN_COEFFICIENTS].max(initial=-1))


def _dct_matrix() -> np.ndarray:
    """Return the orthonormal DCT-II of 8 values, as JPEG uses it."""
    k, x = np.mgrid[:_BLOCK, :_BLOCK]
    matrix = np.sqrt(2 / _BLOCK) * np.cos(np.pi * (2 * x + 1) * k / (2 * _BLOCK))
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


_DCT = _dct_matrix()
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
