"""The report on robustness: text, CSV, JSON, and one HTML page with a plot."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.evaluation.corruptions import CLEAN, MEANINGS, kind_of
from cnnsvm.report import sections
from cnnsvm.report.files import to_json, write_files
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
from cnnsvm.report.render import to_png
from cnnsvm.report.style import CSS, PAGE
from cnnsvm.report.summaries import (
    WIDE,
    Row,
    card,
    interval_of,
    outcome,
    page_head,
    text_head,
    text_tail,
    trust,
    warnings_of,
    wrapped,
)
from cnnsvm.report.text import format_table
from cnnsvm.report.wording import (
    format_interval,
    format_number,
    is_number,
)
from robustness_study.plot import robustness_plot, shown_variants
from robustness_study.study import ALL

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
FILE = "robustness.json"
NAMED = "Each class named (original, and each kind of fake)"
CLASS_HEADERS = ["degradation", "balanced accuracy", "ECE of the named class"]
_CLASS = ("balanced_accuracy", "ece")
VERDICTS = "Verdicts, which may be unsure"
VERDICT_COLUMNS = {
    "verdict_false_alarm_rate": "originals said to be fake",
    "originals_unsure_rate": "originals unsure",
    "verdict_detection_rate": "fakes said to be fake",
    "verdict_miss_rate": "fakes said to be original",
    "fakes_unsure_rate": "fakes unsure",
}
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
        As `robustness_study.study.summarise_robustness` returns it.
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
        FILE: to_json({**facts, "degradations": kinds, "summary": _nested(summary)}),
        "robustness.csv": summary.to_csv(index=False, lineterminator="\n"),
        "robustness-predictions.csv": predictions.to_csv(index=False, lineterminator="\n"),
    }
    return write_files(out, contents)


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
    headers = ["degradation", *list(COLUMNS.values())[:2], *_SHORT]
    blocks = [text_head(title, facts)]
    for variant in shown_variants(summary):
        part = summary[summary["variant"] == variant]
        rows = [
            [row["degradation"], format_interval(interval_of(row, "roc_auc"))]
            + [_change(row)]
            + [format_number(row[name]) for name in list(COLUMNS)[2:]]
            for row in part.to_dict("records")
        ]
        blocks.append(f"{_heading(part)}\n{format_table(headers, rows)}")
    if classes := _class_rows(summary):
        blocks.append(f"{NAMED}\n{format_table(CLASS_HEADERS, classes)}")
    if verdicts := _verdict_rows(summary, lambda rate: format_number(rate["value"])):
        headers = ["degradation", *VERDICT_COLUMNS.values()]
        blocks.append(f"{VERDICTS}\n{format_table(headers, verdicts)}")
    prose = [" ".join(describe_robustness(summary)), FROZEN]
    prose += [f"Warning: {text}" for text in warnings_of(facts, FILE)]
    blocks += [wrapped(text) for text in prose]
    return "\n\n".join([*blocks, *text_tail(files)]) + "\n"


def describe_robustness(summary: pd.DataFrame) -> list[str]:
    """Say in plain words what clean pictures give, and what the degradations cost.

    Returns
    -------
    list of str
        Sentences on all fakes together; not escaped.
    """
    rows = _of_all_fakes(summary)
    others = {name: row for name, row in rows.items() if name != CLEAN}
    sentences = [outcome("Clean pictures", rows[CLEAN])] if CLEAN in rows else []
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
    classes = _class_rows(summary)
    alt = "ROC AUC and false-alarm rate by degradation, with the values of the tables below"
    plot = element("figure", image(to_png(robustness_plot(summary)), "png", alt))
    body = [
        _header(summary, facts, title),
        section("Plot", element("div", plot, class_="plots wide")),
        *(_variant_table(summary[summary["variant"] == name]) for name in shown_variants(summary)),
        *([section(NAMED, table(CLASS_HEADERS, classes))] if classes else []),
        *_verdict_section(summary),
        section("Degradations", definitions({kind: MEANINGS[kind] for kind in kinds})),
        sections.provenance({**facts, "warnings": warnings_of(facts, FILE), "skipped": []}),
    ]
    return PAGE.format(title=html(title), css=CSS + WIDE, body=join(body))


def _header(summary: pd.DataFrame, facts: Mapping[str, Any], title: str) -> Html:
    return join(
        [
            page_head(title, facts),
            element("ul", *_cards(summary), class_="cards"),
            paragraph(" ".join(describe_robustness(summary))),
            trust(FROZEN),
        ]
    )


def _cards(summary: pd.DataFrame) -> list[Html]:
    """Show clean pictures beside the worst degradation, for the ranking and the decision."""
    rows = _of_all_fakes(summary)
    cards = []
    for column, worst in (("roc_auc", min), ("false_alarm_rate", max)):
        chosen = [CLEAN if CLEAN in rows else None, _extreme(rows, column, worst)]
        for name in dict.fromkeys(name for name in chosen if name is not None):
            cards.append(card(f"{COLUMNS[column]}, {name}", interval_of(rows[name], column)))
    return cards


def _variant_table(part: pd.DataFrame) -> Html:
    rows = [
        [row["degradation"], format_interval(interval_of(row, "roc_auc")), _change(row)]
        + [format_interval(interval_of(row, name)) for name in list(COLUMNS)[2:-1]]
        + [format_number(row["ece"])]  # its interval, in the CSV, would not fit on a page
        for row in part.to_dict("records")
    ]
    return section(_heading(part), table(["degradation", *COLUMNS.values()], rows))


def _class_rows(summary: pd.DataFrame) -> list[list[str]]:
    """Return how well each class is named, a row a degradation; empty for two classes."""
    if "class_ece" not in summary:
        return []
    return [
        [name, *(format_interval(interval_of(row, f"class_{what}")) for what in _CLASS)]
        for name, row in _of_all_fakes(summary).items()
    ]


def _verdict_section(summary: pd.DataFrame) -> list[Html]:
    rows = _verdict_rows(summary, format_interval)
    headers = ["degradation", *VERDICT_COLUMNS.values()]
    return [section(VERDICTS, table(headers, rows))] if rows else []


def _verdict_rows(summary: pd.DataFrame, write: Callable[[Any], str]) -> list[list[str]]:
    """Return what the verdicts are worth, a row a degradation; empty if there are none."""
    if "fakes_unsure_rate" not in summary:
        return []
    return [
        [name, *(write(interval_of(row, column)) for column in VERDICT_COLUMNS)]
        for name, row in _of_all_fakes(summary).items()
    ]


def _heading(part: pd.DataFrame) -> str:
    variant, n_fakes, n_originals = part[["variant", "n_fakes", "n_originals"]].iloc[0]
    kind = "All fakes" if variant == ALL else str(variant).capitalize()
    return f"{kind}: {n_fakes} fakes against {n_originals} originals"


def _of_all_fakes(summary: pd.DataFrame) -> dict[str, Row]:
    rows = summary[summary["variant"] == ALL].to_dict("records")
    return {row["degradation"]: row for row in rows}


def _extreme(rows: Mapping[str, Row], column: str, choose: Callable[..., Any]) -> str | None:
    known = [name for name, row in rows.items() if is_number(row[column])]
    return choose(known, key=lambda name: rows[name][column]) if known else None


def _change(row: Row) -> str:
    known = row["degradation"] != CLEAN
    return format_interval(interval_of(row, "roc_auc_change")) if known else "-"


def _nested(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn rows into what JSON holds, a ``{"value", "low", "high"}`` each metric."""
    plain = ["degradation", "variant", "n_originals", "n_fakes", "n_sources"]
    classes = [f"class_{name}" for name in _CLASS if f"class_{name}" in summary]
    verdicts = [name for name in VERDICT_COLUMNS if name in summary]
    shown = [*COLUMNS, *classes, *verdicts]
    return [
        {name: row[name] for name in plain} | {name: interval_of(row, name) for name in shown}
        for row in summary.to_dict("records")
    ]
