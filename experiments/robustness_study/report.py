"""The report on robustness."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from cnnsvm.evaluation.corruptions import CLEAN, MEANINGS, kind_of
from cnnsvm.io.tables import to_csv
from cnnsvm.report.model import Card, Plot, Plots, Report, Section, Table
from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure
from cnnsvm.report.render import to_json
from cnnsvm.report.wording import Row, interval_of, is_number, outcome
from robustness_study.study import ALL

#: Column of the summary -> header of the tables.
COLUMNS = {
    "roc_auc": "ROC AUC",
    "roc_auc_change": "change from clean",
    "balanced_accuracy": "balanced accuracy",
    "detection_rate": "fakes found",
    "false_alarm_rate": "false alarms",
    "ece": "ECE",
}
CLASSES = {
    "class_balanced_accuracy": "balanced accuracy",
    "class_ece": "ECE of the named class",
}
VERDICTS = {
    "verdict_false_alarm_rate": "originals said to be fake",
    "originals_unsure_rate": "originals unsure",
    "verdict_detection_rate": "fakes said to be fake",
    "verdict_miss_rate": "fakes said to be original",
    "fakes_unsure_rate": "fakes unsure",
}
FROZEN = (
    "The detector and its threshold are frozen: nothing was fitted, calibrated or chosen on "
    "corrupted images.",
    "Originals and fakes go through the same corruption after they are decoded, on top of what "
    "their files had been through.",
    "The 95 % intervals come from resampling whole sources: they do not cover retraining or other "
    "generators.",
)


def robustness_report(
    predictions: pd.DataFrame, summary: pd.DataFrame, facts: Mapping[str, Any]
) -> Report:
    """Make the report, with ``robustness.json``, ``.csv`` and ``robustness-predictions.csv``.

    Parameters
    ----------
    predictions : DataFrame
        One row an image and corruption.
    summary : DataFrame
        As `robustness_study.study.summarise_robustness` returns it.
    facts : mapping
        Those of a `Report`.
    """
    kinds = {name: MEANINGS[kind_of(name)] for name in summary["corruption"].unique()}
    meanings = {kind_of(name): meaning for name, meaning in kinds.items()}
    alt = "ROC AUC and false-alarm rate by corruption, with the values of the tables below"
    overall = _of_all_fakes(summary)
    return Report(
        facts,
        "Robustness",
        findings=describe_robustness(summary),
        notes=FROZEN,
        cards=_cards(overall),
        sections=[
            Section("Plot", [Plots([Plot(robustness_plot(summary), alt)], wide=True)]),
            *(_of_variant(summary, variant) for variant in shown_variants(summary)),
            _section("Each class named (original, and each kind of fake)", overall, CLASSES),
            _section("Verdicts, which may be unsure", overall, VERDICTS),
            Section("Corruptions", [meanings], page_only=True),
        ],
        files={
            "robustness.json": to_json(
                {**facts, "corruptions": kinds, "summary": _nested(summary)}
            ),
            "robustness.csv": to_csv(summary),
            "robustness-predictions.csv": to_csv(predictions),
        },
        name="robustness",
    )


def describe_robustness(summary: pd.DataFrame) -> list[str]:
    """Say in plain words what clean images give, and what the corruptions cost."""
    rows = _of_all_fakes(summary)
    others = {name: row for name, row in rows.items() if name != CLEAN}
    sentences = [outcome("Clean images", rows[CLEAN])] if CLEAN in rows else []
    worst = _extreme(others, "roc_auc", min)
    if worst is not None:
        sentences.append(outcome(f"The lowest ranking is that under {worst}", rows[worst]))
    for words, names in (
        (
            "Lower than clean, beyond chance",
            [n for n in others if rows[n]["roc_auc_change_high"] < 0],
        ),
        ("Higher, beyond chance", [n for n in others if rows[n]["roc_auc_change_low"] > 0]),
        ("Not shown to beat guessing", [n for n in rows if rows[n]["roc_auc_low"] <= 0.5]),
    ):
        sentences += [f"{words}: {', '.join(names)}."] if names else []
    return sentences or ["No metric is defined for these predictions."]


def _of_all_fakes(summary: pd.DataFrame) -> dict[str, Row]:
    rows = summary[summary["variant"] == ALL].to_dict("records")
    return {row["corruption"]: row for row in rows}


def _extreme(rows: Mapping[str, Row], column: str, choose: Callable[..., Any]) -> str | None:
    known = [name for name, row in rows.items() if is_number(row[column])]
    return choose(known, key=lambda name: rows[name][column]) if known else None


def _cards(rows: Mapping[str, Row]) -> list[Card]:
    """Show clean images beside the worst corruption, for the ranking and the decision."""
    cards = []
    for column, worst in (("roc_auc", min), ("false_alarm_rate", max)):
        chosen = [CLEAN if CLEAN in rows else None, _extreme(rows, column, worst)]
        for name in dict.fromkeys(name for name in chosen if name is not None):
            label = f"{COLUMNS[column]}, {name}"
            cards.append(Card.of(label, interval_of(rows[name], column)))
    return cards


def _of_variant(summary: pd.DataFrame, variant: str) -> Section:
    part = summary[summary["variant"] == variant]
    kind = "All fakes" if variant == ALL else str(variant).capitalize()
    n_fakes, n_originals = part[["n_fakes", "n_originals"]].iloc[0]
    heading = f"{kind}: {n_fakes} fakes against {n_originals} originals"
    return _section(heading, {row["corruption"]: row for row in part.to_dict("records")}, COLUMNS)


def _section(title: str, rows: Mapping[str, Row], columns: Mapping[str, str]) -> Section:
    """List rows, one a corruption; an empty section if they lack the columns."""
    cells = [
        [name, *(_cell(row, column) for column in columns)]
        for name, row in rows.items()
        if all(column in row for column in columns)
    ]
    return Section(title, [Table(["corruption", *columns.values()], cells)])


def _cell(row: Row, column: str) -> Any:
    if column == "roc_auc_change" and row["corruption"] == CLEAN:
        return "-"
    # the interval of the ECE, in the CSV, would not fit on a page
    return row["ece"] if column == "ece" else interval_of(row, column)


def _nested(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn rows into what JSON holds, a ``{"value", "low", "high"}`` each metric."""
    plain = ["corruption", "variant", "n_originals", "n_fakes", "n_sources"]
    shown = [name for name in (*COLUMNS, *CLASSES, *VERDICTS) if name in summary]
    return [
        {name: row[name] for name in plain} | {name: interval_of(row, name) for name in shown}
        for row in summary.to_dict("records")
    ]


def robustness_plot(summary: pd.DataFrame) -> Figure:
    """Draw ROC AUC and false-alarm rate by corruption, with 95 % intervals.

    Above one line a variant, broken between the kinds of corruption; below one line, as false
    alarms are those of the originals.
    """
    variants = shown_variants(summary)
    names = list(summary["corruption"].unique())
    options: dict[str, Any] = {"height_ratios": (1.7, 1), "sharex": True}
    figure, (upper, lower) = new_figure(rows=2, height=6.4, **options)
    for number, variant in enumerate(variants):
        part = summary[summary["variant"] == variant]
        shift = 0.22 * (number - (len(variants) - 1) / 2)
        label = f"{variant} ({part['n_fakes'].max()} fakes)"
        _draw_line(upper, part, "roc_auc", shift, number, label)
    originals = summary[summary["variant"] == variants[0]]
    _draw_line(lower, originals, "false_alarm_rate", 0.0, None, None)
    upper.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    upper.set(ylabel="ROC AUC (dotted: guessing)", title="Telling fakes from originals")
    floor = min(0.45, np.nanmin([0.5, summary["roc_auc_low"].min()]) - 0.02)
    upper.set(ylim=(floor, 1.01), xlim=(-0.6, len(names) - 0.4))
    upper.yaxis.set_major_locator(MultipleLocator(0.1))
    lower.set(ylabel="originals called fake", ylim=(-0.02, 1.02))
    for rate in originals.loc[originals["corruption"] == CLEAN, "false_alarm_rate"]:
        lower.axhline(rate, color=GREY, linestyle=":", linewidth=1)
    lower.set_title("False alarms (dotted: those on clean)")
    lower.yaxis.set_major_formatter(PercentFormatter(1, 0))
    lower.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    for axes in (upper, lower):
        _shade_kinds(axes, names)
    figure.legend(
        *upper.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    return figure


def shown_variants(summary: pd.DataFrame) -> list[str]:
    """List the variants; "all" only if there are several, else it says the same again."""
    variants = list(summary["variant"].unique())
    return [name for name in variants if name != ALL or len(variants) != 2]


def _draw_line(
    axes: Axes, part: pd.DataFrame, column: str, shift: float, number: int | None, label: str | None
) -> None:
    """Draw values with their intervals, joined within a kind of corruption."""
    colour = "black" if number is None else COLOURS[number % len(COLOURS)]
    marker = MARKERS[(number or 0) % len(MARKERS)]
    places = np.arange(len(part)) + shift
    value, low, high = (part[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
    axes.vlines(places, low, high, color=colour, linewidth=1.2)
    axes.plot(places, value, marker, color=colour, markersize=4, label=label)
    kinds = part["corruption"].map(kind_of).to_numpy()
    for kind in dict.fromkeys(kinds):
        axes.plot(places[kinds == kind], value[kinds == kind], color=colour, linewidth=1)


def _shade_kinds(axes: Axes, names: list[str]) -> None:
    """Put every other kind of corruption on grey."""
    kinds = [kind_of(name) for name in names]
    for number, kind in enumerate(dict.fromkeys(kinds)):
        if number % 2:
            first, last = kinds.index(kind), len(kinds) - 1 - kinds[::-1].index(kind)
            axes.axvspan(first - 0.5, last + 0.5, color=GREY, alpha=0.1, linewidth=0)
