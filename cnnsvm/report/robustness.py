"""The report on robustness: text, CSV, JSON, and one HTML page with a plot."""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from cnnsvm.evaluation.degradations import CLEAN, MEANINGS, kind_of
from cnnsvm.evaluation.robustness import ALL
from cnnsvm.report import sections
from cnnsvm.report.canvas import COLOURS, GREY, MARKERS, new_figure, to_png
from cnnsvm.report.files import to_json, write_atomically
from cnnsvm.report.markup import (
    Html,
    definitions,
    element,
    html,
    image,
    join,
    paragraph,
    section,
    table,
)
from cnnsvm.report.style import CSS, PAGE
from cnnsvm.report.text import WIDTH, format_table
from cnnsvm.report.wording import (
    format_interval,
    format_number,
    format_seconds,
    is_number,
    percent,
)

Row = Mapping[Any, Any]  # of a summary

#: Column of the summary -> what the tables call it.
COLUMNS = {
    "roc_auc": "ROC AUC",
    "roc_auc_change": "change from clean",
    "balanced_accuracy": "balanced accuracy",
    "detection_rate": "fakes found",
    "false_alarm_rate": "false alarms",
    "ece": "ECE",
}
FROZEN = (
    "The detector and its threshold are frozen: nothing was fitted, calibrated or chosen on "
    "degraded pictures. Originals and fakes go through the same degradation after they are "
    "decoded, on top of what their files had been through. The 95 % intervals come from resampling "
    "whole sources: they do not cover retraining or other generators."
)
UNSEEN = (
    "The detector was loaded from {}. Which pictures it was trained on is not recorded there and "
    "was not checked: if any of these sources was among them, the numbers are no result."
)
_WIDE = ".plots.wide { grid-template-columns: minmax(0, 40rem); }"
_SHORT = ("bal. acc.", "found", "alarms", "ECE")


def write_robustness(
    out: Path, predictions: pd.DataFrame, summary: pd.DataFrame, facts: Mapping[str, Any]
) -> dict[str, Path]:
    """Write ``robustness.html``, ``.json`` and ``.csv``, and ``robustness-predictions.csv``.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    predictions : DataFrame
        One row an image and degradation.
    summary : DataFrame
        As `cnnsvm.evaluation.robustness.summarise_robustness` returns it.
    facts : mapping
        ``title``, ``data``, ``command``, ``n_images``, ``n_sources``, ``n_folds``, ``seconds``,
        ``model`` (folder of a saved detector), ``settings``, ``environment``, ``warnings`` and
        ``skipped`` (``path`` and ``reason`` each); all of them optional.

    Returns
    -------
    dict of str to Path
        File name to path.
    """
    kinds = {name: MEANINGS[kind_of(name)] for name in summary["degradation"].unique()}
    contents = {
        "robustness.html": render_robustness(summary, facts),
        "robustness.json": to_json({**facts, "degradations": kinds, "summary": _nested(summary)}),
        "robustness.csv": summary.to_csv(index=False, lineterminator="\n"),
        "robustness-predictions.csv": predictions.to_csv(index=False, lineterminator="\n"),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(out / name, content)
    return {name: out / name for name in contents}


def format_robustness(
    summary: pd.DataFrame, facts: Mapping[str, Any], files: Iterable[Path] = ()
) -> str:
    """Write a summary as text: a table a variant, lines of at most 98 characters.

    Parameters
    ----------
    summary, facts
        As `write_robustness` takes them.
    files : iterable of Path
        Where the written files are.

    Returns
    -------
    str
        With a final newline.
    """
    title = str(facts.get("title") or "Robustness")
    lines = {"data": facts.get("data"), "size": _size(facts), "command": facts.get("command")}
    head = [f"{name:9}{value}" for name, value in lines.items() if value]
    headers = ["degradation", *list(COLUMNS.values())[:2], *_SHORT]
    blocks = ["\n".join([title, "=" * min(len(title), WIDTH), *head])]
    for variant in _shown(summary):
        part = summary[summary["variant"] == variant]
        rows = [
            [row["degradation"], format_interval(_interval(row, "roc_auc"))]
            + [_change(row)]
            + [format_number(row[name]) for name in list(COLUMNS)[2:]]
            for row in part.to_dict("records")
        ]
        blocks.append(f"{_heading(part)}\n{format_table(headers, rows)}")
    prose = [" ".join(describe_robustness(summary)), *_caveats(facts)]
    prose += [f"Warning: {text}" for text in _warnings(facts)]
    blocks += [textwrap.fill(text, WIDTH, break_long_words=False) for text in prose]
    paths = [f"  {path}" for path in files]
    return "\n\n".join([*blocks, *(["\n".join(["Written to", *paths])] if paths else [])]) + "\n"


def describe_robustness(summary: pd.DataFrame) -> list[str]:
    """Say in plain words what clean pictures give, and what the degradations cost.

    Returns
    -------
    list of str
        Sentences on all fakes together; not escaped.
    """
    rows = _of_all_fakes(summary)
    others = {name: row for name, row in rows.items() if name != CLEAN}
    sentences = [_outcome("Clean pictures", rows[CLEAN])] if CLEAN in rows else []
    worst = _extreme(others, "roc_auc", min)
    if worst is not None:
        sentences.append(_outcome(f"The lowest ranking is that under {worst}", rows[worst]))
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


def robustness_plot(summary: pd.DataFrame) -> Figure:
    """Draw ROC AUC and false-alarm rate by degradation.

    Parameters
    ----------
    summary : DataFrame
        As `write_robustness` takes it.

    Returns
    -------
    Figure
        Above one line a variant, broken between the kinds of degradation; below one line, as
        false alarms are those of the originals. Vertical lines are 95 % intervals.
    """
    variants = _shown(summary)
    names = list(summary["degradation"].unique())
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
    floor = min(0.45, float(np.nanmin([0.45, summary["roc_auc_low"].min()])) - 0.02)
    upper.set(ylim=(floor, 1.01), xlim=(-0.6, len(names) - 0.4))
    upper.yaxis.set_major_locator(MultipleLocator(0.1))
    lower.set(ylabel="originals called fake", ylim=(-0.02, 1.02))
    for rate in originals.loc[originals["degradation"] == CLEAN, "false_alarm_rate"]:
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


def render_robustness(summary: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Write a summary as a page that needs nothing from elsewhere.

    Parameters
    ----------
    summary, facts
        As `write_robustness` takes them.

    Returns
    -------
    str
        HTML with inline style and embedded images; paths and names in it are escaped.
    """
    title = str(facts.get("title") or "Robustness")
    kinds = dict.fromkeys(map(kind_of, summary["degradation"]))
    alt = "ROC AUC and false-alarm rate by degradation, with the values of the tables below"
    plot = element("figure", image(to_png(robustness_plot(summary)), "png", alt))
    body = [
        _header(summary, facts, title),
        section("Plot", element("div", plot, class_="plots wide")),
        *(_variant_table(summary[summary["variant"] == name]) for name in _shown(summary)),
        section("Degradations", definitions({kind: MEANINGS[kind] for kind in kinds})),
        sections.provenance({**facts, "warnings": _warnings(facts), "skipped": []}),
    ]
    return PAGE.format(title=html(title), css=CSS + _WIDE, body=join(body))


def _header(summary: pd.DataFrame, facts: Mapping[str, Any], title: str) -> Html:
    parts = [facts.get("data"), _size(facts)]
    parts += [format_seconds(facts["seconds"])] if "seconds" in facts else []
    command = facts.get("command")
    trust = element("strong", "How far to trust this. ") + html(" ".join(_caveats(facts)))
    return join(
        [
            element("h1", title),
            paragraph(" · ".join(str(part) for part in parts if part), class_="soft"),
            paragraph(element("code", command), class_="command") if command else "",
            element("ul", *_cards(summary), class_="cards"),
            paragraph(" ".join(describe_robustness(summary))),
            paragraph(Html(trust), class_="note alarm" if facts.get("model") else "note"),
        ]
    )


def _cards(summary: pd.DataFrame) -> list[Html]:
    """Show clean pictures beside the worst degradation, for the ranking and the decision."""
    rows = _of_all_fakes(summary)
    cards = []
    for column, worst in (("roc_auc", min), ("false_alarm_rate", max)):
        chosen = [CLEAN if CLEAN in rows else None, _extreme(rows, column, worst)]
        for name in dict.fromkeys(name for name in chosen if name is not None):
            value, _, bounds = format_interval(_interval(rows[name], column)).partition(" ")
            spans = [element("span", f"{COLUMNS[column]}, {name}"), element("strong", value)]
            cards.append(element("li", *spans, element("span", bounds)))
    return cards


def _variant_table(part: pd.DataFrame) -> Html:
    rows = [
        [row["degradation"], format_interval(_interval(row, "roc_auc")), _change(row)]
        + [format_interval(_interval(row, name)) for name in list(COLUMNS)[2:-1]]
        + [format_number(row["ece"])]  # its interval, in the CSV, would not fit on a page
        for row in part.to_dict("records")
    ]
    return section(_heading(part), table(["degradation", *COLUMNS.values()], rows))


def _heading(part: pd.DataFrame) -> str:
    variant, n_fakes, n_originals = part[["variant", "n_fakes", "n_originals"]].iloc[0]
    kind = "All fakes" if variant == ALL else str(variant).capitalize()
    return f"{kind}: {n_fakes} fakes against {n_originals} originals"


def _shown(summary: pd.DataFrame) -> list[str]:
    """List the variants; "all" only if there are several, else it says the same again."""
    variants = list(summary["variant"].unique())
    return [name for name in variants if name != ALL or len(variants) != 2]


def _of_all_fakes(summary: pd.DataFrame) -> dict[str, Row]:
    rows = summary[summary["variant"] == ALL].to_dict("records")
    return {row["degradation"]: row for row in rows}


def _extreme(rows: Mapping[str, Row], column: str, choose: Callable[..., Any]) -> str | None:
    known = [name for name, row in rows.items() if is_number(row[column])]
    return choose(known, key=lambda name: rows[name][column]) if known else None


def _interval(row: Row, name: str) -> dict[str, Any]:
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def _change(row: Row) -> str:
    known = row["degradation"] != CLEAN
    return format_interval(_interval(row, "roc_auc_change")) if known else "-"


def _nested(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn rows into what JSON holds, a ``{"value", "low", "high"}`` each metric."""
    plain = ["degradation", "variant", "n_originals", "n_fakes", "n_sources"]
    return [
        {name: row[name] for name in plain} | {name: _interval(row, name) for name in COLUMNS}
        for row in summary.to_dict("records")
    ]


def _outcome(subject: str, row: Row) -> str:
    sentence = f"{subject}: ROC AUC {format_interval(_interval(row, 'roc_auc'))}"
    rates = [row["detection_rate"], row["false_alarm_rate"]]
    if not all(map(is_number, rates)):
        return f"{sentence}."
    found, alarms = map(percent, rates)
    return f"{sentence}; {found} of the fakes and {alarms} of the originals are called fake."


def _size(facts: Mapping[str, Any]) -> str:
    size = f"{facts.get('n_images', '?')} images from {facts.get('n_sources', '?')} sources"
    return f"{size}, {facts['n_folds']} folds" if facts.get("n_folds") else size


def _caveats(facts: Mapping[str, Any]) -> list[str]:
    model = facts.get("model")
    return [UNSEEN.format(model), FROZEN] if model else [FROZEN]


def _warnings(facts: Mapping[str, Any]) -> list[str]:
    skipped = facts.get("skipped") or []
    warned = [str(text) for text in facts.get("warnings") or []]
    if skipped:
        first = f"{skipped[0]['path']}: {skipped[0]['reason']}"
        warned.append(f"{len(skipped)} image(s) left out, all in robustness.json; first {first}")
    return warned


def _draw_line(
    axes: Axes, part: pd.DataFrame, column: str, shift: float, number: int | None, label: str | None
) -> None:
    """Draw values with their intervals, joined within a kind of degradation."""
    colour = "black" if number is None else COLOURS[number % len(COLOURS)]
    marker = MARKERS[(number or 0) % len(MARKERS)]
    places = np.arange(len(part)) + shift
    value, low, high = (part[f"{column}{end}"].to_numpy() for end in ("", "_low", "_high"))
    axes.vlines(places, low, high, color=colour, linewidth=1.2)
    axes.plot(places, value, marker, color=colour, markersize=4, label=label)
    kinds = part["degradation"].map(kind_of).to_numpy()
    for kind in dict.fromkeys(kinds):
        axes.plot(places[kinds == kind], value[kinds == kind], color=colour, linewidth=1)


def _shade_kinds(axes: Axes, names: list[str]) -> None:
    """Put every other kind of degradation on grey."""
    kinds = [kind_of(name) for name in names]
    for number, kind in enumerate(dict.fromkeys(kinds)):
        if number % 2:
            first, last = kinds.index(kind), len(kinds) - 1 - kinds[::-1].index(kind)
            axes.axvspan(first - 0.5, last + 0.5, color=GREY, alpha=0.1, linewidth=0)
