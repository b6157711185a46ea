"""The plots of the exploratory report. Each function returns a Figure of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from cnnsvm.report.plots import (
    CLASSES,
    FAKE,
    GREY,
    draw_shares,
    new_figure,
    show_message,
    wrap_name,
)

#: Column -> what its axis says, and whether it is drawn on a logarithmic scale.
AXES = {
    "aspect": ("width / height", True),
    "megapixels": ("megapixels", True),
    "bits_a_pixel": ("bits a pixel of the file", True),
    "quality": ("estimated JPEG quality", False),
    "brightness": ("brightness (mean luma, 0-255)", False),
    "contrast": ("contrast (standard deviation of luma)", False),
    "colourfulness": ("colourfulness (Hasler and Süsstrunk)", False),
    "detail": ("detail (mean step between neighbours)", False),
}
MOST_SCHEMAS = 12
_LOG_FROM = 4  # largest by smallest value: below, a logarithmic axis has hardly a tick
_MOST_DOTS = 200


def balance_plot(balance: pd.DataFrame) -> Figure:
    """Draw how many images of each class there are; ``balance`` has them by split."""
    figure, (axes,) = new_figure(height=1.4 + 0.7 * len(balance))
    rows = np.arange(len(balance))
    for label, name, colour, hatch in CLASSES:
        fill = (*to_rgb(colour), 0.45)
        place = rows + 0.4 * label - 0.2
        bars = axes.barh(place, balance[name], 0.38, label=name, fc=fill, ec=colour, hatch=hatch)
        axes.bar_label(bars, [f"{n:,}" for n in balance[name]], padding=3, fontsize=9)
    axes.set_yticks(rows, [wrap_name(str(name)) for name in balance.index])
    axes.set(xlabel="images", xlim=(0, 1.18 * max(balance[["real", "fake"]].max().max(), 1)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.invert_yaxis()
    _name(axes, "Classes")
    return figure


def sizes_plot(files: pd.DataFrame) -> Figure:
    """Draw width against height of ``files`` on logarithmic scales, a mark a size.

    A mark's area grows with the share of the class that has its size; the dotted lines are
    squares and whole powers of ten of megapixels.
    """
    figure, (axes,) = new_figure(height=4.8)
    low, high = _limits(files[["width", "height"]].to_numpy())
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    _draw_guides(axes, low, high)
    for label, name, colour, _ in CLASSES:
        sizes = files.loc[files["label"] == label, ["width", "height"]].value_counts()
        if sizes.empty:
            continue
        area = 10 + 300 * sizes.to_numpy() / sizes.sum()
        width, height = (sizes.index.get_level_values(i) for i in (0, 1))
        fill = ("none", (*to_rgb(FAKE), 0.45))[label]
        look: dict[str, Any] = {"edgecolors": colour, "facecolors": fill}
        axes.scatter(width, height, area, marker="oD"[label], zorder=3, **look)
        axes.scatter([], [], 40, marker="oD"[label], label=name, **look)  # one size in the legend
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="width (pixels)", ylabel="height (pixels)")
    _name(axes, "Sizes")
    return figure


def histograms_plot(table: pd.DataFrame, columns: Sequence[str], title: str) -> Figure:
    """Draw how each class is distributed over some of the columns that ``AXES`` names.

    Heights are shares of the class, so that the rarer one shows too.
    """
    figure, axes = new_figure(rows=len(columns), height=0.9 + 1.75 * len(columns))
    for ax, column in zip(axes, columns, strict=True):
        _draw_histograms(ax, table[["label", column]].dropna(), column)
    _name(axes[0], title)
    return figure


def coverage_plot(masks: pd.DataFrame) -> Figure:
    """Draw the share of white of the masks: a dot a mask, at most 200 a schema, and quartiles.

    ``masks`` have ``mask_schema`` and ``coverage``; the ``MOST_SCHEMAS`` largest are drawn.
    """
    names = list(masks["mask_schema"].value_counts().index[:MOST_SCHEMAS])
    figure, (axes,) = new_figure(height=1.4 + 0.6 * len(names))
    rng = np.random.default_rng(0)  # of the jitter, so that a page is the same bytes twice
    for row, name in enumerate(names):
        values = masks.loc[masks["mask_schema"] == name, "coverage"].to_numpy()
        shown = rng.permutation(values)[:_MOST_DOTS]
        heights = row + rng.uniform(-0.28, 0.28, len(shown))
        axes.scatter(shown, heights, s=9, color=FAKE, alpha=0.45, lw=0)
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        axes.barh(row, high - low, 0.5, left=low, fc="none", ec="black", lw=1.2)
        axes.vlines(middle, row - 0.32, row + 0.32, color="black", lw=2)
    axes.axvspan(0.4, 0.6, color=GREY, alpha=0.15, lw=0)
    labels = [f"{wrap_name(n)}\n({(masks['mask_schema'] == n).sum()} masks)" for n in names]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.6), xlabel="share of white pixels")
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set_title("Coverage (grey: 40-60 %)", loc="left", fontsize=11)
    return figure


def mean_masks_plot(means: Mapping[str, np.ndarray], counts: Mapping[str, int]) -> Figure:
    """Draw where the masks of each schema lie, of the ``MOST_SCHEMAS`` largest.

    ``means`` are shares of masks that cover a place, float (h, w), ``counts`` numbers of masks.
    """
    names = sorted(means, key=lambda name: (-counts[name], name))[:MOST_SCHEMAS]
    if not names:
        figure, (axes,) = new_figure(height=1.5)
        show_message(axes, "No mask could be read.")
        return figure
    rows = -(-len(names) // 3)
    figure, panels = new_figure(rows, 0.95 + 1.8 * rows, ncols=3)
    for spare in panels[len(names) :]:
        spare.set_axis_off()
    for panel, name in zip(panels, names, strict=False):
        panel.set(xticks=[], yticks=[], box_aspect=1)
        panel.spines[:].set_visible(True)
        shades = panel.imshow(
            means[name], cmap="viridis", vmin=0, vmax=1, extent=(0, 1, 1, 0), aspect="auto"
        )
        panel.set_title(f"{wrap_name(name, 18)} ({counts[name]})", fontsize=8)
    bar = figure.colorbar(
        shades, ax=figure.axes, location="bottom", aspect=30, shrink=0.8, pad=0.02
    )
    bar.set_label("share of masks that repaint here", fontsize=9)
    bar.ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


def _name(axes: Axes, title: str) -> None:
    """Write the title, and beside it what the colours mean."""
    axes.set_title(title, loc="left", fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {
            "loc": "lower right",
            "bbox_to_anchor": (1.02, 0.98),
            "borderaxespad": 0.2,
        }
        axes.legend(ncols=2, fontsize=9, frameon=False, **place)


def _limits(sides: np.ndarray) -> tuple[float, float]:
    """Leave room around the sizes, and show a factor of eight at least."""
    low, high = max(float(sides.min()), 1.0), max(float(sides.max()), 1.0)
    middle, span = np.sqrt(low * high), max(np.sqrt(high / low) * 1.35, np.sqrt(8))
    return middle / span, middle * span


def _draw_guides(axes: Axes, low: float, high: float) -> None:
    line: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1}
    axes.plot([low, high], [low, high], **line)
    for megapixels in (0.01, 0.1, 1, 10, 100):
        width = np.geomspace(low, high, 3)
        height = megapixels * 1e6 / width
        axes.plot(width, height, **line)
        right = min(0.97 * high, megapixels * 1e6 / (1.04 * low))
        bottom = megapixels * 1e6 / right
        if right > 2 * bottom:  # else it would stand on the diagonal, or outside
            name = f"{megapixels:g} MP"
            axes.text(right, bottom, name, fontsize=8, color=GREY, ha="right", va="bottom")


def _draw_histograms(axes: Axes, table: pd.DataFrame, column: str) -> None:
    label, log = AXES[column]
    if table.empty:
        show_message(axes, f"No values of: {label}.")
        return
    span = table[column].max() / max(table[column].min(), 1e-9)
    log = log and span >= _LOG_FROM
    n_bins = int(np.clip(2 * np.sqrt(table["label"].value_counts().min()), 12, 40))
    edges = _edges(table[column].to_numpy(dtype=float), log, n_bins)
    draw_shares(axes, table[column].to_numpy(dtype=float), table["label"].to_numpy(), edges)
    axes.set(xlabel=label, ylabel="share of class", xlim=(edges[0], edges[-1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], integer=column == "quality"))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 1000 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        axes.xaxis.set_minor_locator(NullLocator())


def _edges(values: np.ndarray, log: bool, n_bins: int) -> np.ndarray:
    """Return bin edges with some width even where all values are one."""
    low, high = float(values.min()), float(values.max())
    if log:
        return np.geomspace(low / 1.03, high * 1.03, n_bins + 1)
    spare = max(0.02 * (high - low), 0.1 * abs(high) if high == low else 0.0, 1e-9)
    return np.linspace(low - spare, high + spare, n_bins + 1)
