"""The plot of the report on unseen engines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure, wrap_name
from robustness_study.report import shown_variants
from transfer_study.study import ALL_FAMILIES, FIRST, HELD_OUT
from transfer_study.summary import ALL, MEAN, MEAN_OF_SAME

_ROW = 0.42  # inches
_SPREAD = 0.24  # of a row, between variants


def transfer_plot(summary: pd.DataFrame) -> Figure:
    """Draw ROC AUC of each held-out family and data set, and how it grows with training engines.

    Above, filled marks are engines that training had not seen, with 95 % intervals, and hollow
    ones the same engines seen; families with the hardest first, then their mean, then data sets
    that were never trained on, on grey. Below, if it was measured, the curve; small dots are
    single families. Variants are apart, with no mark for all of them together.
    """
    variants = [name for name in shown_variants(summary) if name != ALL] or [ALL]
    names, externals = family_order(summary), external_names(summary)
    grown = bool((summary["fit"] == FIRST).any())
    rows = [*names, MEAN, *externals]
    heights = (0.9 + _ROW * len(rows), 3.0) if grown else (0.9 + _ROW * len(rows),)
    key = _key(variants, externals, grown)
    height = 0.4 + sum(heights) + 0.11 * len(key)
    figure, axes = new_figure(len(heights), height, height_ratios=heights)
    for number, variant in enumerate(variants):
        shift = _SPREAD * (number - (len(variants) - 1) / 2)
        part = summary[summary["variant"] == variant]
        _draw_families(axes[0], part, rows, len(names) + 1, shift, number)
        if grown:
            _draw_growth(axes[1], part, externals, number)
    _finish_families(axes[0], rows, len(names) + 1)
    if grown:
        _finish_growth(axes[1], summary)
    figure.legend(handles=key, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def family_order(summary: pd.DataFrame) -> list[str]:
    """List the families that were held out, the hardest first."""
    part = summary[(summary["fit"] == HELD_OUT) & ~summary["external"]]
    part = part[(part["judged"] == part["held_out"]) & (part["variant"] == "all")]
    return part.sort_values(["roc_auc", "judged"])["judged"].tolist()


def external_names(summary: pd.DataFrame) -> list[str]:
    """List the data sets that no detector was trained on, in their order."""
    return list(summary.loc[summary["external"], "judged"].unique())


def _key(variants: list[str], externals: list[str], grown: bool) -> list[Line2D]:
    """Say what colours, fillings, lines and marks mean."""
    looks: dict[str, dict[str, Any]] = {
        name: {"color": COLOURS[i], "marker": MARKERS[i], "linestyle": ""}
        for i, name in enumerate(variants)
    }
    looks["engine not in training"] = {"color": GREY, "marker": "o", "linestyle": ""}
    looks["the same engine in training"] = looks["engine not in training"] | {
        "markerfacecolor": "none"
    }
    if grown:
        looks["mean of those left out"] = {"color": GREY, "linestyle": "-"}
        looks["the same engines throughout"] = {"color": GREY, "linestyle": "--"}
        looks |= {name: {"color": GREY} | _external_look(i) for i, name in enumerate(externals)}
    return [Line2D([], [], label=name, markersize=5, **look) for name, look in looks.items()]


def _external_look(number: int) -> dict[str, Any]:
    return {"linestyle": ":", "marker": MARKERS[::-1][number % len(MARKERS)]}


def _draw_families(
    axes: Axes, part: pd.DataFrame, rows: list[str], n_own: int, shift: float, number: int
) -> None:
    """Draw one variant: filled marks for unseen, hollow ones for seen."""
    look: dict[str, Any] = {"color": COLOURS[number], "linestyle": "", "markersize": 5}
    look["marker"] = MARKERS[number]
    best = part[part["fit"] == ALL_FAMILIES]
    left = part[(part["fit"] == HELD_OUT) & ~part["external"]]
    far = best[best["external"]]
    hollow = look | {"markerfacecolor": "none"}
    _draw_marks(axes, best[~best["external"]], rows[:n_own], shift, hollow, intervals=False)
    _draw_marks(axes, left, rows[:n_own], shift, look)
    _draw_marks(axes, far, rows[n_own:], n_own + shift, look)


def _draw_marks(
    axes: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    start: float,
    look: dict[str, Any],
    intervals: bool = True,
) -> None:
    found = table.drop_duplicates("judged").set_index("judged").reindex(list(names))
    places = start + np.arange(len(names))
    axes.plot(found["roc_auc"].to_numpy(), places, **look)
    if intervals:
        low, high = (found[f"roc_auc_{end}"].to_numpy() for end in ("low", "high"))
        axes.hlines(places, low, high, color=look["color"], linewidth=1.2)


def _finish_families(axes: Axes, rows: list[str], n_own: int) -> None:
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.axhspan(n_own - 0.5, len(rows) - 0.5, color=GREY, alpha=0.12, linewidth=0)
    axes.axhline(n_own - 1.5, color=GREY, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [wrap_name(name, 26) for name in rows], fontsize=8)
    axes.set(xlim=(min(0.4, axes.get_xlim()[0]), 1.01), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel("ROC AUC (dotted: guessing)")
    axes.set_title("Unseen engines" + (" (grey: data sets)" if rows[n_own:] else ""))


def _draw_growth(axes: Axes, part: pd.DataFrame, externals: list[str], number: int) -> None:
    """Draw the mean over the engines left out, each of them as a dot, and other data sets."""
    look: dict[str, Any] = {"color": COLOURS[number], "markersize": 5}
    grown = part[part["fit"] == FIRST]
    dots = grown[~grown["external"] & ~grown["judged"].isin([MEAN, MEAN_OF_SAME])]
    axes.plot(dots["n_families"], dots["roc_auc"], ".", alpha=0.35, **look)
    lines: list[tuple[pd.DataFrame, dict[str, Any]]] = [
        (grown[grown["judged"] == name], {"marker": MARKERS[number], "linestyle": style})
        for name, style in ((MEAN, "-"), (MEAN_OF_SAME, "--"))
    ]
    curve = part[part["fit"].isin([FIRST, ALL_FAMILIES]) & part["external"]]
    lines += [
        (curve[curve["judged"] == name].sort_values("n_families"), _external_look(i))
        for i, name in enumerate(externals)
    ]
    for table, own in lines:
        axes.plot(table["n_families"], table["roc_auc"], **look, **own)


def _finish_growth(axes: Axes, summary: pd.DataFrame) -> None:
    drawn = (summary["fit"] == FIRST) | (summary["external"] & (summary["fit"] == ALL_FAMILIES))
    sizes = sorted(summary.loc[drawn, "n_families"].unique())
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.set(xlabel="families of engines in training", ylabel="ROC AUC (dotted: guessing)")
    axes.set(ylim=(min(0.4, axes.get_ylim()[0]), 1.01))
    axes.set_title("More engines in training")
