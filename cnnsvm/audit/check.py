"""What a check of an audit is given and returns, and how an AUC becomes a verdict."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.data.near_duplicates import DuplicatePair
from cnnsvm.data.splits import Fold
from cnnsvm.evaluation.bootstrap import bootstrap_metrics
from cnnsvm.evaluation.negative_controls import WELL_ABOVE

SAME_PATH = (
    "Write both classes through one code path: cnnsvm.generation.match_post_processing, or --codec "
    "jpeg:90 (png, webp:80) of the commands that train."
)


class Verdict(StrEnum):
    """What a check comes to, the best first."""

    PASS = "pass"
    NOT_CHECKED = "not checked"
    WARNING = "warning"
    LEAK = "leak"


@dataclass
class Check:
    """What one check found: a verdict, numbers in words, and what to do about it.

    ``auc``, ``low`` and ``high`` are the ROC AUC of a probe with its 95 % interval, else None.
    ``details`` can be written as JSON.
    """

    name: str
    verdict: Verdict
    summary: str
    remedy: str = ""
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """What checks of the whole table look at.

    ``table`` is the manifest with ``unit`` (the record), ``width`` and ``height``; ``headers`` are
    from `cnnsvm.audit.headers.read_headers`, ``copies`` from `cnnsvm.audit.tables.find_copies`.
    """

    table: pd.DataFrame
    headers: pd.DataFrame = field(default_factory=pd.DataFrame)
    copies: Mapping[str, list[DuplicatePair]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """What probes look at: rows, headers, results of `measure_pixels` and grouped folds."""

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


@dataclass(frozen=True)
class Score:
    """ROC AUC of a probe: its value, 95 % interval and the lower end of the 99 % interval."""

    value: float
    low: float
    high: float
    surely: float

    @property
    def is_leak(self) -> bool:
        """Whether the classes are surely apart: an audit makes several checks, hence 99 %."""
        return self.value >= WELL_ABOVE and self.surely > 0.5

    @property
    def is_above_chance(self) -> bool:
        """Whether a probe separates the classes: AUC from 0.6 on, 95 % interval above 0.5."""
        return self.value >= WELL_ABOVE and self.low > 0.5

    @property
    def is_doubtful(self) -> bool:
        """Whether the 95 % interval is above 0.5 without a leak."""
        return self.low > 0.5 and not self.is_leak


def judge(
    name: str,
    auc: Score,
    outcomes: Iterable[tuple[bool, Verdict, str, str]],
    details: dict[str, Any] | None = None,
) -> Check:
    """Return the first of ``outcomes`` (holds, verdict, summary, remedy) that holds."""
    _, verdict, summary, remedy = next(outcome for outcome in outcomes if outcome[0])
    numbers = {"auc": auc.value, "low": auc.low, "high": auc.high}
    finite = {key: float(number) for key, number in numbers.items() if np.isfinite(number)}
    return Check(name, verdict, summary, remedy, **finite, details=details or {})


def on_threads(
    function: Callable[[Any], Any], items: Iterable[Any], n_jobs: int | None
) -> Iterator[Any]:
    """Map a function over items, in order; ``n_jobs`` is joblib's."""
    jobs = (delayed(function)(item) for item in items)
    mapped: Iterator[Any] = Parallel(n_jobs, prefer="threads", return_as="generator")(jobs)
    return mapped


def score_probe(rows: pd.DataFrame, probability: np.ndarray) -> Score:
    """Score a probe by ROC AUC, bootstrapped over the ``source_id`` of the rows."""
    judged = rows[["source_id", "label"]].assign(
        probability=probability, prediction=(probability > 0.5).astype(int)
    )
    usual = bootstrap_metrics(judged)["roc_auc"]
    surely = bootstrap_metrics(judged, confidence=0.99)["roc_auc"]["low"]
    return Score(usual["value"], usual["low"], usual["high"], surely)
