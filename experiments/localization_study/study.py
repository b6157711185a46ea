"""Train localisers on kinds of images and judge them on others, sources held out.

Everything is stored in a folder, and an interrupted study resumes: the running training after its
last epoch, each finished localiser and judgement at once. In several processes all of them train,
and the first one judges and writes.
"""

import logging
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from cnnsvm.data.encoding import write_image
from cnnsvm.data.splits import Fold, grouped_folds
from cnnsvm.evaluation.localization_judging import flatten, judge
from cnnsvm.evaluation.localization_metrics import summarise
from cnnsvm.evaluation.localization_records import ORIGINAL, masks_of
from cnnsvm.evaluation.runs import (
    CACHE,
    RunDirectory,
    fingerprint_of,
    is_finished,
    settings_of,
    store,
)
from cnnsvm.features.devices import writes
from cnnsvm.generation.store import safe_name
from cnnsvm.io.bundle import CONFIG
from cnnsvm.io.files import read_json, text_hash, write_json
from localization_study.controls import judge_controls
from localization_study.plan import Condition, Fit, Plan
from localization_study.records import hash_masks

logger = logging.getLogger(__name__)

MODEL = "model"
N_EXAMPLES = 4  # maps of a localiser's own kind that are stored for the report
_MACHINE = ("device", "precision", "gpu_memory_fraction", "n_jobs", "distributed")


@dataclass
class Study:
    """What a study has found.

    Parameters
    ----------
    summary : DataFrame
        One row a localiser and condition: ``design``, ``trained_on``, ``policy``, ``judged_on``,
        ``judged_policy``, ``quality`` (missing where there is no JPEG), and what
        `cnnsvm.evaluation.localization_judging.flatten` gives.
    images : DataFrame
        One row a localiser, condition and image.
    fits : list of dict
        One a localiser: ``design``, ``trained_on``, ``policy``, ``n_images``, ``seconds`` (of the
        last uninterrupted part of the training), ``history``.
    examples : list of dict
        Images with maps: ``design``, ``kind``, ``policy``, ``row`` (of the table), ``map`` (a
        PNG, 8-bit grey), ``iou``, ``threshold``.
    controls : DataFrame
        What is reached without looking at an image, see
        `localization_study.controls.judge_controls`, and ``judged_policy``.
    """

    summary: pd.DataFrame
    images: pd.DataFrame
    fits: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    controls: pd.DataFrame = field(default_factory=pd.DataFrame)


def measure_localization(
    designs: dict[str, Any],
    table: pd.DataFrame,
    plan: Plan,
    folder: str | os.PathLike[str],
    *,
    n_splits: int = 5,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> Study | None:
    """Train and judge what a plan lists.

    Parameters
    ----------
    designs : dict of str to InpaintLocalizer
        Unfitted, with ``mask_policy`` and ``cache_dir`` still to be set.
    table : DataFrame
        Of `cnnsvm.evaluation.localization_records.with_truth`.
    plan : dict of Fit to list of Condition
    folder : path
        Keeps everything; a second call with the same data and settings goes on there, also with
        more designs and tables.
    n_splits : int
        Into how many parts the sources are split; one of them is held out.
    n_resamples, random_state : int
        Of the intervals, and the seed of the split.

    Returns
    -------
    Study or None
        None in the processes that only help to train.

    Raises
    ------
    ValueError
        If a kind of image has fewer sources than parts are asked for.
    RunMismatchError
        If the folder holds a localiser of other data or settings.
    """
    train, test = hold_out_sources(table, n_splits, random_state)
    seen, unseen = (table.iloc[part].reset_index(drop=True) for part in (train, test))
    is_first = writes(next(iter(designs.values())).distributed)
    settings = (n_splits, n_resamples, random_state, hash_masks(table))
    places = {fit: Path(folder) / _place_of(fit) for fit in plan}
    runs = {}
    for fit, place in places.items() if is_first else ():  # now, not after a day
        made_of = fingerprint_of(_settings(designs[fit.design], fit), settings, table)
        runs[fit] = RunDirectory(place, made_of, results=f"{MODEL}/{CONFIG}")
    parts = []
    for number, (fit, conditions) in enumerate(plan.items(), start=1):
        logger.info("localiser %d of %d: %s", number, len(plan), fit)
        own = seen[seen["kind"].isin((fit.kind, ORIGINAL))]
        model = fitted(designs[fit.design], fit, own, places[fit], runs.get(fit))
        if is_first:
            options = {"n_resamples": n_resamples, "random_state": random_state}
            parts.append(
                _judge_all(model, fit, conditions, unseen, places[fit], runs[fit], **options)
            )
            parts[-1].fits[0] |= {"n_images": len(own), "seconds": runs[fit].seconds.get(MODEL)}
    if not is_first:
        return None
    study = _joined(parts)
    study.controls = _controls(plan, seen, unseen, n_resamples, random_state)
    return study


def hold_out_sources(table: pd.DataFrame, n_splits: int, random_state: int = 0) -> Fold:
    """Split images by sources, each kind in about the same proportion.

    Returns
    -------
    train, test : ndarray of int
    """
    kinds, sources = table["kind"].to_numpy(), table["source_id"].to_numpy()
    return grouped_folds(kinds, sources, n_splits, random_state)[0]


def fitted(design: Any, fit: Fit, own: pd.DataFrame, place: Path, run: RunDirectory | None) -> Any:
    """Train a localiser, or load a saved one.

    Parameters
    ----------
    design : InpaintLocalizer
        Unfitted; its settings for this machine also hold for one that is loaded.
    fit : Fit
    own : DataFrame
        The images that it is trained on.
    place : Path
        Keeps the state of the running training.
    run : RunDirectory or None
        Stores the localiser, and has it in ``place``; None in processes that only help to train.
    """

    def train() -> Any:
        model = clone(design).set_params(mask_policy=fit.policy, cache_dir=place / CACHE)
        groups = own["source_id"].to_numpy()
        return model.fit(own["path"].tolist(), masks_of(own), groups=groups)

    if run is None:
        return None if is_finished(place / MODEL) else train()
    # what was saved, now too: every call judges by the same
    loaded = run.part(
        MODEL, train, load=type(design).from_pretrained, save=type(design).save_pretrained
    )
    return loaded.set_params(**{name: getattr(design, name) for name in _MACHINE})


def _settings(design: Any, fit: Fit) -> bytes:
    """Hash what a localiser is made of; how many processes train it is the machine's business."""
    return settings_of(clone(design).set_params(mask_policy=fit.policy, distributed=False))


def _place_of(fit: Fit) -> str:
    return safe_name(f"{fit.design} {fit.kind} {fit.policy}", text_hash(str(fit)))


def _judge_all(
    model: Any,
    fit: Fit,
    conditions: list[Condition],
    unseen: pd.DataFrame,
    place: Path,
    run: RunDirectory,
    **options: Any,
) -> Study:
    """Judge one localiser under all its conditions; what is finished is read."""
    named = {"design": fit.design, "trained_on": fit.kind, "policy": fit.policy}
    rows, images, examples = [], [], []
    for condition in conditions:
        table = unseen[unseen["kind"] == condition.kind].reset_index(drop=True)
        maps = place / f"judged-{text_hash(repr(condition))}"
        judged: dict[str, Any] = {"judged_on": condition.kind, "quality": condition.quality}
        judged["judged_policy"] = condition.policy
        summary, scores = run.part(
            f"{maps.name}.json",
            partial(_judge_one, model, fit, condition, table, maps, **options),
            load=lambda path: (read_json(path), pd.read_parquet(path.with_suffix(".parquet"))),
            save=_save_judged,
        )
        rows.append(named | judged | summary)
        images.append(scores.assign(**named, **judged))
        if _is_own(fit, condition):
            examples += _examples(model, fit, table, images[-1], maps)
    facts = named | {"history": model.history_}
    return Study(pd.DataFrame(rows), pd.concat(images), [facts], examples)


def _judge_one(
    model: Any, fit: Fit, condition: Condition, table: pd.DataFrame, maps: Path, **options: Any
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Judge, and write the maps that are to be shown."""
    wanted = _shown(len(table)) if _is_own(fit, condition) else set()

    def watch(position: int, found: np.ndarray) -> None:
        if position in wanted:
            grey = np.rint(255 * found).astype(np.uint8)
            write_image(maps / f"{position}.png", grey, "PNG")

    counts = judge(model, table, policy=condition.policy, quality=condition.quality, watch=watch)
    return flatten(summarise(counts, **options)), counts.rows


def _save_judged(judged: tuple[dict[str, Any], pd.DataFrame], path: Path) -> None:
    store(judged[1], path.with_suffix(".parquet"))
    write_json(path, judged[0])  # last: marks it finished


def _is_own(fit: Fit, condition: Condition) -> bool:
    return condition == Condition(fit.kind, fit.policy)


def _shown(n_rows: int) -> set[int]:
    return {int(place) for place in np.linspace(0, n_rows - 1, min(N_EXAMPLES, n_rows)).round()}


def _examples(
    model: Any, fit: Fit, table: pd.DataFrame, images: pd.DataFrame, maps: Path
) -> list[dict[str, Any]]:
    found = []
    for place in sorted(_shown(len(table))):
        example: dict[str, Any] = {"design": fit.design, "kind": fit.kind, "policy": fit.policy}
        example["row"] = table.iloc[place].to_dict()
        example["map"] = maps / f"{place}.png"
        example["iou"] = float(images["iou"].iloc[place])
        example["threshold"] = model.threshold_
        found.append(example)
    return found


def _controls(
    plan: Plan, seen: pd.DataFrame, unseen: pd.DataFrame, n_resamples: int, random_state: int
) -> pd.DataFrame:
    """Judge the controls on each kind of repainted images, under each policy asked for."""
    asked = {(c.policy, c.kind): None for listed in plan.values() for c in listed}
    found = []
    for policy in dict.fromkeys(policy for policy, _ in asked):
        kinds = [kind for own, kind in asked if own == policy and kind != ORIGINAL]
        rows = judge_controls(seen, unseen, kinds, policy, n_resamples, random_state)
        found.append(rows.assign(judged_policy=policy))
    return pd.concat(found, ignore_index=True)


def _joined(parts: list[Study]) -> Study:
    summary = pd.concat([part.summary for part in parts], ignore_index=True)
    images = pd.concat([part.images for part in parts], ignore_index=True)
    fits = [entry for part in parts for entry in part.fits]
    return Study(summary, images, fits, [entry for part in parts for entry in part.examples])
