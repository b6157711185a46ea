"""Which common resize would explain spectral lines that fakes have and originals lack.

A line alone says little: photographs are resized before they are published, and a detector is
welcome to know it of both classes. What no engine explains is a line in the fakes, and not in the
originals, at the place that one working size predicts for all of them. So hypotheses such as
"squashed to 512x512 on the way" are tried on the training folds and the best is judged on the
test fold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnnsvm.audit.traces import FREQUENCIES, N_FFT
from cnnsvm.data.splits import Fold

#: Height from which a line counts, and how much more than that counts: what matters is whether
#: there is one, since a matched history leaves a weaker line where an engine smooths.
PRESENT, _MOST = 3.0, 2.0
#: For a line anywhere; among some hundred frequencies chance reaches 4.
PRESENT_ANYWHERE = 5.0
_COMMON = (299, 300, 336, 400, 500, 560, 600, 720, 800, 1000, 1080, 1200, 1500, 1920, 2160)
#: Pixels that a side may have been resized from or to.
_SIDES = np.array(sorted({*range(64, 2049, 32), *_COMMON}))
_OBLONG = ((640, 480), (800, 600), (1024, 768), (768, 512), (1024, 576), (1280, 720), (1920, 1080))
_FLANK = 0.02  # cycles a pixel
_STEP = 0.002  # cycles a pixel between constant factors
_AS_GOOD = 0.03
_LEAST_GAIN = 0.05  # such as strong lines along one axis of a tenth of the fakes; else none is held

ANYWHERE = "a line anywhere"
BY_ONE_FACTOR = "by one factor"


@dataclass(frozen=True)
class Hypotheses:
    """What may have happened to the images, and what it predicts.

    Parameters
    ----------
    names : list of str
    heights : ndarray of float, shape (n_images, n_hypotheses)
        Heights of the lines predicted along the two axes, less the height from which a line
        counts, in [0, 2] each, added up.
    clear : ndarray of bool, shape (n_hypotheses,)
        The lines lie away from the multiples of 1/8 for most images. Next to those an engine that
        enlarges 8 times has lines as well, where the picture's own variation is strong.
    """

    names: list[str]
    heights: np.ndarray
    clear: np.ndarray


_LEAST_FACTOR = 0.1  # cycles a pixel; below, the edge of a smooth filling is taken for a line


def predict_lines(spectra: np.ndarray, sizes: np.ndarray) -> Hypotheses:
    """Look up the lines that each hypothesis predicts.

    Parameters
    ----------
    spectra : ndarray of float, shape (n_images, 2, n_frequencies)
        See `cnnsvm.audit.traces.resampling_spectrum`.
    sizes : ndarray of int, shape (n_images, 2)
        Width and height in pixels.
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

    One-sided: only lines that the fakes have more often speak for a fake. An engine that repaints
    the whole image wipes out the lines of its input, so their absence is no evidence.

    Returns
    -------
    score : ndarray of float, shape (n_images,)
        In [0, 1].
    chosen : list of int
        The position of the hypothesis that was held in each fold, -1 for none.
    """
    score = np.zeros(len(labels))
    chosen = []
    scaled = hypotheses.heights / (2 * _MOST)
    for train, test in folds:
        gain = _gain(scaled[train], labels[train])
        best = simplest(gain)
        chosen.append(best if gain[best] >= _LEAST_GAIN else -1)
        if chosen[-1] >= 0:
            score[test] = scaled[test, best]
    return score, chosen


def simplest(values: np.ndarray) -> int:
    """Return the first hypothesis that is about as good as the best: the simple ones come first."""
    return int(np.argmax(values >= values.max() - _AS_GOOD))


def _is_clear(frequencies: np.ndarray) -> np.ndarray:
    return np.abs(frequencies - np.rint(frequencies * 8) / 8) > _FLANK


def _excess(heights: np.ndarray, least: float) -> np.ndarray:
    return np.clip(heights.astype(np.float32) - least, 0, _MOST)


def _gain(scaled: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return scaled[labels == 1].mean(axis=0) - scaled[labels == 0].mean(axis=0)


def _ratios(sizes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the hypotheses and old by new size, shape (n_images, 2, n_hypotheses)."""
    long, short = sizes.max(axis=1), sizes.min(axis=1)
    factors = np.arange(_LEAST_FACTOR, 0.5, _STEP)
    factors = factors[_is_clear(factors)]  # of these, no second size could bear witness
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
        *(f"from or by way of a long side of {side}" for side in _SIDES),
        *(f"from or by way of a short side of {side}" for side in _SIDES),
        *(f"{BY_ONE_FACTOR}, with a line at {factor:.3f} cycles a pixel" for factor in factors),
    ]
    return names, np.concatenate(ratios, axis=2)
