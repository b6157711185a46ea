"""Whether a detector catches the fakes of engines that its training never saw.

Sources are split once: those of the test part give no image to any training. Each engine, or
family of engines, is left out in turn; what was fitted on the others judges its fakes, against
the originals of their records. What a detector of all families reaches stands beside it, and data
sets that are never trained on are judged by every detector.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.evaluation.detectors import (
    check_calibrates,
    check_inner_folds,
    detector_settings,
    judge_images,
)
from cnnsvm.evaluation.protocol import outer_folds
from cnnsvm.evaluation.runs import CARRIED, RunDirectory, fingerprint_of
from cnnsvm.generation.store import safe_name
from cnnsvm.io.files import text_hash
from resumable import check_target, fit_resumable

logger = logging.getLogger(__name__)

ALL_FAMILIES, HELD_OUT, FIRST = "none held out", "held out", "first"
UNKNOWN = "unknown"
#: What a table of judged images has, before scores; "data" is "" for rows of the manifest itself.
COLUMNS = (*CARRIED, "record", "family", "data", "fit", "held_out", "n_families", "round")


@dataclass(frozen=True)
class Fit:
    """A detector to be fitted.

    Parameters
    ----------
    name : {"none held out", "held out", "first"}
        Why: as the upper bound, to leave a family out, or for the curve of growth.
    held_out : str
        The family that is left out, or "".
    families : tuple of str
        Those whose fakes are trained on, sorted.
    """

    name: str
    held_out: str
    families: tuple[str, ...]


def measure_transfer(
    detector: InpaintDetector,
    manifest: pd.DataFrame,
    externals: Mapping[str, pd.DataFrame] | None = None,
    *,
    families: Mapping[str, str] | None = None,
    target: str = "variant",
    n_splits: int = 5,
    rounds: int = 1,
    growth: bool = False,
    folder: str | os.PathLike[str] | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Leave each family of engines out of training, and let the detector judge its fakes.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted; it must calibrate.
    manifest : DataFrame
        See `cnnsvm.data.manifest`; fakes of at least two families. With a column ``record``, fakes
        are set against originals of their own records alone.
    externals : mapping of str to DataFrame, optional
        Data sets that are never trained on. Their sources are named as those of the manifest:
        images of a source that is in the training part are not judged.
    families : mapping of str to str, optional
        Engine, or pattern as in ``decoder:*``, to the name of its family; the first that fits
        holds. An engine without one is its own family.
    target : str
        Column that is fitted: "variant" makes a class of each kind of fake, "label" two classes.
    n_splits, rounds : int
        Outer folds, and how many of them are the test part in turn; each round fits all
        detectors anew.
    growth : bool
        Also fit on the first 1, 2, 4, 8, ... families of a shuffled order, and judge the others.
    folder : path or None
        Run directory: a second call with the same data and settings resumes there, also
        with more rounds, with growth, or with other externals.
    random_state : int
        Seed of the folds and of the order of growth.

    Returns
    -------
    DataFrame
        One row a detector and image that it judged: ``COLUMNS``, score (log-odds of fake above
        the threshold's), probability (of fake), prediction (1 where the score is positive).

    Raises
    ------
    ValueError
        If there are fewer than two families, or fewer sources than folds, or the target does not
        tell originals from fakes, or an external's name is not usable.
    RunMismatchError
        If the folder holds detectors of other data or settings.
    ImageError
        If an image cannot be read.
    """
    check_calibrates(detector)
    check_target(manifest, target)
    frame = _with_families(manifest, families)
    others = {name: _external(table, name) for name, table in (externals or {}).items()}
    splits = outer_folds(frame, n_splits, random_state)
    if not 1 <= rounds <= n_splits:
        raise ValueError(f"rounds must lie between 1 and the {n_splits} folds, got {rounds!r}.")
    fits = plan_fits(frame["family"].dropna().unique().tolist(), growth, random_state)
    for train, _ in splits[:rounds]:  # before the first fine-tuning
        for fit in fits:
            check_inner_folds(detector, _seen(frame.iloc[train], fit), target)
    run = _open_run(folder, detector, frame, (n_splits, random_state, target))
    parts = []
    for number, (train, test) in enumerate(splits[:rounds]):
        sides = frame.iloc[train], frame.iloc[test], others
        found = _run_round(detector, fits, sides, target, run, f"round_{number}")
        parts += [part.assign(round=number) for part in found]
    judged = pd.concat(parts, ignore_index=True)
    return judged[[*COLUMNS, "score", "probability", "prediction"]]


def plan_fits(families: Sequence[str], growth: bool = False, random_state: int = 0) -> list[Fit]:
    """List the detectors that are needed, the upper bound first.

    Parameters
    ----------
    families : sequence of str
        In any order.
    growth : bool
    random_state : int
        Seed of the order in which families are added.

    Returns
    -------
    list of Fit

    Raises
    ------
    ValueError
        If there are fewer than two families.
    """
    every = tuple(sorted(families))
    if len(every) < 2:
        raise ValueError(
            f"there are fakes of one family only, {', '.join(every) or 'none'}: with it left out "
            "there is nothing to train on. Add records of another engine, or split the family."
        )
    fits = [Fit(ALL_FAMILIES, "", every)]
    fits += [Fit(HELD_OUT, name, tuple(f for f in every if f != name)) for name in every]
    if growth:
        order = [every[i] for i in np.random.default_rng(random_state).permutation(len(every))]
        sizes = [2**i for i in range(len(every).bit_length()) if 2**i < len(every)]
        fits += [Fit(FIRST, "", tuple(sorted(order[:size]))) for size in sizes]
    return fits


def family_of(engine: str, families: Mapping[str, str] | None = None) -> str:
    """Name the family of an engine: that of its own name, else of the first pattern that fits."""
    named = families or {}
    if engine in named:
        return named[engine]
    fitting = [name for pattern, name in named.items() if fnmatchcase(engine, pattern)]
    return fitting[0] if fitting else engine


def _with_families(
    manifest: pd.DataFrame, families: Mapping[str, str] | None, data: str = ""
) -> pd.DataFrame:
    frame = manifest.reset_index(drop=True)
    fake = frame["variant"] != "original"
    engines = frame["engine"].fillna(UNKNOWN).where(fake, None)
    frame["family"] = [None if pd.isna(e) else family_of(e, families) for e in engines]
    frame["label"] = fake.astype(int)
    frame["data"] = data
    if "record" not in frame:
        frame["record"] = None
    return frame


def _external(manifest: pd.DataFrame, name: str) -> pd.DataFrame:
    if not name.strip():
        raise ValueError("a data set to be judged needs a name, as in repaint=PATH.")
    return _with_families(manifest, {"*": name}, name)


def _seen(train: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    return train[(train["label"] == 0) | train["family"].isin(fit.families)]


def _to_judge(test: pd.DataFrame, fit: Fit, n_families: int) -> pd.DataFrame:
    """Take the originals, and the fakes that training did not see the like of."""
    if len(fit.families) == n_families:
        return test
    return test[(test["label"] == 0) | ~test["family"].isin(fit.families)]


def _open_run(
    folder: str | os.PathLike[str] | None,
    detector: InpaintDetector,
    frame: pd.DataFrame,
    settings: tuple[Any, ...],
) -> RunDirectory:
    named = frame.loc[frame["label"] == 1, ["engine", "family"]].fillna(UNKNOWN).astype(str)
    settings = (*settings, *sorted(map(tuple, named.drop_duplicates().to_numpy().tolist())))
    fingerprint = fingerprint_of(detector_settings(detector), settings, frame)
    return RunDirectory(None if folder is None else Path(folder), fingerprint)


def _run_round(
    detector: InpaintDetector,
    fits: list[Fit],
    sides: tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]],
    target: str,
    run: RunDirectory,
    place: str,
) -> list[pd.DataFrame]:
    """Fit every detector on the training side, and let it judge the others."""
    train, test, externals = sides
    known = set(train["source_id"])
    unseen = [table[~table["source_id"].isin(known)] for table in externals.values()]
    done: dict[tuple[str, ...], pd.DataFrame] = {}  # two reasons may ask for one detector
    parts = []
    for number, fit in enumerate(fits, start=1):
        if fit.families not in done:
            name = _name(fit, fits[0].families)
            logger.info("detector %d of %d: %s", number, len(fits), name)
            tables = [_to_judge(test, fit, len(fits[0].families)), *unseen]
            digest = text_hash("\n".join(fit.families))
            own = f"{place}/{safe_name(name, digest)}"
            done[fit.families] = _run_fit(detector, _seen(train, fit), tables, target, run, own)
        facts: dict[str, Any] = {"fit": fit.name, "held_out": fit.held_out}
        facts["n_families"] = len(fit.families)
        parts.append(done[fit.families].assign(**facts))
    return parts


def _run_fit(
    detector: InpaintDetector,
    seen: pd.DataFrame,
    tables: list[pd.DataFrame],
    target: str,
    run: RunDirectory,
    place: str,
) -> pd.DataFrame:
    """Judge each table by a detector of the images seen, which is fitted when it is needed."""
    fit = cache(lambda: fit_resumable(detector, seen, run, f"{place}/model", target=target))
    parts = []
    for table in (table.reset_index(drop=True) for table in tables if len(table)):
        paths = table["path"].tolist()
        name = f"{place}/judged-{fingerprint_of(b'', (), table)[:16]}.parquet"
        scores = run.part(name, partial(_judge, fit, paths))
        parts.append(pd.concat([table[[*CARRIED, "record", "family", "data"]], scores], axis=1))
    return pd.concat(parts, ignore_index=True)


def _judge(fit: Callable[[], InpaintDetector], paths: list[str]) -> pd.DataFrame:
    return judge_images(fit(), paths)


def _name(fit: Fit, every: tuple[str, ...]) -> str:
    """Name a detector by what it was not trained on, whatever it is wanted for."""
    missing = [family for family in every if family not in fit.families]
    return f"without {missing[0]}" if len(missing) == 1 else f"{len(fit.families)} families"
