"""The report on a comparison of designs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines.comparison import ALL, COMPARED, FALSE_ALARMS, Comparison
from cnnsvm.io.tables import to_csv
from cnnsvm.report.model import Plot, Plots, Report, Section, Table
from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure, wrap_name
from cnnsvm.report.render import to_json
from cnnsvm.report.wording import (
    METRIC_LABELS,
    Row,
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
Found = Mapping[str, Comparison]  # by what the files went through, such as "jpeg:75"


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
    """Say in plain words which design ranks all fakes best, and of which others that is shown."""
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


def of_all_fakes(comparison: Comparison) -> Sequence[Row]:
    """List the rows of a summary that are about all fakes, one a design."""
    summary = comparison.summary
    return summary[summary["variant"] == ALL].to_dict("records")


def comparison_plot(found: Found) -> Figure:
    """Draw ROC AUC and balanced accuracy of each design, with their intervals."""
    first = of_all_fakes(next(iter(found.values())))
    names = [wrap_name(row["design"]) for row in first]
    height = 1.9 + 2 * len(names) * (0.3 + 0.1 * len(found))
    figure, panels = new_figure(rows=2, height=height, sharex=True)
    for axes, metric in zip(panels, COMPARED, strict=True):
        for number, (codec, comparison) in enumerate(found.items()):
            shift = 0.2 * (number - (len(found) - 1) / 2)
            _draw_points(axes, of_all_fakes(comparison), metric, shift, number, codec)
        axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(title=METRIC_LABELS[metric], ylim=(len(names) - 0.5, -0.5))
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    panels[0].tick_params(labelbottom=True)
    panels[-1].set(xlabel="95 % intervals over sources; dotted: guessing", xlim=(None, 1.01))
    if len(found) > 1:
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw_points(
    axes: Axes, rows: Sequence[Row], metric: str, shift: float, number: int, label: str
) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    places = np.arange(len(rows)) + shift
    value, low, high = (
        np.array([row[f"{metric}{end}"] for row in rows]) for end in ("", "_low", "_high")
    )
    axes.hlines(places, low, high, color=colour, linewidth=1.6)
    axes.plot(np.r_[low, high], np.r_[places, places], "|", color=colour, markersize=6)
    axes.plot(value, places, marker, color=colour, markersize=5, label=label)
