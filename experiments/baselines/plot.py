"""The plot of a comparison: each design's metrics with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines.comparison import ALL, COMPARED, Comparison
from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure, wrap_name
from cnnsvm.report.wording import METRIC_LABELS

Found = Mapping[str, Comparison]  # by what the files went through, such as "jpeg:75"
Row = Mapping[Any, Any]  # of a summary


def of_all_fakes(comparison: Comparison) -> Sequence[Row]:
    """List the rows of a summary that are about all fakes, one a design."""
    summary = comparison.summary
    return summary[summary["variant"] == ALL].to_dict("records")


def comparison_plot(found: Found) -> Figure:
    """Draw ROC AUC and balanced accuracy of each design, with their intervals.

    Parameters
    ----------
    found : mapping of str to Comparison
        One colour and marker each.

    Returns
    -------
    Figure
    """
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
