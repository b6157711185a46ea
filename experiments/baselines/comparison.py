"""Several designs on the same folds, and paired tests between them."""

import itertools
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.evaluation.bootstrap import (
    as_columns,
    bootstrap_metrics,
    metrics_by,
    paired_difference,
)
from cnnsvm.evaluation.comparison import holm
from cnnsvm.evaluation.protocol import cross_validate_detector

logger = logging.getLogger(__name__)

ALL = "all"
#: What the paired tests are about.
COMPARED = ("roc_auc", "balanced_accuracy")
FALSE_ALARMS = "false_alarm_rate"


@dataclass(frozen=True)
class Comparison:
    """What designs reached on images that their training did not see.

    Parameters
    ----------
    predictions : DataFrame
        One row an image and design: ``design`` and the columns of
        `cnnsvm.evaluation.protocol.CrossValidation`.
    summary : DataFrame
        See `summarise_designs`.
    differences : DataFrame
        See `paired_differences`.
    folds : DataFrame
        One row a design and fold: ``design``, ``fold``, ``seconds``, ``threshold``,
        ``inner_auc``, ``n_train``, ``n_test``, ``n_sources_train``, ``n_sources_test``.
    """

    predictions: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    folds: pd.DataFrame


def compare_designs(
    designs: Mapping[str, InpaintDetector],
    manifest: pd.DataFrame,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    folder: str | os.PathLike[str] | None = None,
    reference: str | None = None,
    n_resamples: int = 1000,
) -> Comparison:
    """Cross-validate each design on the same folds and test their differences.

    Parameters
    ----------
    designs : mapping of str to estimator
        Unfitted; `cnnsvm.InpaintDetector` or what behaves like it, such as those of
        `baselines.designs`. The names become folders.
    manifest : DataFrame
        See `cnnsvm.data.manifest`; both labels must occur.
    n_splits, random_state : int
        Number of outer folds and the seed of their shuffle (and of the bootstrap).
    folder : path or None
        Run directories, one a design; a second call resumes there.
    reference : str or None
        The design that the others are tested against; None tests every pair.
    n_resamples : int
        Of the bootstrap over sources, see `cnnsvm.evaluation.bootstrap`.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If a name is no folder's, a design does not calibrate, the reference is unknown, or as
        `cnnsvm.evaluation.protocol.cross_validate_detector` does.
    RunMismatchError
        If a subfolder holds results of other data or settings.
    """
    _check_designs(designs, reference)
    parts, folds = [], []
    for number, (name, design) in enumerate(designs.items(), start=1):
        logger.info("design %d of %d: %s", number, len(designs), name)
        place = None if folder is None else Path(folder) / name
        options: dict[str, Any] = {"n_splits": n_splits, "random_state": random_state}
        found = cross_validate_detector(
            design, manifest, folder=place, name=f"{name}, fold", **options
        )
        parts.append(_with_design(found.predictions, name))
        plain = [{k: v for k, v in f.items() if not isinstance(v, dict)} for f in found.folds]
        folds.append(_with_design(pd.DataFrame(plain), name))
    predictions = pd.concat(parts, ignore_index=True)
    bootstrap = {"n_resamples": n_resamples, "random_state": random_state}
    return Comparison(
        predictions,
        summarise_designs(predictions, **bootstrap),
        paired_differences(predictions, reference, **bootstrap),
        pd.concat(folds, ignore_index=True),
    )


def summarise_designs(
    predictions: pd.DataFrame, n_resamples: int = 1000, random_state: int = 0
) -> pd.DataFrame:
    """Score each design, for all fakes and for those of each variant.

    Parameters
    ----------
    predictions : DataFrame
        As of `Comparison`.
    n_resamples, random_state : int

    Returns
    -------
    DataFrame
        One row a design and variant ("all" first; a variant is set against all originals and
        left out if it is the only one): design, variant, n_originals, n_fakes, n_sources, and
        each metric of `cnnsvm.evaluation.metrics.METRICS` and ``false_alarm_rate`` (share of
        the originals called fake), with the ends of its 95 % interval as ``_low`` and ``_high``.
    """
    options: dict[str, Any] = {"n_resamples": n_resamples, "random_state": random_state}
    rows = []
    for name, table in predictions.groupby("design", sort=False):
        reals = table[table["label"] == 0]
        alarms = bootstrap_metrics(reals.assign(label=1), **options)["recall"]
        n_fakes = len(table) - len(reals)
        found: dict[str, dict] = {
            ALL: {"n_fakes": n_fakes, "metrics": bootstrap_metrics(table, **options)}
        }
        variants = metrics_by(table, "variant", **options)
        found |= variants if len(variants) > 1 else {}
        for variant, entry in found.items():
            shown = table if variant == ALL else table[table["variant"] == variant]
            counts = {"n_originals": len(reals), "n_fakes": entry["n_fakes"]}
            counts["n_sources"] = int(pd.concat([reals, shown])["source_id"].nunique())
            scores = entry["metrics"] | {FALSE_ALARMS: alarms}
            rows.append({"design": name, "variant": variant, **counts, **as_columns(scores)})
    return pd.DataFrame(rows)


def paired_differences(
    predictions: pd.DataFrame,
    reference: str | None = None,
    n_resamples: int = 1000,
    random_state: int = 0,
) -> pd.DataFrame:
    """Test whether designs differ, by a bootstrap that resamples sources for both alike.

    Parameters
    ----------
    predictions : DataFrame
        As of `Comparison`.
    reference : str or None
        The design that the others are tested against; None tests every pair.
    n_resamples, random_state : int

    Returns
    -------
    DataFrame
        One row a pair and metric of `COMPARED`: metric, design, against, value (metric of
        ``design`` minus that of ``against``), low, high (95 %), p (two-sided, that it is 0; see
        `cnnsvm.evaluation.bootstrap.paired_difference`) and p_holm (p adjusted for the number
        of pairs of that metric).
    """
    tables = dict(iter(predictions.groupby("design", sort=False)))
    names = list(tables)
    if reference is None:
        pairs = [(later, earlier) for earlier, later in itertools.combinations(names, 2)]
    else:
        pairs = [(name, reference) for name in names if name != reference]
    options: dict[str, Any] = {"n_resamples": n_resamples, "random_state": random_state}
    columns = ["metric", "design", "against", "value", "low", "high", "p", "p_holm"]
    rows = []
    for metric in COMPARED:
        found = [paired_difference(tables[a], tables[b], metric, **options) for a, b in pairs]
        adjusted = holm(np.array([entry["p"] for entry in found]))
        for (a, b), entry, p_holm in zip(pairs, found, adjusted, strict=True):
            rows.append({"metric": metric, "design": a, "against": b, **entry, "p_holm": p_holm})
    return pd.DataFrame(rows, columns=columns)


def _check_designs(designs: Mapping[str, InpaintDetector], reference: str | None) -> None:
    if not designs:
        raise ValueError("there are no designs to compare. Name at least one.")
    for name, design in designs.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                f"the name of a design becomes a folder, got {name!r}. Use letters, digits, "
                "'.', '-' and '_'."
            )
        if not hasattr(design, "predict_proba"):
            raise ValueError(
                f"design {name!r} gives no probabilities, which are compared; use calibrate=True."
            )
    if reference is not None and reference not in designs:
        raise ValueError(f"reference must be one of {', '.join(designs)}, got {reference!r}.")


def _with_design(table: pd.DataFrame, name: str) -> pd.DataFrame:
    table = table.copy()
    table.insert(0, "design", name)
    return table
