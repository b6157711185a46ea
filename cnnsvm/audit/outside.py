"""Outside the mask of a spliced fake nothing was done, so nothing may tell it from its original.

Each fake is compared with its original in the same region of the two, so that a region that
happens to be dark or smooth is so in both classes.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cnnsvm.audit.check import Check, Sample, Score, Verdict, judge, on_threads, score_probe
from cnnsvm.data.images import load_image
from cnnsvm.data.splits import grouped_folds
from cnnsvm.evaluation.negative_controls import run_probe
from cnnsvm.features.traces import judge_lines, line_heights, predict_lines, sixth_difference
from cnnsvm.io.progress import show_progress
from cnnsvm.localization.masks import load_mask

#: Pixels around the mask that are left out: soft edges of masks; blocks of codecs.
MARGIN, LOSSY_MARGIN = 8, 24
MIN_SHARE = 0.05  # of the image that must remain
_MIN_ROWS = 16  # that a mean across an axis needs
_GRID = 8
_SMALL = (0, 1, 3)  # grey levels
_PASTE = (
    "Paste each fake's repainted part into its original inside the mask, after all resizing, and "
    "encode both by one code path (cnnsvm.generation.build with variant='spliced' does)."
)


@dataclass(frozen=True)
class Outside:
    """What lies outside the mask of a pair: its original (0) and its fake (1)."""

    source_id: str
    lossy: bool
    changed: float  # share of the pixels that differ
    difference: float  # mean absolute, in grey levels
    features: np.ndarray  # (2, n_features), of `outside_features`
    spectra: np.ndarray  # (2, 2, n_frequencies), as of `cnnsvm.features.traces.resampling_spectrum`
    size: tuple[int, int]  # width and height


def probe_outside(sample: Sample) -> Check:
    """Look for anything that tells spliced fakes from originals outside their masks.

    Without any, regenerated fakes are looked at. Their engine may have changed every pixel, so
    that for them the worst verdict is ``warning``.
    """
    for variant in ("spliced", "regenerated"):
        pairs = find_pairs(sample.rows, variant)
        compared = on_threads(compare_outside, pairs.to_dict("records"), sample.n_jobs)
        compared = show_progress(compared, len(pairs), "masks", sample.progress)
        found = [outside for outside in compared if outside is not None]
        if found:
            return _judge(found, variant, len(sample.folds), sample.random_state)
    reason = "no fake has a mask, an original of its size, and enough left outside the mask."
    return Check("outside_mask", Verdict.NOT_CHECKED, reason)


def find_pairs(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Pair fakes that have a mask with the only original of their record and size.

    The columns of the two end in ``_fake`` and ``_real``.
    """
    same = ["unit", "width", "height"]
    originals = rows[rows["label"] == 0].drop_duplicates(same, keep=False)
    fakes = rows[rows["label"].eq(1) & rows["variant"].eq(variant) & rows["mask_path"].notna()]
    return fakes.merge(originals, on=same, suffixes=("_fake", "_real"))


def compare_outside(pair: dict[str, Any]) -> Outside | None:
    """Compare a row of `find_pairs` outside its mask; None where too little of it is left."""
    real, fake = load_image(pair["path_real"]), load_image(pair["path_fake"])
    lossy = bool(pair["lossy_fake"] or pair["lossy_real"])
    side = 2 * (LOSSY_MARGIN if lossy else MARGIN) + 1
    mask = load_mask(pair["mask_path_fake"]).astype(np.uint8)
    outside = cv2.dilate(mask, np.ones((side, side), np.uint8)) == 0
    if real.shape != fake.shape or outside.shape != real.shape[:2] or outside.mean() < MIN_SHARE:
        return None
    difference = np.abs(real[outside].astype(np.int16) - fake[outside])
    images = (real, fake) if difference.any() else (real,)  # most are equal: described once
    features = [outside_features(image, outside) for image in images]
    greens = [image[:, :, 1].astype(np.int16) for image in images]
    spectra = [np.stack([_lines(g, outside), _lines(g.T, outside.T)]) for g in greens]
    return Outside(
        source_id=str(pair["source_id_fake"]),
        lossy=lossy,
        changed=float((difference > 0).any(axis=1).mean()),
        difference=float(difference.mean()),
        features=np.stack([features[0], features[-1]]),
        spectra=np.stack([spectra[0], spectra[-1]]),
        size=(real.shape[1], real.shape[0]),
    )


def outside_features(pixels: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Describe the colours, the noise and the 8x8 grid of uint8 pixels where a mask is True."""
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


def _lines(rows: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Measure spectral lines as in a whole image, in the columns that have enough rows."""
    magnitudes = sixth_difference(rows)
    inside = outside[:, 3 : 3 + magnitudes.shape[1]]
    counts = inside.sum(axis=0)
    enough = counts >= _MIN_ROWS
    if not enough.any():
        return line_heights(np.zeros(0))
    means = (magnitudes * inside).sum(axis=0) / np.maximum(counts, 1)
    first, last = np.flatnonzero(enough)[[0, -1]]
    means[~enough] = np.median(means[enough])
    return line_heights(means[first : last + 1])


def _judge(found: list[Outside], variant: str, n_splits: int, random_state: int) -> Check:
    n_changed = sum(outside.changed > 0 for outside in found)
    changed = float(np.mean([outside.changed for outside in found]))
    difference = float(np.mean([outside.difference for outside in found]))
    details = {"variant": variant, "n_pairs": len(found), "n_changed": n_changed}
    details |= {"share_of_pixels_changed": changed, "mean_difference": difference}
    subject = f"{len(found)} {variant} fakes"
    if not n_changed:
        summary = f"outside their masks all {subject} equal their originals."
        return Check("outside_mask", Verdict.PASS, summary, details=details)
    text = (
        f"outside their masks {n_changed} of {subject} differ from their originals, by "
        f"{difference:.2f} grey levels on average"
    )
    n_sources = len({outside.source_id for outside in found})
    if n_sources < n_splits:
        summary = f"{text}; {n_sources} source(s) are too few for {n_splits} folds."
        return Check("outside_mask", Verdict.WARNING, summary, _PASTE, details=details)
    auc = _probe(found, n_splits, random_state)
    engine = f"{text}; an engine that returns the whole image may do that."
    alike = f"{text}, as lossy files may; the classes cannot be told apart there."
    unsure = f"{text}, where nothing should have changed; a probe cannot tell them apart for sure."
    apart = f"{text}, and the classes can be told apart there."
    remedy = "If they are meant as spliced, this is a leak. " + _PASTE
    whole, lossy = variant == "regenerated", any(outside.lossy for outside in found)
    outcomes = [
        (whole and auc.is_above_chance, Verdict.WARNING, engine, remedy),
        (whole, Verdict.PASS, engine, ""),
        (auc.is_leak, Verdict.LEAK, apart, _PASTE),
        (lossy and not auc.is_doubtful, Verdict.PASS, alike, ""),
        (True, Verdict.WARNING, unsure, _PASTE),
    ]
    return judge("outside_mask", auc, outcomes, details)


def _probe(found: list[Outside], n_splits: int, random_state: int) -> Score:
    """Score the better of two probes: of features, and of lines of a resize."""
    table = pd.DataFrame(
        {"source_id": np.repeat([o.source_id for o in found], 2), "label": [0, 1] * len(found)}
    )
    labels = table["label"].to_numpy()
    folds = grouped_folds(labels, table["source_id"].to_numpy(), n_splits, random_state)
    features = np.concatenate([outside.features for outside in found])
    spectra = np.concatenate([outside.spectra for outside in found])
    sizes = np.repeat([outside.size for outside in found], 2, axis=0)
    lines, _ = judge_lines(predict_lines(spectra, sizes), labels, folds)
    probes = (run_probe(features, labels, folds, random_state), lines)
    return max((score_probe(table, probe) for probe in probes), key=lambda auc: auc.value)
