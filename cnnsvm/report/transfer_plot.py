"""The plot of the report on unseen engines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnsvm.evaluation.transfer import ALL_FAMILIES, FIRST, HELD_OUT
from cnnsvm.evaluation.transfer_summary import MEAN, MEAN_OF_SAME
from cnnsvm.report.canvas import COLOURS, GREY, MARKERS, new_figure, wrap_name
from cnnsvm.report.robustness_plot import shown_variants

_ROW = 0.42  # inches
_SPREAD = 0.24  # of a row, between variants


def transfer_plot(summary: pd.DataFrame) -> Figure:
    """Draw ROC AUC of each held-out family and data set, and how it grows with training engines.

    Parameters
    ----------
    summary : DataFrame
        As `cnnsvm.evaluation.transfer_summary.summarise_transfer` returns it.

    Returns
    -------
    Figure
        Above, filled marks are engines that training had not seen, with 95 % intervals, and
        hollow ones the same engines seen; families with the hardest first, then their mean, then
        data sets that no training has seen, on grey. Below, if it was measured, the curve.
    """
    variants = shown_variants(summary)
    names = family_order(summary)
    externals = external_names(summary)
    grown = (summary["fit"] == FIRST).any()
    rows = [*names, MEAN, *externals]
    upper_height = 1.3 + _ROW * len(rows)
    heights = (upper_height, 3.2) if grown else (upper_height,)
    figure, axes = new_figure(len(heights), 0.6 + sum(heights), height_ratios=heights)
    for number, variant in enumerate(variants):
        shift = _SPREAD * (number - (len(variants) - 1) / 2)
        part = summary[summary["variant"] == variant]
        _draw_families(axes[0], part, rows, len(names) + 1, shift, number)
        if grown:
            _draw_growth(axes[1], part, externals, number, f", {variant}")
    _finish_families(axes[0], rows, len(names) + 1)
    key = axes[0].get_legend_handles_labels()
    axes[0].legend(*key, loc="upper left", bbox_to_anchor=(0, -0.55 / upper_height), fontsize=8)
    if grown:
        _finish_growth(axes[1], summary)
    return figure


def family_order(summary: pd.DataFrame) -> list[str]:
    """List the families that were held out, the hardest first."""
    part = summary[(summary["fit"] == HELD_OUT) & ~summary["external"]]
    part = part[(part["judged"] == part["held_out"]) & (part["variant"] == "all")]
    return part.sort_values(["roc_auc", "judged"])["judged"].tolist()


def external_names(summary: pd.DataFrame) -> list[str]:
    """List the data sets that no detector was trained on, in their order."""
    return list(summary.loc[summary["external"], "judged"].unique())


def _draw_families(
    axes: Axes, part: pd.DataFrame, rows: list[str], n_own: int, shift: float, number: int
) -> None:
    """Draw one variant: filled marks for unseen, hollow ones for seen."""
    variant = part["variant"].iloc[0]
    look: dict[str, Any] = {"color": COLOURS[number], "linestyle": "", "markersize": 5}
    look["marker"] = MARKERS[number]
    best = part[part["fit"] == ALL_FAMILIES]
    left = part[(part["fit"] == HELD_OUT) & ~part["external"]]
    own, far = ~best["external"], best["external"]
    for table, start, stop in ((left, 0, n_own), (best[far], n_own, len(rows))):
        label = f"{variant}: engine not in training" if start == 0 else None
        _draw_marks(axes, table, rows[start:stop], start + shift, label, look)
    hollow = look | {"markerfacecolor": "none"}
    label = f"{variant}: engine in training"
    _draw_marks(axes, best[own], rows[:n_own], shift, label, hollow, intervals=False)


def _draw_marks(
    axes: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    start: float,
    label: str | None,
    look: dict[str, Any],
    intervals: bool = True,
) -> None:
    found = table.drop_duplicates("judged").set_index("judged").reindex(list(names))
    places = start + np.arange(len(names))
    axes.plot(found["roc_auc"].to_numpy(), places, label=label, **look)
    if intervals:
        ends = (found[f"roc_auc_{end}"].to_numpy() for end in ("low", "high"))
        axes.hlines(places, *ends, color=look["color"], linewidth=1.2)


def _finish_families(axes: Axes, rows: list[str], n_own: int) -> None:
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.axhspan(n_own - 0.5, len(rows) - 0.5, color=GREY, alpha=0.12, linewidth=0)
    axes.axhline(n_own - 1.5, color=GREY, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [wrap_name(name, 26) for name in rows], fontsize=8)
    axes.set(xlim=(min(0.4, axes.get_xlim()[0]), 1.01), ylim=(len(rows) - 0.5, -0.5))
    axes.set_title("ROC AUC by engine" + (" (grey: other data sets)" if rows[n_own:] else ""))


def _draw_growth(
    axes: Axes, part: pd.DataFrame, externals: list[str], number: int, ending: str
) -> None:
    """Draw the mean over the engines left out, each of them as a dot, and other data sets."""
    colour = COLOURS[number]
    grown = part[part["fit"] == FIRST]
    dots = grown[~grown["external"] & ~grown["judged"].isin([MEAN, MEAN_OF_SAME])]
    axes.plot(dots["n_families"], dots["roc_auc"], ".", color=colour, alpha=0.35, markersize=5)
    styles = {MEAN: ("-", "mean of those left out"), MEAN_OF_SAME: ("--", MEAN_OF_SAME)}
    for name, (style, meaning) in styles.items():
        table = grown[grown["judged"] == name]
        look = {"color": colour, "linestyle": style, "marker": MARKERS[number], "markersize": 5}
        axes.plot(table["n_families"], table["roc_auc"], label=meaning + ending, **look)
    curve = part[part["fit"].isin([FIRST, ALL_FAMILIES]) & part["external"]]
    for place, name in enumerate(externals):
        table = curve[curve["judged"] == name].sort_values("n_families")
        grey = {"color": "black", "linewidth": 1, "alpha": 0.75, "markersize": 5}
        marker = MARKERS[(len(MARKERS) - 1 - place) % len(MARKERS)]
        style = ("-", "--", ":")[number % 3]
        look = {"marker": marker, "linestyle": style, "label": name + ending, **grey}
        axes.plot(table["n_families"], table["roc_auc"], **look)


def _finish_growth(axes: Axes, summary: pd.DataFrame) -> None:
    sizes = sorted(summary.loc[summary["fit"].isin([FIRST, ALL_FAMILIES]), "n_families"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="families of engines in training", ylabel="ROC AUC (dotted: guessing)")
    axes.set(ylim=(min(0.4, axes.get_ylim()[0]), 1.01))
    axes.set_title("More engines in training")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2))
