"""From what detectors judged that had not seen an engine to numbers that can be compared."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cnnsvm.evaluation.bootstrap import as_columns, bootstrap_metrics, paired_difference
from transfer_study.study import ALL_FAMILIES, FIRST, HELD_OUT

ALL = "all"
MEAN, MEAN_OF_SAME = "mean", "mean of those never added"
METRICS = ("roc_auc", "detection_rate", "false_alarm_rate")
_NAN = dict.fromkeys(("value", "low", "high"), float("nan"))
_DETECTOR = ["fit", "held_out", "n_families"]


def summarise_transfer(
    judged: pd.DataFrame, n_resamples: int = 1000, random_state: int = 0
) -> pd.DataFrame:
    """Score what each detector says of each family and of each external data set, by variant.

    Parameters
    ----------
    judged : DataFrame
        As `transfer_study.study.measure_transfer` returns it.
    n_resamples, random_state : int
        Of the bootstrap over sources, see `cnnsvm.evaluation.bootstrap`.

    Returns
    -------
    DataFrame
        One row a detector (``fit``, ``held_out``, ``n_families``), a family or data set that it
        judged (``judged``; ``external`` is True for a data set) and variant ("all" first):
        n_originals, n_fakes, n_sources; ``roc_auc``, ``detection_rate`` (share of the fakes called
        fake), ``false_alarm_rate`` (share of the originals called fake) and, where a family is
        held out, ``roc_auc_change`` (from the detector trained on it, on the same images), each
        followed by the ends of its 95 % interval, such as ``roc_auc_low`` and ``roc_auc_high``.
        A family without a fake among the test sources has a row of nan.

        A row ``judged="mean"`` is the plain mean over ``n_averaged`` families, each counted once,
        without an interval; ``"mean of those never added"`` that of the families which no detector
        of the growth was trained on, the same for every number of families.
    """
    options = {"n_resamples": n_resamples, "random_state": random_state}
    best = judged[(judged["fit"] == ALL_FAMILIES) & (judged["data"] == "")]
    rows = []
    for (fit, held_out, n_families), table in judged.groupby(_DETECTOR, sort=False):
        names = {"fit": fit, "held_out": held_out, "n_families": n_families}
        reference = best if fit == HELD_OUT else None
        rows += [names | row for row in _score_detector(table, str(held_out), reference, options)]
    whole = pd.concat([pd.DataFrame(rows), _means(pd.DataFrame(rows))], ignore_index=True)
    counts = [name for name in whole if str(name).startswith("n_")]
    return whole.astype(dict.fromkeys(counts, "Int64"))


def against_originals(table: pd.DataFrame, family: str) -> pd.DataFrame:
    """Take a family's fakes and the originals of their records, or all where none is named.

    Parameters
    ----------
    table : DataFrame
        Judged images of one detector and one data set.
    family : str
    """
    fakes = table[(table["family"] == family) & (table["label"] == 1)]
    originals = table[table["label"] == 0]
    if fakes["record"].notna().all() and len(fakes):
        originals = originals[originals["record"].isin(fakes["record"])]
    return pd.concat([originals, fakes])


def _score_detector(
    table: pd.DataFrame, held_out: str, reference: pd.DataFrame | None, options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    for data, part in table.groupby("data", sort=False):
        expected = {held_out} if held_out and data == "" else set()
        for family in sorted(expected | set(part["family"].dropna())):
            seen = None
            if reference is not None and data == "":
                seen = against_originals(reference, family)
            names = {"judged": family, "external": data != ""}
            for row in _score_variants(against_originals(part, family), seen, options):
                yield names | row


def _score_variants(
    part: pd.DataFrame, seen: pd.DataFrame | None, options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    originals = part[part["label"] == 0]
    alarms = bootstrap_metrics(originals.assign(label=1), **options)["recall"]
    variants = sorted(part.loc[part["label"] == 1, "variant"].unique())
    row: dict[str, Any] = {}
    for variant in (ALL, *variants):
        if variant == ALL or len(variants) > 1:  # of a single one the numbers are those of "all"
            rows = _of_variant(part, variant)
            metrics = bootstrap_metrics(rows, **options)
            scores = {"roc_auc": metrics["roc_auc"], "detection_rate": metrics["recall"]}
            change = _NAN
            if seen is not None:
                other = _of_variant(seen, variant)
                change = paired_difference(rows, other, "roc_auc", **options)
            scores |= {"false_alarm_rate": alarms, "roc_auc_change": change}
            row = _counts(rows) | as_columns(scores)
        yield {"variant": variant, **row}


def _of_variant(part: pd.DataFrame, variant: str) -> pd.DataFrame:
    return part if variant == ALL else part[part["variant"].isin(["original", variant])]


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    n_fakes = int(rows["label"].sum())
    n_sources = int(rows["source_id"].nunique())
    return {"n_originals": len(rows) - n_fakes, "n_fakes": n_fakes, "n_sources": n_sources}


def _means(scored: pd.DataFrame) -> pd.DataFrame:
    """Average over families: those held out one by one, or those that one detector judged."""
    own = scored[~scored["external"]]
    grown = own[own["fit"] == FIRST]
    met = grown.groupby("judged")["n_families"].nunique()
    never = met.index[met == grown["n_families"].nunique()]
    averaged = [*METRICS, "roc_auc_change"]
    rows = []
    for name, table in ((MEAN, own), (MEAN_OF_SAME, grown[grown["judged"].isin(never)])):
        groups = table.groupby(["fit", "n_families", "variant"], sort=False)
        for (fit, n_families, variant), part in groups:
            row = {"fit": fit, "held_out": "", "n_families": n_families, "judged": name}
            row |= {"external": False, "variant": variant, "n_fakes": part["n_fakes"].sum()}
            row |= {"n_averaged": part["roc_auc"].notna().sum()}
            rows.append(row | part[averaged].mean().to_dict())
    return pd.DataFrame(rows)
