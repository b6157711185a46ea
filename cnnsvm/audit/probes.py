"""Small classifiers that see one suspicious thing each, and what their success means.

A probe that cannot see what an engine does (headers, lines of a resize, a JPEG in the past of the
fakes alone) can succeed only if the data leak. One that sees pixels may succeed for an honest
reason too, so it never says more than ``warning``.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

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
from cnnsvm.audit.headers import FACTS, SAME_PATH
from cnnsvm.audit.resampling import (
    ANYWHERE,
    BY_ONE_FACTOR,
    Hypotheses,
    judge_lines,
    predict_lines,
    simplest,
)
from cnnsvm.audit.traces import (
    MIN_SIDE,
    grid_features,
    jpeg_past,
    resampling_spectrum,
)
from cnnsvm.data.images import load_image
from cnnsvm.data.splits import Fold
from cnnsvm.evaluation.bootstrap import Interval
from cnnsvm.evaluation.negative_controls import colour_histogram, metadata_features, run_probe

Described = dict[str, np.ndarray]

#: `jpeg_past` from which an image was a JPEG once: in the wide gap between those that were not.
WAS_JPEG = 0.4
#: Share of both classes with the line of one resize from which both were resized alike.
ALIKE = 0.5
#: ROC AUC that lines must reach then, since an engine that works between the two resizes changes
#: how strong the lines are: up to 0.67 was measured on matched histories. Next to multiples of 1/8
#: it must be reached too: 0.70 was measured for originals that were merely enlarged 4 times.
WELL_ABOVE_HONEST = 0.75
_MOST_VALUES = 30
_MOST_MISSING = 0.2  # of the originals' traces; as much as an AUC of 0.6 in the other direction


def describe_pixels(paths: Sequence[str], n_jobs: int | None = None) -> Iterable[Described]:
    """Measure what the probes of pixels need, an image at a time and in order.

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    jobs = (delayed(_describe)(path) for path in paths)
    described: Iterable[Described] = Parallel(
        n_jobs=n_jobs or -1, prefer="threads", return_as="generator"
    )(jobs)
    return described


def _describe(path: str) -> Described:
    pixels = load_image(path)
    return {
        "size": np.array([pixels.shape[1], pixels.shape[0]]),
        "spectrum": resampling_spectrum(pixels),
        "jpeg_past": np.array(jpeg_past(pixels)),
        "grid": grid_features(pixels),
        "colour": colour_histogram(path),
    }


def probe_metadata(
    sample: pd.DataFrame, headers: pd.DataFrame, folds: Sequence[Fold], random_state: int
) -> Check:
    """Classify by the headers alone: size, format, JPEG tables, mode, entries."""
    numbers = np.stack([metadata_features(path) for path in sample["path"]])
    sides = headers[["width", "height"]].to_numpy() % 8
    features = np.column_stack([numbers, sides, *(_one_hot(headers[name]) for name in FACTS)])
    auc = _run_forest(sample, features, folds, random_state)
    kept = auc_fields(auc)
    if is_leak(auc):
        summary = "headers alone tell the classes apart."
        return Check("metadata", LEAK, summary, SAME_PATH, **kept)
    if is_doubtful(auc):
        summary = "headers tell the classes apart a little, perhaps by chance."
        return Check("metadata", WARNING, summary, "See histories. " + SAME_PATH, **kept)
    return Check("metadata", PASS, "headers do not tell the classes apart.", **kept)


def probe_resampling(sample: pd.DataFrame, described: Described, folds: Sequence[Fold]) -> Check:
    """Look for the lines of a resize that the fakes have and the originals lack."""
    sizes = described["size"]
    if (sizes.max(axis=1) < MIN_SIDE).all():
        reason = f"images are smaller than {MIN_SIDE} pixels."
        return Check("resampling", NOT_CHECKED, reason)
    hypotheses = predict_lines(described["spectrum"], sizes)
    labels = sample["label"].to_numpy(dtype=int)
    score, chosen = judge_lines(hypotheses, labels, folds)
    auc = score_probe(sample, score)
    return _judge_resampling(auc, hypotheses, labels, chosen)


def _judge_resampling(
    auc: Interval, hypotheses: Hypotheses, labels: np.ndarray, chosen: list[int]
) -> Check:
    real, fake = ((hypotheses.heights[labels == label] > 0).mean(axis=0) for label in (0, 1))
    shared = simplest(np.minimum(real, fake)[:-1])  # the last is a line anywhere
    alike = bool(min(real[shared], fake[shared]) >= ALIKE)
    held = Counter(k for k in chosen if k >= 0).most_common(1)
    details: dict[str, Any] = {"both_classes_resized_alike": alike}
    if alike:
        details |= {"shared": hypotheses.names[shared]}
    kept = auc_fields(auc)
    if not held or not is_above_chance(auc):
        summary = "no resize was found that the fakes went through and the originals did not"
        summary += f"; both show one {hypotheses.names[shared]}." if alike else "."
        return Check("resampling", PASS, summary, **kept, details=details)
    best = held[0][0]
    name = hypotheses.names[best]
    details |= {"explanation": name, "share_real": float(real[best])}
    details["share_fake"] = float(fake[best])
    what = "some resize" if name == ANYWHERE else f"a resize {name}"
    summary = f"{fake[best]:.0%} of the fakes, {real[best]:.0%} of the originals show {what}."
    if alike and auc["value"] < WELL_ABOVE_HONEST:
        summary += f" Both show one {hypotheses.names[shared]}; an engine in between may do this."
        return Check("resampling", WARNING, summary, _RESIZE_ALIKE, **kept, details=details)
    if not hypotheses.clear[best] and auc["value"] < WELL_ABOVE_HONEST:
        summary += " Its lines lie next to multiples of 1/8, where an engine may have some too."
        return Check("resampling", WARNING, summary, _RESIZE, **kept, details=details)
    if name.startswith(BY_ONE_FACTOR) and auc["value"] < WELL_ABOVE_HONEST:
        summary += " No size bears witness to it, so that it may be the engine's own trace."
        return Check("resampling", WARNING, summary, _RESIZE, **kept, details=details)
    if name == ANYWHERE:
        summary += " No common size explains them; an engine with a period of its own would."
        return Check("resampling", WARNING, summary, _RESIZE, **kept, details=details)
    if not is_leak(auc):
        summary += " With this few sources that may be chance."
        return Check("resampling", WARNING, summary, _RESIZE, **kept, details=details)
    return Check("resampling", LEAK, summary, _RESIZE, **kept, details=details)


_RESIZE = (
    "Bring the originals through the same resizes: make the records anew with "
    "cnnsvm.generation.build and a history such as 512x512,png, or keep the fakes at the size that "
    "the engine returned and bring the originals to it (cnnsvm.generation.match_histories)."
)
_RESIZE_ALIKE = (
    "Check that the kernels are the same; compare with records at the engine's own size, without "
    "the resize back."
)


def probe_jpeg_past(sample: pd.DataFrame, described: Described) -> Check:
    """Look for DCT coefficients that kept to the multiples of a JPEG quantiser."""
    if (described["size"].min(axis=1) < MIN_SIDE).all():
        return Check("jpeg_past", NOT_CHECKED, f"images are smaller than {MIN_SIDE} pixels.")
    was = (described["jpeg_past"] >= WAS_JPEG).astype(float)
    labels = sample["label"].to_numpy(dtype=int)
    auc = score_probe(sample, was)
    real, fake = (float(was[labels == label].mean()) for label in (0, 1))
    told = f"{real:.0%} of the originals and {fake:.0%} of the fakes were a JPEG once"
    found = {**auc_fields(auc), "details": {"share_real": real, "share_fake": fake}}
    if is_leak(auc):
        return Check("jpeg_past", LEAK, f"{told}; no engine makes that.", SAME_PATH, **found)
    if is_doubtful(auc):
        return Check("jpeg_past", WARNING, f"{told}, perhaps by chance.", SAME_PATH, **found)
    if auc["high"] < 0.5 and real - fake > _MOST_MISSING:
        summary = f"{told}: the engine wiped it out, or the fakes were never saved as one."
        return Check("jpeg_past", WARNING, summary, _RECOMPRESS, **found)
    return Check("jpeg_past", PASS, f"{told}.", **found)


_RECOMPRESS = (
    "Part of what a detector finds may be the missing trace. Report a run in which both classes "
    "were recompressed too, such as --codec jpeg:90."
)


def probe_honest(
    name: str,
    features: np.ndarray,
    sample: pd.DataFrame,
    folds: Sequence[Fold],
    random_state: int,
) -> Check:
    """Classify by what an engine changes as well; above chance is a warning, never a leak."""
    auc = _run_forest(sample, features, folds, random_state)
    seen, reason, remedy = _HONEST[name]
    if is_above_chance(auc):
        summary = f"{seen} tell the classes apart; {reason}."
        return Check(name, WARNING, summary, remedy, **auc_fields(auc))
    return Check(name, PASS, f"{seen} do not tell the classes apart.", **auc_fields(auc))


_HONEST = {
    "grid": (
        "periodicities of 8 pixels",
        "JPEG and decoders that enlarge 8 times both leave them, so this may be the engine itself",
        "Report a run in which both classes were recompressed too, such as --codec jpeg:90.",
    ),
    "colour": (
        "colour histograms",
        "an engine shifts and flattens colours, so this may be the engine itself",
        "A detector must beat this AUC clearly; report it beside the result.",
    ),
    "file_size": (
        "bits a pixel",
        "files of smoother pictures are smaller, so this may be the engine itself",
        "A detector must beat this AUC clearly; report it beside the result.",
    ),
}


def _run_forest(
    sample: pd.DataFrame, features: np.ndarray, folds: Sequence[Fold], random_state: int
) -> Interval:
    labels = sample["label"].to_numpy(dtype=int)
    return score_probe(sample, run_probe(features, labels, folds, random_state))


def _one_hot(values: "pd.Series[Any]") -> np.ndarray:
    common = values.value_counts().index[:_MOST_VALUES]
    return np.equal.outer(values.to_numpy(), common.to_numpy())
