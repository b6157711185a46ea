"""The report on unseen engines."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cnnsvm.io.tables import to_csv
from cnnsvm.report.model import Card, Plot, Plots, Report, Section, Table
from cnnsvm.report.render import to_json
from cnnsvm.report.wording import Row, format_number, interval_of, is_number, outcome
from robustness_study.report import shown_variants
from transfer_study.plot import external_names, family_order, transfer_plot
from transfer_study.study import ALL_FAMILIES, FIRST, HELD_OUT
from transfer_study.summary import ALL, MEAN, MEAN_OF_SAME, METRICS

FROZEN = (
    "No source of the test part gave an image to any training, and no detector that judges an "
    "engine as unseen was fitted, calibrated or given its threshold with that engine's fakes.",
    "'Seen' is the detector of all families on the same images. Fakes are set against the "
    "originals of their own records.",
    "A mean is the plain mean over families, each counted once.",
    "The 95 % intervals come from resampling whole sources: they do not cover retraining or the "
    "choice of engines, and one of no width means that no source contradicted the value, not "
    "certainty.",
)
EXTERNAL = (
    "Data sets that no detector was trained on: 'all' is the detector of all families, 'least' and "
    "'most' are the ROC AUCs of those with one family left out."
)
GROWTH = (
    "Families are added in a shuffled order; 'left out' is the mean over the families that were "
    "not yet among them, so over fewer in each line; 'never added' is the mean over the same "
    "families throughout."
)


def transfer_report(
    judged: pd.DataFrame, summary: pd.DataFrame, facts: Mapping[str, Any]
) -> Report:
    """Make the report, with ``leave-one-out.json``, ``.csv`` and ``-predictions.csv``.

    Parameters
    ----------
    judged : DataFrame
        As `transfer_study.study.measure_transfer` returns it.
    summary : DataFrame
        As `transfer_study.summary.summarise_transfer` returns it.
    facts : mapping
        Those of a `Report`.
    """
    alt = "ROC AUC by engine, unseen and seen, with the values of the tables below"
    return Report(
        facts,
        "Unseen engines",
        findings=describe_transfer(summary),
        notes=_notes(summary),
        cards=_cards(summary),
        sections=[
            Section("Plot", [Plots([Plot(transfer_plot(summary), alt)], wide=True)]),
            *_tables(summary),
        ],
        files={
            "leave-one-out.json": to_json({**facts, "summary": _nested(summary)}),
            "leave-one-out.csv": to_csv(summary),
            "leave-one-out-predictions.csv": to_csv(judged),
        },
        name="leave-one-out",
    )


def describe_transfer(summary: pd.DataFrame) -> list[str]:
    """Say in plain words what unseen engines cost, which is the hardest, and what others give."""
    rows = summary[summary["variant"] == ALL]
    unseen, seen = (_by_name(rows[rows["fit"] == fit]) for fit in (HELD_OUT, ALL_FAMILIES))
    names = [n for n in family_order(summary) if n in unseen and is_number(unseen[n]["roc_auc"])]
    if not names:
        return ["No metric is defined for these predictions."]
    mean, best = (format_number(table[MEAN]["roc_auc"]) for table in (unseen, seen))
    sentences = [
        f"ROC AUC on engines never trained on is {mean} in the mean of {len(names)}, and "
        f"{best} once they are in training.",
        outcome(f"The hardest is {names[0]}", unseen[names[0]]),
    ]
    unproven = [n for n in names if is_number(low := unseen[n]["roc_auc_low"]) and low <= 0.5]
    sentences += [f"Not shown to beat guessing: {', '.join(unproven)}."] if unproven else []
    sentences += [
        outcome(f"On {name}, never trained on", seen[name])
        for name in external_names(summary)
        if is_number(seen[name]["roc_auc"])
    ]
    return sentences


def _tables(summary: pd.DataFrame) -> Iterator[Section]:
    for variant in shown_variants(summary):
        part = summary[summary["variant"] == variant]
        kind = "All fakes" if variant == ALL else str(variant).capitalize()
        families = _families(part, family_order(summary))
        yield Section(f"{kind}: engines left out of training", [families])
        yield Section(f"{kind}: other data sets", [_externals(part)])
        if (summary["fit"] == FIRST).any():
            yield Section(f"{kind}: more engines in training", [_growth(part)])


def _families(part: pd.DataFrame, order: list[str]) -> Table:
    unseen, seen = (
        _by_name(part[(part["fit"] == fit) & ~part["external"]]) for fit in (HELD_OUT, ALL_FAMILIES)
    )
    rows = [
        [_with_count(name, unseen[name]), _value(unseen[name], "roc_auc")]
        + [_value(unseen[name], "roc_auc_change"), _value(seen.get(name), "roc_auc")]
        + [_value(unseen[name], column) for column in METRICS[1:]]
        for name in [*order, MEAN]
        if name in unseen
    ]
    headers = ["left out (fakes)", "ROC AUC", "change from seen", "seen", "found", "alarms"]
    return Table(headers, rows)


def _externals(part: pd.DataFrame) -> Table:
    far = part[part["external"]]
    others = far[far["fit"] == HELD_OUT].groupby("judged")["roc_auc"]
    rows = [
        [_with_count(name, row), _value(row, "roc_auc")]
        + [of[name] for of in (others.min(), others.max())]
        + [_value(row, column) for column in METRICS[1:]]
        for name, row in _by_name(far[far["fit"] == ALL_FAMILIES]).items()
    ]
    return Table(["data set (fakes)", "ROC AUC, all", "least", "most", "found", "alarms"], rows)


def _growth(part: pd.DataFrame) -> Table:
    far = external_names(part)
    curve = part[part["fit"].isin([FIRST, ALL_FAMILIES] if far else [FIRST])]
    rows = []
    for size in sorted(curve["n_families"].unique()):
        of_size = curve[curve["n_families"] == size]
        known = _by_name(of_size[(of_size["fit"] == FIRST) | of_size["external"]])
        names = (MEAN, MEAN_OF_SAME, *far)
        rows.append([str(size), *(known[n]["roc_auc"] if n in known else "-" for n in names)])
    return Table(["families", "left out", "never added", *far], rows)


def _cards(summary: pd.DataFrame) -> list[Card]:
    rows = summary[summary["variant"] == ALL]
    unseen, seen = (_by_name(rows[rows["fit"] == fit]) for fit in (HELD_OUT, ALL_FAMILIES))
    shown = [("ROC AUC, unseen engines, mean", unseen, MEAN), ("once seen, mean", seen, MEAN)]
    shown += [(f"ROC AUC, {name}", seen, name) for name in external_names(summary)]
    return [
        Card.of(label, interval_of(rows[name], "roc_auc"))
        for label, rows, name in shown
        if name in rows
    ]


def _by_name(part: pd.DataFrame) -> dict[str, Row]:
    """Look rows up by what was judged; of a data set, with several detectors, the first."""
    rows = part.drop_duplicates("judged").to_dict("records")
    return {row["judged"]: row for row in rows}


def _with_count(name: str, row: Row) -> str:
    return name if name == MEAN else f"{name} ({row['n_fakes']})"


def _value(row: Row | None, column: str) -> Any:
    """Take a number with its interval, or alone where it is a mean and has none."""
    if row is None:
        return None
    return row[column] if row["judged"] == MEAN else interval_of(row, column)


def _notes(summary: pd.DataFrame) -> list[str]:
    notes = [*FROZEN]
    notes += [EXTERNAL] if external_names(summary) else []
    return notes + ([GROWTH] if (summary["fit"] == FIRST).any() else [])


def _nested(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn rows into what JSON holds, a ``{"value", "low", "high"}`` each metric."""
    metrics = (*METRICS, "roc_auc_change")
    plain = ["fit", "held_out", "judged", "external", "variant"]
    counts = [str(name) for name in summary if str(name).startswith("n_")]
    return [
        {name: row[name] for name in plain}
        | {name: None if pd.isna(row[name]) else int(row[name]) for name in counts}
        | {name: interval_of(row, name) for name in metrics}
        for row in summary.to_dict("records")
    ]
