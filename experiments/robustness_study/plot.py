"""The plot of the report on robustness."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from cnnsvm.evaluation.corruptions import CLEAN, kind_of
from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure
from robustness_study.study import ALL


def robustness_plot(summary: pd.DataFrame) -> Figure:
    """Draw ROC AUC and false-alarm rate by degradation.

    Parameters
    ----------
    summary : DataFrame
        As `robustness_study.study.summarise_robustness` returns it.

    Returns
    -------
    Figure
        Above one line a variant, broken between the kinds of degradation; below one line, as
        false alarms are those of the originals. Vertical lines are 95 % intervals.
    """
    variants = shown_variants(summary)
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
    floor = min(0.45, np.nanmin([0.5, summary["roc_auc_low"].min()]) - 0.02)
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


def shown_variants(summary: pd.DataFrame) -> list[str]:
    """List the variants; "all" only if there are several, else it says the same again."""
    variants = list(summary["variant"].unique())
    return [name for name in variants if name != ALL or len(variants) != 2]


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
