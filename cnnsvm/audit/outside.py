"""Outside the mask of a spliced fake nothing was done, so nothing may tell it from its original.

Each fake is compared with its original in the same region of the two, so that a region that
happens to be dark or smooth is so in both classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.audit.check import (
    LEAK,
    NOT_CHECKED,
    PASS,
    WARNING,
    Check,
    auc_fields,
    is_above_chance,
    is_doubtful,
    is_leak,
    score_probe,
)
from cnnsvm.audit.resampling import judge_lines, predict_lines
from cnnsvm.audit.traces import line_heights, sixth_difference
from cnnsvm.data.images import load_image
from cnnsvm.data.splits import grouped_folds
from cnnsvm.evaluation.bootstrap import Interval
from cnnsvm.evaluation.negative_controls import run_probe
from cnnsvm.io.progress import show_progress

#: Pixels around the mask that are left out: soft edges of masks; blocks of codecs.
MARGIN, LOSSY_MARGIN = 8, 24
MIN_SHARE = 0.05  # of the image that must remain
_MIN_ROWS = 16  # that a mean across an axis needs
_GRID = 8
_SMALL = (0, 1, 3)  # grey levels


@dataclass(frozen=True)
class Pair:
    """A fake, its mask and its original: paths, and the row of the original in the table."""

    real: str
    fake: str
    mask: str
    source_id: str
    lossy: bool


@dataclass(frozen=True)
class Outside:
    """What lies outside the mask of a pair: its original (0) and its fake (1).

    Parameters
    ----------
    pair : Pair
    changed : float in [0, 1]
        Share of the pixels that differ.
    difference : float
        Mean absolute difference in grey levels.
    features : ndarray of float, shape (2, n_features)
    spectra : ndarray of float16, shape (2, 2, n_frequencies)
        As `cnnsvm.audit.traces.resampling_spectrum` returns them.
    size : tuple of int
        Width and height in pixels.
    """

    pair: Pair
    changed: float
    difference: float
    features: np.ndarray
    spectra: np.ndarray
    size: tuple[int, int]


def find_pairs(sample: pd.DataFrame, variant: str) -> list[Pair]:
    """Pair the fakes of a variant that have a mask with the original of their record and size.

    Where a record has several originals of that size, which one a fake was made of is not known,
    and it has no pair.

    Parameters
    ----------
    sample : DataFrame
        Manifest rows with the columns ``unit`` (record) and ``lossy``.
    variant : {"spliced", "regenerated"}
    """
    originals = sample[sample["label"] == 0]
    alone = originals[~originals.duplicated(["unit", "width", "height"], keep=False)]
    reals = {(row.unit, row.width, row.height): row for row in alone.itertuples()}
    fakes = sample[(sample["label"] == 1) & (sample["variant"] == variant)]
    pairs = []
    for fake in fakes.itertuples():
        real = reals.get((fake.unit, fake.width, fake.height))
        if real is not None and isinstance(fake.mask_path, str):
            lossy = bool(fake.lossy or real.lossy)
            source = str(fake.source_id)
            pairs.append(Pair(str(real.path), str(fake.path), fake.mask_path, source, lossy))
    return pairs


def compare_outside(pairs: Iterable[Pair], n_jobs: int | None = None) -> Iterable[Outside | None]:
    """Compare each pair outside its mask; None where too little is left of the image.

    Raises
    ------
    ImageError
        If a file cannot be read.
    """
    jobs = (delayed(_compare)(pair) for pair in pairs)
    compared: Iterable[Outside | None] = Parallel(
        n_jobs=n_jobs or -1, prefer="threads", return_as="generator"
    )(jobs)
    return compared


def _compare(pair: Pair) -> Outside | None:
    real, fake = load_image(pair.real), load_image(pair.fake)
    outside = _outside(load_image(pair.mask)[:, :, 0] >= 128, pair.lossy)
    if real.shape != fake.shape or outside.shape != real.shape[:2] or outside.mean() < MIN_SHARE:
        return None
    difference = np.abs(real[outside].astype(np.int16) - fake[outside])
    images = (real, fake) if difference.any() else (real,)  # most are equal: described once
    features = [outside_features(image, outside) for image in images]
    spectra = [_spectrum(image, outside) for image in images]
    return Outside(
        pair,
        float((difference > 0).any(axis=1).mean()),
        float(difference.mean()),
        np.stack([features[0], features[-1]]),
        np.stack([spectra[0], spectra[-1]]),
        (real.shape[1], real.shape[0]),
    )


def outside_features(pixels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Describe the colours, the noise and the 8x8 grid of a part of an image.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)
    outside : ndarray of bool, shape (H, W)
        The part.

    Returns
    -------
    ndarray of float, shape (30,)
    """
    red, green, blue = (pixels[:, :, channel].astype(np.int16) for channel in range(3))
    inner = outside[1:-1, 1:-1]
    texture = np.abs(_laplacian(green))[inner]
    colour = [np.abs(_laplacian(part))[inner].mean() for part in (red - green, blue - green)]
    smooth = [(texture <= level).mean() for level in _SMALL]
    values = pixels[outside]
    filled = [len(np.unique(values[:, channel])) for channel in range(3)]
    noise = [np.log1p(texture).mean(), texture.mean(), np.log1p(texture).std(), *smooth]
    grid = [_phases(green, outside), _phases(green.T, outside.T)]
    return np.concatenate([values.mean(axis=0), filled, noise, colour, *grid])


def _outside(mask: np.ndarray, lossy: bool) -> np.ndarray:
    side = 2 * (LOSSY_MARGIN if lossy else MARGIN) + 1
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8))
    return grown == 0


def _laplacian(channel: np.ndarray) -> np.ndarray:
    around = channel[:-2, 1:-1] + channel[2:, 1:-1] + channel[1:-1, :-2] + channel[1:-1, 2:]
    return around - 4 * channel[1:-1, 1:-1]


def _phases(rows: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Return the mean first difference at each of the 8 positions of the grid, over their mean."""
    steps = np.abs(np.diff(rows, axis=1)) * outside[:, 1:]
    position = np.arange(steps.shape[1]) % _GRID
    sums = np.bincount(position, steps.sum(axis=0), minlength=_GRID)
    counts = np.bincount(position, outside[:, 1:].sum(axis=0), minlength=_GRID)
    means = sums / np.maximum(counts, 1)
    return means / max(means.mean(), 1e-6)


def _spectrum(pixels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    green = pixels[:, :, 1].astype(np.int16)
    return np.stack([_lines(green, outside), _lines(green.T, outside.T)])


def _lines(rows: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Measure spectral lines as in a whole image, in the columns that have enough rows."""
    magnitudes = sixth_difference(rows)
    kept = outside[:, 3 : 3 + magnitudes.shape[1]]
    counts = kept.sum(axis=0)
    enough = counts >= _MIN_ROWS
    if not enough.any():
        return line_heights(np.zeros(0))
    means = (magnitudes * kept).sum(axis=0) / np.maximum(counts, 1)
    first, last = np.flatnonzero(enough)[[0, -1]]
    means[~enough] = np.median(means[enough])
    return line_heights(means[first : last + 1])


def probe_outside(
    sample: pd.DataFrame,
    n_splits: int,
    random_state: int,
    n_jobs: int | None = None,
    progress: bool = True,
) -> Check:
    """Look for anything that tells fakes from originals outside their masks.

    Spliced fakes are looked at if there are any, regenerated ones else: their engine may have
    changed every pixel, so that for them the worst verdict is ``warning``.
    """
    for variant in ("spliced", "regenerated"):
        pairs = find_pairs(sample, variant)
        compared = show_progress(compare_outside(pairs, n_jobs), len(pairs), "masks", progress)
        found = [outside for outside in compared if outside is not None]
        if found:
            return _judge(found, variant, n_splits, random_state)
    reason = "no fake has a mask, an original of its size, and enough left outside the mask."
    return Check("outside_mask", NOT_CHECKED, reason)


def _judge(found: list[Outside], variant: str, n_splits: int, random_state: int) -> Check:
    n_changed = sum(outside.changed > 0 for outside in found)
    difference = float(np.mean([outside.difference for outside in found]))
    details = {
        "variant": variant,
        "n_pairs": len(found),
        "n_changed": n_changed,
        "share_of_pixels_changed": float(np.mean([outside.changed for outside in found])),
        "mean_difference": difference,
    }
    subject = f"{len(found)} {variant} fakes"
    if not n_changed:
        summary = f"outside their masks all {subject} equal their originals."
        return Check("outside_mask", PASS, summary, details=details)
    told = (
        f"outside their masks {n_changed} of {subject} differ from their originals, by "
        f"{difference:.2f} grey levels on average"
    )
    n_sources = len({outside.pair.source_id for outside in found})
    if n_sources < n_splits:
        summary = f"{told}; {n_sources} source(s) are too few for {n_splits} folds."
        return Check("outside_mask", WARNING, summary, _PASTE, details=details)
    auc = _probe(found, n_splits, random_state)
    return _conclude(told, auc, variant, any(o.pair.lossy for o in found), details)


def _conclude(
    told: str, auc: Interval, variant: str, lossy: bool, details: dict[str, Any]
) -> Check:
    kept = {**auc_fields(auc), "details": details}
    if variant == "regenerated":
        summary = f"{told}; an engine that returns the whole image may do that."
        verdict = WARNING if is_above_chance(auc) else PASS
        remedy = "If they are meant as spliced, this is a leak: " + _PASTE[0].lower() + _PASTE[1:]
        return Check("outside_mask", verdict, summary, remedy if verdict != PASS else "", **kept)
    if is_leak(auc):
        summary = f"{told}, and the classes can be told apart there."
        return Check("outside_mask", LEAK, summary, _PASTE, **kept)
    if lossy and not is_doubtful(auc):
        summary = f"{told}, as lossy files may; the classes cannot be told apart there."
        return Check("outside_mask", PASS, summary, **kept)
    summary = f"{told}, where nothing should have changed; a probe cannot tell them apart for sure."
    return Check("outside_mask", WARNING, summary, _PASTE, **kept)


def _probe(found: list[Outside], n_splits: int, random_state: int) -> Interval:
    """Return the AUC of the better of two probes: of features, and of lines of a resize."""
    table = pd.DataFrame(
        {"source_id": np.repeat([o.pair.source_id for o in found], 2), "label": [0, 1] * len(found)}
    )
    labels = table["label"].to_numpy()
    folds = grouped_folds(labels, table["source_id"].to_numpy(), n_splits, random_state)
    features = np.concatenate([outside.features for outside in found])
    spectra = np.concatenate([outside.spectra for outside in found])
    sizes = np.repeat([outside.size for outside in found], 2, axis=0)
    lines, _ = judge_lines(predict_lines(spectra, sizes), labels, folds)
    aucs = [score_probe(table, run_probe(features, labels, folds, random_state))]
    aucs.append(score_probe(table, lines))
    return max(aucs, key=lambda auc: auc["value"])


_PASTE = (
    "Paste each fake's repainted part into its original inside the mask, after all resizing, and "
    "encode both by one code path (cnnsvm.generation.build with variant='spliced' does)."
)
