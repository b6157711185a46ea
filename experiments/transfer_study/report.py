"""The report on unseen engines: text, CSV, JSON, and one HTML page with a plot."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.report import sections
from cnnsvm.report.files import to_json, write_files
from cnnsvm.report.markup import Html, element, html, image, join, paragraph, section, table
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
from cnnsvm.report.wording import format_interval, format_number, is_number
from robustness_study.plot import shown_variants
from transfer_study.plot import external_names, family_order, transfer_plot
from transfer_study.study import ALL_FAMILIES, FIRST, HELD_OUT
from transfer_study.summary import ALL, MEAN, MEAN_OF_SAME, METRICS

FILE = "leave-one-out.json"
FROZEN = (
    "No source of the test part gave an image to any training, and no detector that judges an "
    "engine as unseen was fitted, calibrated or given its threshold with that engine's fakes. "
    "'Seen' is the detector of all families on the same images. Fakes are set against the "
    "originals of their own records. A mean is the plain mean over families, each counted once. "
    "The 95 % intervals come from resampling whole sources: they do not cover retraining or the "
    "choice of engines, and one of no width means that no source contradicted the value, not "
    "certainty."
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
_Form = Callable[[Row, str], str]


def write_transfer(
    out: Path, judged: pd.DataFrame, summary: pd.DataFrame, facts: Mapping[str, Any]
) -> dict[str, Path]:
    """Write ``leave-one-out.html``, ``.json`` and ``.csv``, and ``leave-one-out-predictions.csv``.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    judged : DataFrame
        As `transfer_study.study.measure_transfer` returns it.
    summary : DataFrame
        As `transfer_study.summary.summarise_transfer` returns it.
    facts : mapping
        ``title``, ``data``, ``command``, ``n_images``, ``n_sources``, ``split``, ``seconds``,
        ``settings``, ``environment``, ``warnings`` and ``skipped`` (``path`` and ``reason``
        each); all of them optional.

    Returns
    -------
    dict of str to Path
        File name to path.
    """
    contents = {
        "leave-one-out.html": render_transfer(summary, facts),
        FILE: to_json({**facts, "summary": _nested(summary)}),
        "leave-one-out.csv": summary.to_csv(index=False, lineterminator="\n"),
        "leave-one-out-predictions.csv": judged.to_csv(index=False, lineterminator="\n"),
    }
    return write_files(out, contents)


def format_transfer(
    summary: pd.DataFrame, facts: Mapping[str, Any], files: Iterable[Path] = ()
) -> str:
    """Write a summary as text: tables of at most 98 characters a line, unless a name is long.

    Parameters
    ----------
    summary, facts
        As `write_transfer` takes them.
    files : iterable of Path
        Where the written files are.

    Returns
    -------
    str
        With a final newline.
    """
    blocks = [text_head(str(facts.get("title") or "Unseen engines"), facts)]
    for heading, headers, rows in _tables(summary, _short):
        blocks.append(f"{heading}\n{format_table(headers, rows)}")
    prose = [" ".join(describe_transfer(summary)), *_notes(summary)]
    prose += [f"Warning: {text}" for text in warnings_of(facts, FILE)]
    blocks += [wrapped(text) for text in prose]
    return "\n\n".join([*blocks, *text_tail(files)]) + "\n"


def describe_transfer(summary: pd.DataFrame) -> list[str]:
    """Say in plain words what unseen engines cost, which is the hardest, and what others give.

    Returns
    -------
    list of str
        Sentences on all fakes together; not escaped.
    """
    rows = summary[summary["variant"] == ALL]
    unseen, seen = (_by_name(rows[rows["fit"] == fit]) for fit in (HELD_OUT, ALL_FAMILIES))
    names = [n for n in family_order(summary) if n in unseen and is_number(unseen[n]["roc_auc"])]
    if not names:
        return ["No metric is defined for these predictions."]
    mean, best = (format_number(table[MEAN]["roc_auc"]) for table in (unseen, seen))
    sentences = [
        f"ROC AUC on engines that training has not seen is {mean} in the mean of {len(names)}, and "
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


def render_transfer(summary: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Write a summary as a page that needs nothing from elsewhere.

    Parameters
    ----------
    summary, facts
        As `write_transfer` takes them.

    Returns
    -------
    str
        HTML with inline style and embedded images; paths and names in it are escaped.
    """
    title = str(facts.get("title") or "Unseen engines")
    alt = "ROC AUC by engine, unseen and seen, with the values of the tables below"
    plot = element("figure", image(to_png(transfer_plot(summary)), "png", alt))
    body = [
        page_head(title, facts),
        element("ul", *_cards(summary), class_="cards"),
        paragraph(" ".join(describe_transfer(summary))),
        trust(" ".join(_notes(summary))),
        section("Plot", element("div", plot, class_="plots wide")),
        *(section(name, table(headers, rows)) for name, headers, rows in _tables(summary, _long)),
        sections.provenance({**facts, "warnings": warnings_of(facts, FILE), "skipped": []}),
    ]
    return PAGE.format(title=html(title), css=CSS + WIDE, body=join(body))


def _tables(summary: pd.DataFrame, form: _Form) -> list[tuple[str, list[str], list[list[str]]]]:
    """List heading, headers and rows of each table; ``form`` writes all but the main numbers."""
    found = []
    for variant in shown_variants(summary):
        part = summary[summary["variant"] == variant]
        kind = "All fakes" if variant == ALL else str(variant).capitalize()
        found.append((f"{kind}: engines left out of training", *_families(part, summary, form)))
        if external_names(summary):
            found.append((f"{kind}: other data sets", *_externals(part, form)))
        if (summary["fit"] == FIRST).any():
            found.append((f"{kind}: more engines in training", *_growth(part)))
    return found


def _families(
    part: pd.DataFrame, summary: pd.DataFrame, form: _Form
) -> tuple[list[str], list[list[str]]]:
    unseen, seen = (
        _by_name(part[(part["fit"] == fit) & ~part["external"]]) for fit in (HELD_OUT, ALL_FAMILIES)
    )
    rows = [
        [_with_count(name, unseen[name]), _value(unseen[name], "roc_auc")]
        + [form(seen[name], "roc_auc") if name in seen else "n/a"]
        + [_value(unseen[name], "roc_auc_change")]
        + [form(unseen[name], column) for column in METRICS[1:]]
        for name in [*family_order(summary), MEAN]
        if name in unseen
    ]
    return ["left out (fakes)", "ROC AUC", "seen", "change from seen", "found", "alarms"], rows


def _externals(part: pd.DataFrame, form: _Form) -> tuple[list[str], list[list[str]]]:
    far = part[part["external"]]
    others = far[far["fit"] == HELD_OUT].groupby("judged")["roc_auc"]
    rows = [
        [_with_count(name, row), _value(row, "roc_auc")]
        + [format_number(of[name]) for of in (others.min(), others.max())]
        + [form(row, column) for column in METRICS[1:]]
        for name, row in _by_name(far[far["fit"] == ALL_FAMILIES]).items()
    ]
    return ["data set (fakes)", "ROC AUC, all", "least", "most", "found", "alarms"], rows


def _growth(part: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    far = external_names(part)
    curve = part[part["fit"].isin([FIRST, ALL_FAMILIES] if far else [FIRST])]
    rows = []
    for size in sorted(curve["n_families"].unique()):
        of_size = curve[curve["n_families"] == size]
        known = _by_name(of_size[(of_size["fit"] == FIRST) | of_size["external"]])
        names = (MEAN, MEAN_OF_SAME, *far)
        cells = [format_number(known[n]["roc_auc"]) if n in known else "-" for n in names]
        rows.append([str(size), *cells])
    return ["families", "left out", "never added", *far], rows


def _cards(summary: pd.DataFrame) -> list[Html]:
    rows = summary[summary["variant"] == ALL]
    unseen, seen = (_by_name(rows[rows["fit"] == fit]) for fit in (HELD_OUT, ALL_FAMILIES))
    shown = [("ROC AUC, unseen engines, mean", unseen, MEAN), ("once seen, mean", seen, MEAN)]
    shown += [(f"ROC AUC, {name}", seen, name) for name in external_names(summary)]
    return [
        card(label, interval_of(rows[name], "roc_auc"))
        for label, rows, name in shown
        if name in rows
    ]


def _by_name(part: pd.DataFrame) -> dict[str, Row]:
    """Look rows up by what was judged; of a data set, with several detectors, the first."""
    rows = part.drop_duplicates("judged").to_dict("records")
    return {row["judged"]: row for row in rows}


def _with_count(name: str, row: Row) -> str:
    return name if name == MEAN else f"{name} ({row['n_fakes']})"


def _value(row: Row, column: str) -> str:
    """Write a number with its interval, or alone where it is a mean and has none."""
    return _short(row, column) if row["judged"] == MEAN else _long(row, column)


def _short(row: Row, column: str) -> str:
    return format_number(row[column])


def _long(row: Row, column: str) -> str:
    bare = row["judged"] == MEAN
    return _short(row, column) if bare else format_interval(interval_of(row, column))


def _notes(summary: pd.DataFrame) -> list[str]:
    notes = [FROZEN]
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
