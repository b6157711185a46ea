"""What is left of a detector's skill when images are corrupted before it sees them.

The detector and its threshold are frozen: nothing is fitted, calibrated or chosen on corrupted
images. Every image of a source goes through the same corruption with the same seed.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
from sklearn.utils.validation import check_is_fitted

from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.detection.pretrained import fingerprint
from cnnsvm.evaluation.bootstrap import (
    Interval,
    as_columns,
    bootstrap_metrics,
    paired_difference,
)
from cnnsvm.evaluation.corruptions import CLEAN, CORRUPTIONS, check_corruptions, corrupt
from cnnsvm.evaluation.detectors import (
    check_calibrates,
    check_inner_folds,
    detector_settings,
    judge_images,
)
from cnnsvm.evaluation.protocol import outer_folds
from cnnsvm.evaluation.runs import CARRIED, RunDirectory, fingerprint_of
from cnnsvm.io.progress import show_progress
from resumable import check_target, fit_resumable
from robustness_study.class_metrics import class_metrics, verdict_metrics

logger = logging.getLogger(__name__)

ALL = "all"
#: Column of the summary -> what it is in `cnnsvm.evaluation.metrics`.
SUMMARY_METRICS = {
    "roc_auc": "roc_auc",
    "balanced_accuracy": "balanced_accuracy",
    "detection_rate": "recall",
    "ece": "ece",
}
CHUNK = 2**27  # bytes of corrupted pixels that are held at once, and one image more


def measure_robustness(
    detector: InpaintDetector,
    manifest: pd.DataFrame,
    corruptions: Sequence[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Let a fitted detector judge images that it was not trained on, corrupted in each way.

    Parameters
    ----------
    detector : InpaintDetector
        Fitted and calibrated. With two classes, the second is fake; with more, the first is
        real and all others are fake.
    manifest : DataFrame
        See `cnnsvm.data.manifest`; none of its sources may be among the detector's training images.
    corruptions : sequence of str or None
        Keys of `cnnsvm.evaluation.corruptions.CORRUPTIONS`; None takes all.
    folder : path or None
        Run directory: a second call with the same detector and data resumes there.
    random_state : int
        Seed of the corruptions, together with the source.

    Returns
    -------
    DataFrame
        One row an image and corruption, corruptions in the order given and images in the
        manifest's: path, source_id, label (1 unless the variant is "original"), variant, engine,
        mask_schema, corruption, score (log-odds of fake above the threshold's), probability (of
        fake), prediction (1 where the score is positive), and more of a detector of several
        classes or with ``max_error``, see `cnnsvm.evaluation.detectors.judge_images`.

    Raises
    ------
    ValueError
        If a corruption is unknown, or there are no images or no probabilities.
    RunMismatchError
        If the folder holds results of another detector, other data, or another seed.
    ImageError
        If an image cannot be read, or a codec cannot hold it.
    """
    names = list(CORRUPTIONS if corruptions is None else corruptions)
    check_corruptions(names)
    if not len(manifest):
        raise ValueError("the manifest has no rows: there are no images to judge.")
    check_is_fitted(detector)
    check_calibrates(detector)
    frame = manifest[list(CARRIED)].reset_index(drop=True)
    frame["label"] = (frame["variant"] != "original").astype(int)
    settings = (PIL.__version__, random_state)
    identity = bytes.fromhex(fingerprint(detector))
    place = None if folder is None else Path(folder)
    run = RunDirectory(place, fingerprint_of(identity, settings, manifest))
    seeds = [_seed(random_state, source) for source in frame["source_id"]]
    parts = []
    for number, name in enumerate(names, start=1):
        logger.info("%s (%d of %d)", name, number, len(names))
        judge = partial(_judge, detector, frame["path"].tolist(), seeds, name)
        scores = run.part(f"{name}.parquet", judge)
        parts.append(pd.concat([frame.assign(corruption=name), scores], axis=1))
    return pd.concat(parts, ignore_index=True)


def measure_by_folds(
    detector: InpaintDetector,
    manifest: pd.DataFrame,
    corruptions: Sequence[str] | None = None,
    *,
    n_splits: int = 3,
    target: str = "label",
    folder: str | os.PathLike[str] | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Fit on all folds but one, judge that one in each corruption, and so on round.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted; it must calibrate.
    manifest, corruptions, random_state
        As for `measure_robustness`; the seed is also that of the folds.
    n_splits : int
        Number of outer folds, which separate no source.
    target : str
        Column that the detectors are fitted on; "variant" makes a class of each kind of fake.
    folder : path or None
        Run directory: a second call with the same data and settings resumes there.

    Returns
    -------
    DataFrame
        As `measure_robustness` returns it, with the column ``fold``.

    Raises
    ------
    ValueError
        As `measure_robustness`, or if there are fewer sources than folds, or the first class of
        the target is not that of the originals alone.
    RunMismatchError
        If the folder holds detectors of other data or settings.
    """
    names = list(CORRUPTIONS if corruptions is None else corruptions)
    check_corruptions(names)
    check_calibrates(detector)
    check_target(manifest, target)
    splits = outer_folds(manifest, n_splits, random_state)
    for train, _ in splits:  # before the first fine-tuning
        check_inner_folds(detector, manifest.iloc[train], target)
    settings = (n_splits, random_state, target)
    fingerprint = fingerprint_of(detector_settings(detector), settings, manifest)
    run = RunDirectory(None if folder is None else Path(folder), fingerprint)
    parts = []
    for k, (train, test) in enumerate(splits):
        seen, unseen = manifest.iloc[train], manifest.iloc[test]
        model = fit_resumable(detector, seen, run, f"fold_{k}/model", target=target)
        logger.info("fold %d of %d judges %d images", k + 1, n_splits, len(test))
        place = run.subfolder(f"fold_{k}/judged")
        part = measure_robustness(model, unseen, names, folder=place, random_state=random_state)
        parts.append(part.assign(fold=k).set_axis(np.tile(test, len(names))))
    whole = pd.concat(parts)
    ordered = [whole[whole["corruption"] == name].sort_index() for name in names]
    return pd.concat(ordered, ignore_index=True)


def summarise_robustness(
    predictions: pd.DataFrame, n_resamples: int = 1000, random_state: int = 0
) -> pd.DataFrame:
    """Score each corruption, for all fakes and for those of each variant, and against clean.

    Parameters
    ----------
    predictions : DataFrame
        As `measure_robustness` or `measure_by_folds` returns it.
    n_resamples, random_state : int
        Of the bootstrap over sources, see `cnnsvm.evaluation.bootstrap`.

    Returns
    -------
    DataFrame
        One row a corruption and variant ("all" first): corruption, variant, n_originals,
        n_fakes, n_sources; ``roc_auc``, ``roc_auc_change`` (from "clean", nan if that was not
        judged), ``balanced_accuracy``, ``detection_rate`` (share of the fakes called fake),
        ``false_alarm_rate`` (share of the originals called fake) and ``ece``, each followed by
        the ends of its 95 % interval, such as ``roc_auc_low`` and ``roc_auc_high``. A variant is
        set against all originals. Of a detector of more than two classes the rows of "all" have
        ``class_balanced_accuracy`` and ``class_ece`` too (`class_metrics`), and of one with
        ``max_error`` what its verdicts are worth (`verdict_metrics`).
    """
    options: dict[str, Any] = {"n_resamples": n_resamples, "random_state": random_state}
    variants = sorted(predictions.loc[predictions["label"] == 1, "variant"].unique())
    clean = predictions[predictions["corruption"] == CLEAN]
    rows: list[dict[str, Any]] = []
    for name, table in predictions.groupby("corruption", sort=False):
        originals = table[table["label"] == 0]
        alarms = bootstrap_metrics(originals.assign(label=1), **options)["recall"]
        for variant in (ALL, *variants):
            if variant != ALL and len(variants) == 1:  # the numbers are those of "all"
                rows.append(rows[-1] | {"variant": variant})
                continue
            found = _compare(_against_originals(table, variant), clean, variant, options)
            scores = found | {"false_alarm_rate": alarms}
            if variant == ALL and "named" in table:
                scores |= class_metrics(table, **options)
            if variant == ALL and "verdict" in table:
                scores |= verdict_metrics(table, **options)
            rows.append({"corruption": name, **_counts(table, variant), **as_columns(scores)})
    return pd.DataFrame(rows)


def _compare(
    part: pd.DataFrame, clean: pd.DataFrame, variant: str, options: dict[str, Any]
) -> dict[str, Interval]:
    metrics = bootstrap_metrics(part, **options)
    found = {column: metrics[name] for column, name in SUMMARY_METRICS.items()}
    change = dict.fromkeys(("value", "low", "high"), float("nan"))
    if len(clean):
        change = paired_difference(part, _against_originals(clean, variant), "roc_auc", **options)
    return {"roc_auc": found.pop("roc_auc"), "roc_auc_change": change, **found}


def _against_originals(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    return table if variant == ALL else table[table["variant"].isin(["original", variant])]


def _counts(table: pd.DataFrame, variant: str) -> dict[str, Any]:
    part = _against_originals(table, variant)
    n_fakes = int(part["label"].sum())
    counts = {"n_originals": len(part) - n_fakes, "n_fakes": n_fakes}
    return {"variant": variant, **counts, "n_sources": int(part["source_id"].nunique())}


def _judge(
    detector: InpaintDetector, paths: list[str], seeds: list[int], name: str
) -> pd.DataFrame:
    """Score images in one corruption."""
    parts = [judge_images(detector, chunk) for chunk in _chunks(paths, seeds, name)]
    return pd.concat(parts, ignore_index=True)


def _chunks(paths: list[str], seeds: list[int], name: str) -> Iterator[list[np.ndarray]]:
    """Corrupt images and yield them in their order, about ``CHUNK`` bytes at a time."""
    corrupted = (corrupt(path, name, seed) for path, seed in zip(paths, seeds, strict=True))
    chunk: list[np.ndarray] = []
    free = CHUNK
    for image in show_progress(corrupted, len(paths), name):
        chunk.append(image)
        free -= image.nbytes
        if free <= 0:
            yield chunk
            chunk, free = [], CHUNK
    if chunk:
        yield chunk


def _seed(random_state: int, source: Any) -> int:
    """Make one seed for all images of a source, in every corruption and whatever the order."""
    return int.from_bytes(hashlib.sha256(f"{random_state} {source}".encode()).digest()[:8])
