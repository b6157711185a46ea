"""The report as plain text, for standard output: aligned columns, under 100 wide."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnsvm.report.wording import (
    GROUPINGS,
    METRIC_LABELS,
    caveats,
    count_folds,
    explain,
    format_interval,
    format_metric,
    format_number,
    format_seconds,
    format_value,
    metric_names,
)

WIDTH = 98
_NAME_WIDTH = 24
_GROUP_METRICS = ("recall", "balanced_accuracy", "roc_auc")
_FOLD_METRICS = ("balanced_accuracy", "precision", "recall", "f1", "roc_auc")
_SHOWN = 10


def format_report(result: Mapping[str, Any], files: Iterable[Path] = ()) -> str:
    """Write a result as text.

    Parameters
    ----------
    result : mapping
        As :func:`cnnsvm.report.write_report` takes it; a section that is missing or empty is
        left out.
    files : iterable of Path
        Where the written files are, such as the values that ``write_report`` returns.

    Returns
    -------
    str
        Lines of at most 98 characters, unless a path or command is longer, with a final newline.
    """
    paths = [f"  {path}" for path in files]
    sections = [
        _header(result),
        _metrics(result),
        _prose(" ".join(explain(result)), " ".join(caveats(result))),
        *(_groups(result.get(key), label) for key, label in GROUPINGS.items()),
        _controls(result.get("controls")),
        *(_table(entry) for entry in result.get("tables") or []),
        _folds(result.get("folds")),
        _listed("Warnings", [str(w) for w in result.get("warnings") or []]),
        _listed("Skipped", [f"{s['path']}: {s['reason']}" for s in result.get("skipped") or []]),
        "\n".join(["Written to", *paths]) if paths else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def format_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequences of str
        Each as long as ``headers``. A first cell of more than 24 characters gets a line of its
        own, so that one long name does not push the numbers off the screen.

    Returns
    -------
    str
    """
    short = [list(row) for row in rows if len(row[0]) <= _NAME_WIDTH]
    cells = [list(headers), *short, *(["", *row[1:]] for row in rows if len(row[0]) > _NAME_WIDTH)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    lines = [_line(headers, widths)]
    for row in rows:
        if len(row[0]) > _NAME_WIDTH:
            lines.append(f"  {row[0]}")
            row = ["", *row[1:]]
        lines.append(_line(row, widths))
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  " + "  ".join([row[0].ljust(widths[0]), *rest]).rstrip()


def _header(result: Mapping[str, Any]) -> str:
    title = str(result.get("title") or "Report")
    size = f"{result.get('n_images', '?')} images from {result.get('n_sources', '?')} sources"
    facts = {
        "data": result.get("data"),
        "size": f"{size}, {count_folds(result)}",
        "time": format_seconds(result.get("seconds")),
        "command": result.get("command"),
    }
    return "\n".join(
        [title, "=" * min(len(title), WIDTH)]
        + [f"{name:9}{value}" for name, value in facts.items() if value]
    )


def _metrics(result: Mapping[str, Any]) -> str:
    metrics = result.get("metrics") or {}
    level = f"value [{100 * result.get('confidence', 0.95):g} % interval]"
    lines = [
        f"  {METRIC_LABELS.get(name, name):20}{format_metric(name, metrics[name])}"
        for name in metric_names(result)
    ]
    return "\n".join([f"{'Metric':22}{level}", *lines])


def _prose(*paragraphs: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, WIDTH) for paragraph in paragraphs)


def _groups(groups: Mapping[str, Mapping[str, Any]] | None, label: str) -> str:
    if not groups:
        return ""
    headers = [label, "fakes", *(METRIC_LABELS[name] for name in _GROUP_METRICS)]
    rows = [
        [name, str(entry["n_fakes"])]
        + [format_interval(entry["metrics"].get(metric)) for metric in _GROUP_METRICS]
        for name, entry in groups.items()
    ]
    return f"By {label}: its fakes against all originals\n{format_table(headers, rows)}"


def _controls(controls: Mapping[str, Mapping[str, Any]] | None) -> str:
    if not controls:
        return ""
    headers = ["control", "ROC AUC", "balanced accuracy", "verdict"]
    rows = [
        [
            name,
            format_interval(entry.get("roc_auc")),
            format_interval(entry.get("balanced_accuracy")),
            str(entry.get("verdict") or "none"),
        ]
        for name, entry in controls.items()
    ]
    meanings = [
        _item(f"{name}: {entry['meaning']}")
        for name, entry in controls.items()
        if entry.get("meaning")
    ]
    title = "Negative controls: those without pixels must be near chance (0.5), or the data leak"
    return "\n".join([title, format_table(headers, rows), *meanings])


def _table(entry: Mapping[str, Any]) -> str:
    rows = [[str(cell) for cell in row] for row in entry["rows"]]
    note = [_item(entry["note"])] if entry.get("note") else []
    return "\n".join([entry["title"], format_table(entry["headers"], rows), *note])


def _folds(folds: Sequence[Mapping[str, Any]] | None) -> str:
    if not folds:
        return ""
    headers = ["fold", "train", "test", "sources", *(_short(name) for name in _FOLD_METRICS)]
    headers += ["threshold", "time"]
    rows = [
        [str(fold.get("fold")), str(fold.get("n_train", "?")), str(fold.get("n_test", "?"))]
        + [f"{fold.get('n_sources_train', '?')}+{fold.get('n_sources_test', '?')}"]
        + [format_number((fold.get("metrics") or {}).get(name)) for name in _FOLD_METRICS]
        + [format_number(fold.get("threshold")), format_seconds(fold.get("seconds"))]
        for fold in folds
    ]
    chosen = [
        _item(f"fold {fold.get('fold')} chose {format_value(fold['best_params'])}")
        for fold in folds
        if fold.get("best_params")
    ]
    title = "Outer folds (sources: training + test; none is in both)"
    return "\n".join([title, format_table(headers, rows), *chosen])


def _short(name: str) -> str:
    return "bal. acc." if name == "balanced_accuracy" else METRIC_LABELS[name]


def _listed(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = (
        [f"... and {len(items) - _SHOWN} more, all in report.json"] if len(items) > _SHOWN else []
    )
    return "\n".join([f"{title} ({len(items)})", *map(_item, [*items[:_SHOWN], *more])])


def _item(text: str) -> str:
    """Wrap an entry of a list; a path longer than a line stays whole, to be copied."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
