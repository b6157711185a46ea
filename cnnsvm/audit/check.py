"""What a check of an audit is given and returns, and how an AUC becomes a verdict."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.data.near_duplicates import DuplicatePair
from cnnsvm.data.splits import Fold
from cnnsvm.evaluation.bootstrap import Interval, bootstrap_metrics
from cnnsvm.evaluation.negative_controls import WELL_ABOVE

PASS = "pass"
WARNING = "warning"
LEAK = "leak"
NOT_CHECKED = "not checked"
SURE = 0.99
#: Best first.
VERDICTS = (PASS, NOT_CHECKED, WARNING, LEAK)
SAME_PATH = (
    "Write both classes through one code path: cnnsvm.generation.match_post_processing, or --codec "
    "jpeg:90 (png, webp:80) of the commands that train."
)


@dataclass
class Check:
    """What one check found: a verdict, numbers in words, and what to do about it.

    ``auc``, ``low`` and ``high`` are the ROC AUC of a probe with its 95 % interval, None where the
    check is no probe; ``details`` are more about it, as JSON can hold it.
    """

    name: str
    verdict: str
    summary: str
    remedy: str = ""
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class DataSet:
    """What checks of the whole table look at.

    ``table`` is the manifest with ``unit`` (the record), ``width`` and ``height``; ``headers`` and
    ``copies`` are results of `cnnsvm.audit.headers.read_headers`, row by row, and of
    `cnnsvm.audit.tables.find_copies`.
    """

    table: pd.DataFrame
    headers: pd.DataFrame = field(default_factory=pd.DataFrame)
    copies: Mapping[str, list[DuplicatePair]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What probes look at: rows of the table, their headers and pixels, and grouped folds.

    ``pixels`` are measurements of `cnnsvm.audit.probes.measure_pixels`, an image a row.
    """

    rows: pd.DataFrame
    headers: pd.DataFrame = field(default_factory=pd.DataFrame)
    pixels: Mapping[str, np.ndarray] = field(default_factory=dict)
    folds: list[Fold] = field(default_factory=list)
    random_state: int = 0
    n_jobs: int | None = None
    progress: bool = False

    @property
    def labels(self) -> np.ndarray:
        """Return the classes, int64 of shape (n_images,)."""
        return self.rows["label"].to_numpy(dtype=int)


def judge(
    name: str,
    auc: Interval,
    outcomes: Iterable[tuple[bool, str, str, str]],
    details: dict[str, Any] | None = None,
) -> Check:
    """Return the first of ``outcomes`` (holds, verdict, summary, remedy) that holds."""
    verdict, summary, remedy = next(rest for holds, *rest in outcomes if holds)
    keys = {"auc": "value", "low": "low", "high": "high"}
    finite = {field: float(auc[key]) for field, key in keys.items() if np.isfinite(auc[key])}
    return Check(name, verdict, summary, remedy, **finite, details=details or {})


def on_threads(
    function: Callable[[Any], Any], items: Iterable[Any], n_jobs: int | None
) -> Iterator[Any]:
    """Map a function over items, in order; ``n_jobs`` is joblib's."""
    jobs = (delayed(function)(item) for item in items)
    mapped: Iterator[Any] = Parallel(n_jobs, prefer="threads", return_as="generator")(jobs)
    return mapped


def score_probe(rows: pd.DataFrame, probability: np.ndarray) -> Interval:
    """Score a probe by ROC AUC, bootstrapped over sources.

    Returns ``value``, the 95 % interval ``low`` and ``high``, and ``surely``, the lower end of
    the 99 % interval. ``rows`` has ``source_id`` and ``label``.
    """
    judged = rows[["source_id", "label"]].assign(
        probability=probability, prediction=(probability > 0.5).astype(int)
    )
    usual = bootstrap_metrics(judged)["roc_auc"]
    return {**usual, "surely": bootstrap_metrics(judged, confidence=SURE)["roc_auc"]["low"]}


def is_leak(auc: Interval) -> bool:
    """Tell whether a probe that is blind to inpainting separates the classes.

    AUC from 0.6 on with the 99 % interval above 0.5: an audit makes several such checks, and a
    clean data set should not be called leaking by chance.
    """
    return auc["value"] >= WELL_ABOVE and auc["surely"] > 0.5


def is_above_chance(auc: Interval) -> bool:
    """Tell whether a probe separates the classes: AUC from 0.6 on, 95 % interval above 0.5."""
    return auc["value"] >= WELL_ABOVE and auc["low"] > 0.5


def is_doubtful(auc: Interval) -> bool:
    """Tell whether a probe is above chance, by its 95 % interval, but no `is_leak`."""
    return auc["low"] > 0.5 and not is_leak(auc)
