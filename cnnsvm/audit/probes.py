"""Small classifiers that see one suspicious thing each, and what their success means.

A probe that cannot see what an engine does (headers, lines of a resize, double compression of the
fakes alone) can succeed only if the data leak. One that sees pixels may succeed for an honest
reason too, so it never says more than ``warning``.
"""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.audit.check import SAME_PATH, Check, Sample, Score, Verdict, judge, score_probe
from cnnsvm.audit.headers import FACTS
from cnnsvm.data.images import load_image
from cnnsvm.evaluation.negative_controls import colour_histogram, metadata_features, run_probe
from cnnsvm.features.traces import (
    ANYWHERE,
    BY_ONE_FACTOR,
    MIN_SIDE,
    WAS_JPEG,
    Hypotheses,
    double_compression,
    grid_features,
    judge_lines,
    predict_lines,
    resampling_spectrum,
    simplest,
)

#: Share of both classes with the line of one resize from which both were resized alike.
ALIKE = 0.5
#: ROC AUC that lines must reach then, since an engine between the two resizes changes their
#: strength (up to 0.67 measured), and next to multiples of 1/8 (0.70, originals enlarged 4 times).
WELL_ABOVE_HONEST = 0.75
_MOST_VALUES = 30
_MOST_MISSING = 0.2  # of the originals' traces; as much as an AUC of 0.6 in the other direction

_TOO_SMALL = f"images are smaller than {MIN_SIDE} pixels."
_RESIZE = (
    "Bring the originals through the same resizes: make the records anew with "
    "cnnsvm.generation.build and post_processing such as 512x512,png, or keep the fakes at the "
    "size that the engine returned and bring the originals to it (match_post_processing)."
)
_RESIZE_ALIKE = (
    "Check that the kernels are the same; compare with records at the engine's own size, without "
    "the resize back."
)
_RECOMPRESS = "Report a run in which both classes were recompressed too, such as --codec jpeg:90."
_MISSING = "Part of what a detector finds may be the missing trace. "
_REPORT = "A detector must beat this AUC clearly; report it beside the result."

#: Probes that see what an engine changes as well: measurement -> what it is, a reason, a remedy.
HONEST = {
    "grid": (
        "8-pixel periodicities",
        "JPEG and decoders that enlarge 8 times leave them",
        _RECOMPRESS,
    ),
    "colour": ("colour histograms", "an engine shifts and flattens colours", _REPORT),
    "file_size": ("bits a pixel", "files of smoother images are smaller", _REPORT),
}


def measure_pixels(path: str) -> dict[str, Any]:
    """Measure what the probes of pixels need of an image."""
    pixels = load_image(path)
    return {
        "size": np.array([pixels.shape[1], pixels.shape[0]]),
        "spectrum": resampling_spectrum(pixels),
        "double_compression": np.array(double_compression(pixels)),
        "grid": grid_features(pixels),
        "colour": colour_histogram(path),
    }


def probe_metadata(sample: Sample) -> Check:
    """Classify by the headers alone: size, format, JPEG tables, mode, entries."""
    headers = sample.headers
    numbers = np.stack([metadata_features(path) for path in sample.rows["path"]])
    sides = headers[["width", "height"]].to_numpy() % 8
    features = np.column_stack([numbers, sides, *(_one_hot(headers[name]) for name in FACTS)])
    auc = _run_forest(sample, features)
    a_little = "headers tell the classes apart a little, perhaps by chance."
    outcomes = [
        (auc.is_leak, Verdict.LEAK, "headers alone tell the classes apart.", SAME_PATH),
        (auc.is_doubtful, Verdict.WARNING, a_little, "See post-processing. " + SAME_PATH),
        (True, Verdict.PASS, "headers do not tell the classes apart.", ""),
    ]
    return judge("metadata", auc, outcomes)


def probe_resampling(sample: Sample) -> Check:
    """Look for the lines of a resize that the fakes have and the originals lack."""
    sizes = sample.pixels["size"]
    if (sizes.max(axis=1) < MIN_SIDE).all():
        return Check("resampling", Verdict.NOT_CHECKED, _TOO_SMALL)
    hypotheses = predict_lines(sample.pixels["spectrum"], sizes)
    score, chosen = judge_lines(hypotheses, sample.labels, sample.folds)
    return _judge_resampling(score_probe(sample.rows, score), hypotheses, sample.labels, chosen)


def _judge_resampling(
    auc: Score, hypotheses: Hypotheses, labels: np.ndarray, chosen: list[int]
) -> Check:
    real, fake = ((hypotheses.heights[labels == label] > 0).mean(axis=0) for label in (0, 1))
    shared = simplest(np.minimum(real, fake)[:-1])  # the last is a line anywhere
    shared_name = hypotheses.names[shared]
    alike = bool(min(real[shared], fake[shared]) >= ALIKE)
    details: dict[str, Any] = {"both_classes_resized_alike": alike}
    details |= {"shared": shared_name} if alike else {}
    found = Counter(k for k in chosen if k >= 0).most_common(1)
    if not found or not auc.is_above_chance:
        summary = "no resize was found that the fakes went through and the originals did not"
        summary += f"; both show one {shared_name}." if alike else "."
        return judge("resampling", auc, [(True, Verdict.PASS, summary, "")], details)
    best = found[0][0]
    name, weak = hypotheses.names[best], auc.value < WELL_ABOVE_HONEST
    details["explanation"] = name
    details |= {"share_real": float(real[best]), "share_fake": float(fake[best])}
    what = "some resize" if name == ANYWHERE else f"a resize {name}"
    summary = f"{fake[best]:.0%} of the fakes, {real[best]:.0%} of the originals show {what}."
    near = "Its lines lie next to multiples of 1/8, where an engine may have some too."
    by_factor = "No size confirms it, so that it may be the engine's own trace."
    cautions = [
        (alike and weak, f"Both show one {shared_name}; an engine in between may do this."),
        (not hypotheses.clear[best] and weak, near),
        (name.startswith(BY_ONE_FACTOR) and weak, by_factor),
        (name == ANYWHERE, "No common size explains it; an engine with a period of its own would."),
        (not auc.is_leak, "With this few sources that may be chance."),
    ]
    outcomes = [
        (holds, Verdict.WARNING, f"{summary} {caution}", _RESIZE_ALIKE if k == 0 else _RESIZE)
        for k, (holds, caution) in enumerate(cautions)
    ]
    return judge("resampling", auc, [*outcomes, (True, Verdict.LEAK, summary, _RESIZE)], details)


def probe_double_compression(sample: Sample) -> Check:
    """Look for DCT coefficients that kept to the multiples of a JPEG quantiser."""
    if (sample.pixels["size"].min(axis=1) < MIN_SIDE).all():
        return Check("double_compression", Verdict.NOT_CHECKED, _TOO_SMALL)
    was = (sample.pixels["double_compression"] >= WAS_JPEG).astype(float)
    auc = score_probe(sample.rows, was)
    real, fake = (float(was[sample.labels == label].mean()) for label in (0, 1))
    shares = f"{real:.0%} of the originals and {fake:.0%} of the fakes were a JPEG once"
    missing = auc.high < 0.5 and real - fake > _MOST_MISSING
    wiped_out = f"{shares}: the engine wiped it out, or the fakes were never saved as one."
    outcomes = [
        (auc.is_leak, Verdict.LEAK, f"{shares}; no engine causes that.", SAME_PATH),
        (auc.is_doubtful, Verdict.WARNING, f"{shares}, perhaps by chance.", SAME_PATH),
        (missing, Verdict.WARNING, wiped_out, _MISSING + _RECOMPRESS),
        (True, Verdict.PASS, f"{shares}.", ""),
    ]
    details = {"share_real": real, "share_fake": fake}
    return judge("double_compression", auc, outcomes, details)


def probe_honest(name: str, sample: Sample) -> Check:
    """Classify by a measurement of `HONEST`; above chance is a warning, never a leak."""
    auc, (sees, reason, remedy) = _run_forest(sample, sample.pixels[name]), HONEST[name]
    told_apart = f"{sees} tell the classes apart; {reason}, so this may be the engine itself."
    outcomes = [
        (auc.is_above_chance, Verdict.WARNING, told_apart, remedy),
        (True, Verdict.PASS, f"{sees} do not tell the classes apart.", ""),
    ]
    return judge(name, auc, outcomes)


def _run_forest(sample: Sample, features: np.ndarray) -> Score:
    probability = run_probe(features, sample.labels, sample.folds, sample.random_state)
    return score_probe(sample.rows, probability)


def _one_hot(values: "pd.Series[Any]") -> np.ndarray:
    common = values.value_counts().index[:_MOST_VALUES]
    return np.equal.outer(values.to_numpy(), common.to_numpy())
