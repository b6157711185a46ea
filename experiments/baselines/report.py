"""The report on a comparison of designs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from baselines.comparison import ALL, COMPARED, FALSE_ALARMS, Comparison
from baselines.plot import Found, comparison_plot, of_all_fakes
from cnnsvm.report.model import Plot, Plots, Report, Section, Table
from cnnsvm.report.render import to_csv, to_json
from cnnsvm.report.wording import (
    METRIC_LABELS,
    format_interval,
    format_seconds,
    interval_of,
    is_number,
)

#: Column of a summary -> header of the tables.
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
    "part.",
    "The 95 % intervals and p-values come from resampling whole sources, the same for both "
    "designs of a pair; p is two-sided and adjusted by Holm for the pairs of its table.",
    "They do not cover retraining, other seeds or other generators.",
    "An interval of no width means that no source contradicted the value, not certainty.",
)
_SIGNIFICANT = 0.05


def comparison_report(found: Found, facts: Mapping[str, Any], stem: str = "benchmark") -> Report:
    """Make the report, with ``STEM.json``, ``.csv``, ``-differences.csv`` and ``-predictions.csv``.

    Parameters
    ----------
    found : mapping of str to Comparison
        Results by what the files went through ("png", "jpeg:75"), designs the same in each.
    facts : mapping
        ``designs`` (name to description), and those of a `Report`.
    stem : str
    """
    alt = "ROC AUC and balanced accuracy by design, with the values of the tables below"
    said = {codec: " ".join(describe_comparison(each)) for codec, each in found.items()}
    summary, differences, predictions = (
        pd.concat([getattr(each, part).assign(codec=codec) for codec, each in found.items()])
        for part in ("summary", "differences", "predictions")
    )
    results = {
        codec: {
            part: getattr(each, part).to_dict("records")
            for part in ("summary", "differences", "folds")
        }
        for codec, each in found.items()
    }
    return Report(
        facts,
        "Benchmark",
        findings=[f"{codec}: {text}" if len(found) > 1 else text for codec, text in said.items()],
        notes=PROTOCOL,
        sections=[
            Section("Designs", [facts.get("designs") or {}], page_only=True),
            Section("Plot", [Plots([Plot(comparison_plot(found), alt)], wide=True)]),
            *(_results(codec, comparison) for codec, comparison in found.items()),
        ],
        files={
            f"{stem}.json": to_json({**facts, "protocol": " ".join(PROTOCOL), "results": results}),
            f"{stem}.csv": _csv(summary),
            f"{stem}-differences.csv": _csv(differences),
            f"{stem}-predictions.csv": _csv(predictions),
        },
        name=stem,
    )


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


def _results(codec: str, comparison: Comparison) -> Section:
    first, *_ = of_all_fakes(comparison)
    heading = f"{codec}: {first['n_fakes']} fakes against {first['n_originals']} originals"
    return Section(heading, [_scores(comparison), _variants(comparison), _differences(comparison)])


def _scores(comparison: Comparison) -> Table:
    seconds = comparison.folds.groupby("design")["seconds"].sum()
    rows = [
        [row["design"]]
        + [row[name] if name == "ece" else interval_of(row, name) for name in COLUMNS]
        + [format_seconds(seconds[row["design"]])]
        for row in of_all_fakes(comparison)
    ]
    return Table(["design", *COLUMNS.values(), "time"], rows)


def _variants(comparison: Comparison) -> Table:
    """List ROC AUC by variant; no rows if there is one variant."""
    summary = comparison.summary[comparison.summary["variant"] != ALL]
    counts = summary.groupby("variant", sort=False)["n_fakes"].max()
    rows = [
        [str(name), *(interval_of(row, "roc_auc") for row in part.to_dict("records"))]
        for name, part in summary.groupby("design", sort=False)
    ]
    headers = ["design", *(f"{name} ({n} fakes)" for name, n in counts.items())]
    return Table(headers, rows, "ROC AUC by variant")


def _differences(comparison: Comparison) -> Table:
    pairs: dict[str, list[Any]] = {}
    for row in comparison.differences.to_dict("records"):
        cells = pairs.setdefault(f"{row['design']} - {row['against']}", [])
        cells += [{str(key): value for key, value in row.items()}, row["p_holm"]]
    headers = [name for metric in COMPARED for name in (METRIC_LABELS[metric], "p")]
    rows = [[pair, *cells] for pair, cells in pairs.items()]
    return Table(["pair", *headers], rows, "Differences")


def _csv(frame: pd.DataFrame) -> str:
    return to_csv(frame[["codec", *(name for name in frame.columns if name != "codec")]])
