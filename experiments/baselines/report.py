"""The report on a comparison of designs: text, CSV, JSON, and one HTML page with a plot."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from baselines.comparison import ALL, COMPARED, FALSE_ALARMS, Comparison
from baselines.plot import Found, comparison_plot, of_all_fakes
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
    interval_of,
    page_head,
    text_head,
    text_tail,
    trust,
    warnings_of,
    wrapped,
)
from cnnsvm.report.text import format_table
from cnnsvm.report.wording import (
    METRIC_LABELS,
    format_interval,
    format_number,
    format_seconds,
    is_number,
)

#: Column of a summary -> what the tables call it.
COLUMNS = {
    "roc_auc": "ROC AUC",
    "balanced_accuracy": "balanced accuracy",
    "recall": "fakes found",
    FALSE_ALARMS: "false alarms",
    "ece": "ECE",
}
PROTOCOL = (
    "All designs were fitted and judged on the same folds, which separate no source from its "
    "fakes; all that a design fits, its network and threshold included, it fits in the training "
    "part. The 95 % intervals and p-values come from resampling whole sources, the same for both "
    "designs of a pair; p is two-sided and adjusted by Holm for the pairs of its table. They do "
    "not cover retraining, other seeds or other generators. An interval of no width means that no "
    "source contradicted the value, not certainty."
)
_SHORT = ("found", "alarms", "ECE", "time")
_SIGNIFICANT = 0.05
JSON = "the JSON file"


def write_comparison(
    out: Path, found: Found, facts: Mapping[str, Any], stem: str = "benchmark"
) -> dict[str, Path]:
    """Write ``STEM.html``, ``.json`` and ``.csv``, ``STEM-differences.csv``, ``-predictions.csv``.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    found : mapping of str to Comparison
        Results by what the files went through ("png", "jpeg:75"), designs the same in each.
    facts : mapping
        ``title``, ``data``, ``command``, ``n_images``, ``n_sources``, ``n_folds``, ``seconds``,
        ``designs`` (name to description), ``settings``, ``environment``, ``warnings`` and
        ``skipped`` (``path`` and ``reason`` each); all of them optional.
    stem : str

    Returns
    -------
    dict of str to Path
        File name to path.
    """
    summary, differences, predictions = (
        pd.concat([getattr(c, part).assign(codec=codec) for codec, c in found.items()])
        for part in ("summary", "differences", "predictions")
    )
    results = {codec: _nested(comparison) for codec, comparison in found.items()}
    contents = {
        f"{stem}.html": render_comparison(found, facts),
        f"{stem}.json": to_json({**facts, "protocol": PROTOCOL, "results": results}),
        f"{stem}.csv": _csv(summary),
        f"{stem}-differences.csv": _csv(differences),
        f"{stem}-predictions.csv": _csv(predictions),
    }
    return write_files(out, contents)


def format_comparison(found: Found, facts: Mapping[str, Any], files: Iterable[Path] = ()) -> str:
    """Write results as text, lines of at most 98 characters unless a name or path is longer.

    Parameters
    ----------
    found, facts
        As `write_comparison` takes them.
    files : iterable of Path
        Where the written files are.

    Returns
    -------
    str
        With a final newline.
    """
    title = str(facts.get("title") or "Benchmark")
    blocks = [text_head(title, facts)]
    for codec, comparison in found.items():
        headers = ["design", "ROC AUC", "balanced accuracy", *_SHORT]
        blocks.append(
            f"{_heading(codec, comparison)}\n{format_table(headers, _scores(comparison))}"
        )
        blocks += [f"ROC AUC by variant\n{format_table(*rows)}" for rows in _variants(comparison)]
        headers, rows = _differences(comparison)
        blocks += [f"Differences\n{format_table(headers, rows)}"] if rows else []
        blocks.append(wrapped(" ".join(describe_comparison(comparison))))
    blocks += [
        wrapped(PROTOCOL),
        *(wrapped(f"Warning: {text}") for text in warnings_of(facts, JSON)),
    ]
    return "\n\n".join([*blocks, *text_tail(files)]) + "\n"


def describe_comparison(comparison: Comparison) -> list[str]:
    """Say in plain words which design ranks best, and of which others that is shown.

    Parameters
    ----------
    comparison : Comparison

    Returns
    -------
    list of str
        Sentences on the ROC AUC of all fakes together; not escaped.
    """
    rows = {row["design"]: row for row in of_all_fakes(comparison)}
    known = [name for name, row in rows.items() if is_number(row["roc_auc"])]
    if not known:
        return ["No ROC AUC is defined for these predictions."]
    best = max(known, key=lambda name: rows[name]["roc_auc"])
    said = [f"{best} ranks best: ROC AUC {format_interval(interval_of(rows[best], 'roc_auc'))}."]
    table = comparison.differences
    pairs = table[table["metric"] == "roc_auc"].to_dict("records")
    of_best = [pair for pair in pairs if best in (pair["design"], pair["against"])]
    beaten: list[str] = []
    open_: list[str] = []
    for pair in of_best:
        other = pair["against"] if pair["design"] == best else pair["design"]
        shown = is_number(pair["p_holm"]) and pair["p_holm"] < _SIGNIFICANT
        (beaten if shown else open_).append(other)
    said += [f"Better than {', '.join(beaten)}, beyond chance."] if beaten else []
    said += [f"Not shown to be better than {', '.join(open_)}."] if open_ else []
    guessing = [name for name in known if not rows[name]["roc_auc_low"] > 0.5]
    return said + ([f"Not shown to beat guessing: {', '.join(guessing)}."] if guessing else [])


def render_comparison(found: Found, facts: Mapping[str, Any]) -> str:
    """Write results as a page that needs nothing from elsewhere.

    Parameters
    ----------
    found, facts
        As `write_comparison` takes them.

    Returns
    -------
    str
        HTML with inline style and embedded images; paths and names in it are escaped.
    """
    title = str(facts.get("title") or "Benchmark")
    alt = "ROC AUC and balanced accuracy by design, with the values of the tables below"
    plot = element("figure", image(to_png(comparison_plot(found)), "png", alt))
    body = [
        page_head(title, facts),
        trust(PROTOCOL),
        section("Designs", definitions(facts.get("designs") or {})),
        section("Plot", element("div", plot, class_="plots wide")),
        *(_results(codec, comparison) for codec, comparison in found.items()),
        sections.provenance({**facts, "warnings": warnings_of(facts, JSON), "skipped": []}),
    ]
    return PAGE.format(title=html(title), css=CSS + WIDE, body=join(body))


def _results(codec: str, comparison: Comparison) -> Html:
    headers, rows = _differences(comparison)
    return section(
        _heading(codec, comparison),
        paragraph(" ".join(describe_comparison(comparison))),
        table(["design", *COLUMNS.values(), "time"], _scores(comparison, list(COLUMNS)[:-1])),
        *(
            join([element("h3", "ROC AUC by variant"), table(*rows)])
            for rows in _variants(comparison)
        ),
        join([element("h3", "Differences"), table(headers, rows)]) if rows else "",
    )


def _scores(comparison: Comparison, spread: Iterable[str] = COMPARED) -> list[list[str]]:
    """List a row a design; the metrics ``spread`` with their intervals."""
    seconds = comparison.folds.groupby("design")["seconds"].sum()
    return [
        [row["design"]]
        + [
            format_interval(interval_of(row, name)) if name in spread else format_number(row[name])
            for name in COLUMNS
        ]
        + [format_seconds(seconds[row["design"]])]
        for row in of_all_fakes(comparison)
    ]


def _variants(comparison: Comparison) -> list[tuple[list[str], list[list[str]]]]:
    """Return headers and rows of ROC AUC by variant, or nothing if there is one variant."""
    summary = comparison.summary[comparison.summary["variant"] != ALL]
    if not len(summary):
        return []
    counts = summary.groupby("variant", sort=False)["n_fakes"].max()
    rows = [
        [
            str(name),
            *(format_interval(interval_of(row, "roc_auc")) for row in part.to_dict("records")),
        ]
        for name, part in summary.groupby("design", sort=False)
    ]
    return [(["design", *(f"{name} ({n} fakes)" for name, n in counts.items())], rows)]


def _differences(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of what the pairs differ by."""
    pairs: dict[str, list[str]] = {}
    for row in comparison.differences.to_dict("records"):
        cells = pairs.setdefault(f"{row['design']} - {row['against']}", [])
        cells += [
            format_interval({str(k): v for k, v in row.items()}),
            format_number(row["p_holm"]),
        ]
    headers = ["pair"]
    for metric in COMPARED:
        headers += [METRIC_LABELS[metric], "p"]
    return headers, [[pair, *cells] for pair, cells in pairs.items()]


def _nested(comparison: Comparison) -> dict[str, Any]:
    parts = ("summary", "differences", "folds")
    return {part: getattr(comparison, part).to_dict("records") for part in parts}


def _heading(codec: str, comparison: Comparison) -> str:
    row = of_all_fakes(comparison)[0]
    return f"{codec}: {row['n_fakes']} fakes against {row['n_originals']} originals"


def _csv(frame: pd.DataFrame) -> str:
    first = ["codec", *(name for name in frame.columns if name != "codec")]
    return frame[first].to_csv(index=False, lineterminator="\n")
