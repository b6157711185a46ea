"""The plots of a report: each function returns a figure of its own; pyplot is not involved.

``predictions`` are rows with ``label`` and ``prediction`` (0 real, 1 fake), ``probability`` of
fake and ``fold``.

Colours are those of Okabe and Ito, "Color universal design" (2008), safe for colour-blind
readers, and never the only difference: hatching, line style or a label says the same.
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from cnnsvm.evaluation.metrics import expected_calibration_error, reliability_bins
from cnnsvm.report.wording import METRIC_LABELS, format_number, is_number

REAL, FAKE, GREY = "#0072B2", "#D55E00", "#6b7280"
ON_COLOUR = "#fdfdfd"  # white, which the page keeps in dark mode too
CLASSES = ((0, "real", REAL, "////"), (1, "fake", FAKE, ""))
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLES: tuple[Any, ...] = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_WIDTH = 4.8  # inches: 720 dots, twice a phone's width in the page's own pixels
_DPI = 150
_MAX_FOLDS_IN_LEGEND = 6
_LEGEND_LINE = 76  # letters of a legend beside each other
_Curve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, float]]  # x, y, area


def new_figure(rows: int = 1, height: float = 4.4, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure of axes below each other, drawn by Agg whatever the session's backend is.

    ``height`` is in inches, ``grid`` are options of ``Figure.subplots``, such as
    ``height_ratios`` or ``ncols``; the axes come row by row.
    """
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, squeeze=False, **grid).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_shares(axes: Axes, values: np.ndarray, label: np.ndarray, edges: np.ndarray) -> None:
    """Draw histograms of both classes as shares of them, so that the rarer one shows too."""
    for value, name, colour, hatch in CLASSES:
        own = values[label == value]
        if len(own):
            heights = np.histogram(own, edges)[0] / len(own)
            look: dict[str, Any] = {"ec": colour, "hatch": hatch, "lw": 1, "fill": True}
            axes.stairs(heights, edges, label=name, fc=(*to_rgb(colour), 0.35), **look)


def show_message(axes: Axes, message: str) -> None:
    """Say in place of a plot why there is none."""
    axes.clear()
    axes.set_axis_off()
    text = textwrap.fill(message, 34)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def floats(entries: Iterable[Mapping[str, Any]], key: str) -> np.ndarray:
    """Collect one number an entry; nan where it is missing or undefined."""
    values = [entry.get(key) for entry in entries]
    return np.array([value if is_number(value) else np.nan for value in values], dtype=float)


def wrap_name(name: str, width: int = 20) -> str:
    """Break a long name over lines, after punctuation where there is some (hub ids)."""
    lines = [""]
    for piece in re.split(r"(?<=[-/:_ ])", name):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width))


def confusion_matrix_plot(predictions: pd.DataFrame) -> Figure:
    """Show how many reals and fakes were called what, and the shares of each row."""
    figure, (axes,) = new_figure()
    cells = np.zeros((2, 2), dtype=int)
    np.add.at(cells, (predictions["label"].to_numpy(), predictions["prediction"].to_numpy()), 1)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    for (row, column), value in np.ndenumerate(share):  # no image: it would not follow dark mode
        cell = Rectangle((column - 0.5, row - 0.5), 1, 1, fc=REAL, alpha=0.08 + 0.92 * float(value))
        axes.add_patch(cell)
    names = (("real, called real", "false alarm"), ("miss", "fake, found"))
    for row, column in np.ndindex(2, 2):
        text = f"{cells[row, column]}\n{share[row, column]:.0%}\n{names[row][column]}"
        colour = ON_COLOUR if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
    axes.set_xticks([0, 1], ["real", "fake"])
    axes.set_yticks([0, 1], ["real", "fake"], rotation=90, va="center")
    axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), aspect="equal")
    axes.set(xlabel="called", ylabel="is", title="Decisions")
    axes.tick_params(length=0)
    return figure


def roc_plot(predictions: pd.DataFrame) -> Figure:
    """Draw the ROC curve of all outer test rows together and of each fold.

    Unless both classes occur, a message says so.
    """
    figure, (axes,) = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="guessing (0.500)")
    axes.set(xlabel="reals called fake (false alarms)", ylabel="fakes found (recall)")
    axes.set_title("ROC curve")
    _draw_fold_curves(axes, predictions, _roc)
    return figure


def precision_recall_plot(predictions: pd.DataFrame) -> Figure:
    """Draw the precision-recall curve, as `roc_plot` does its own."""
    figure, (axes,) = new_figure()
    share = float(predictions["label"].mean()) if len(predictions) else 0.0
    axes.axhline(share, color=GREY, linewidth=1, label=f"guessing ({share:.3f})")
    axes.set(xlabel="fakes found (recall)", ylabel="right when it says fake (precision)")
    axes.set_title("Precision-recall curve")
    _draw_fold_curves(axes, predictions, _precision_recall)
    return figure


def reliability_plot(predictions: pd.DataFrame, n_bins: int = 10) -> Figure:
    """Set stated probabilities against observed shares, above their histogram.

    A point's area grows with the number of images in its bin, see
    `cnnsvm.evaluation.metrics.reliability_bins`.
    """
    figure, (upper, lower) = new_figure(rows=2, height_ratios=(2.4, 1), sharex=True)
    label, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
    mean, share, count = reliability_bins(label, probability, n_bins)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="calibrated")
    upper.plot(mean, share, color=FAKE, linewidth=1)
    area = 15 + 120 * count / max(count.max(), 1)
    upper.scatter(mean, share, s=area, color=FAKE, zorder=3, label="bins (area: images)")
    error = expected_calibration_error(label, probability, n_bins)
    upper.set(ylabel="share that is fake", ylim=(-0.06, 1.06), xlim=(-0.02, 1.02))
    upper.set_title(f"Reliability (ECE {format_number(error)})")
    upper.legend(loc="upper left", fontsize=8)
    draw_shares(lower, probability, label, np.linspace(0, 1, 2 * n_bins + 1))
    lower.set(xlabel="stated probability of fake", ylabel="share of class")
    lower.legend(fontsize=8, loc="upper center")
    return figure


def group_plot(groups: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Draw recall and ROC AUC of each kind of fake, with their intervals.

    ``groups`` are as `cnnsvm.evaluation.bootstrap.metrics_by` returns them.
    """
    figure, (axes,) = new_figure(height=1.5 + 0.62 * len(groups))
    names = [f"{wrap_name(name)}\n({entry['n_fakes']} fakes)" for name, entry in groups.items()]
    rows = np.arange(len(groups))
    metrics = [entry["metrics"] for entry in groups.values()]
    _draw_bars(axes, rows - 0.2, metrics, "roc_auc", REAL)
    _draw_bars(axes, rows + 0.2, metrics, "recall", FAKE, "///")
    axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1)
    axes.set_yticks(rows, names, fontsize=8)
    axes.set(xlim=(0, 1.01), title=title, xlabel="dotted: ROC AUC of guessing")
    axes.invert_yaxis()
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8
    )
    return figure


def training_plot(curves: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, accuracy and validation ROC AUC over the epochs of fine-tuning.

    Dotted is training, solid validation; a star marks the epoch used. A curve is a fold: ``fold``
    or another ``name``, ``best_epoch`` and ``history``, dicts of ``epoch``, ``train_loss``,
    ``valid_loss``, ``train_accuracy``, ``valid_accuracy`` and ``valid_auc``; what is missing is not
    drawn.
    """
    told = any("valid_accuracy" in entry for curve in curves for entry in curve["history"])
    height = 7.6 if told else 5.6
    figure, (losses, *middle, aucs) = new_figure(rows=3 if told else 2, height=height, sharex=True)
    for i, curve in enumerate(curves):
        marker = MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]  # no pair comes back soon
        style = {"color": COLOURS[i % len(COLOURS)], "marker": marker}
        _draw_history(losses, curve, "train_loss", {**style, "linestyle": ":"})
        _draw_history(losses, curve, "valid_loss", {**style, "label": _name(curve)})
        for shares in middle:
            _draw_history(shares, curve, "train_accuracy", {**style, "linestyle": ":"})
            _draw_history(shares, curve, "valid_accuracy", style)
            shares.set(ylabel="accuracy")
        _draw_history(aucs, curve, "valid_auc", style)
    losses.set(ylabel="loss", title="Fine-tuning")
    aucs.set(ylabel="validation ROC AUC", xlabel="epoch")
    aucs.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    key = [Line2D([], [], color="black", linestyle=style) for style in (":", "-")]
    key += [Line2D([], [], color="black", marker="*", linestyle="", markersize=9)]
    losses.legend(key, ["training", "validation", "epoch used"], fontsize=8)
    folds = losses.get_legend_handles_labels()
    longest = max(len(name) + 8 for name in ["", *folds[1]])  # 8: line and gap
    columns = min(4, _LEGEND_LINE // longest)
    figure.legend(*folds, loc="outside lower center", ncols=max(1, columns), fontsize=8)
    return figure


def _draw_fold_curves(axes: Axes, predictions: pd.DataFrame, curve: _Curve) -> None:
    """Draw one curve a fold and a thick one of all rows, with their areas in the legend."""
    if predictions["label"].nunique() < 2:
        show_message(axes, "This curve needs both real and fake images.")
        return
    folds = list(predictions.groupby("fold")) if predictions["fold"].nunique() > 1 else []
    for i, (fold, rows) in enumerate(folds):
        if rows["label"].nunique() == 2:
            x, y, area = curve(rows["label"].to_numpy(), rows["probability"].to_numpy())
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": _STYLES[i % len(_STYLES)]}
            label = f"fold {fold} ({area:.3f})" if len(folds) <= _MAX_FOLDS_IN_LEGEND else None
            axes.plot(x, y, linewidth=1.1, label=label, **style)
    x, y, area = curve(predictions["label"].to_numpy(), predictions["probability"].to_numpy())
    axes.plot(x, y, color="black", linewidth=2, label=f"all folds (area {area:.3f})")
    axes.legend(fontsize=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def _roc(y: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    false_alarms, recall, _ = roc_curve(y, probability)
    return false_alarms, recall, float(auc(false_alarms, recall))


def _precision_recall(
    y: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    precision, recall, _ = precision_recall_curve(y, probability, drop_intermediate=True)
    return recall, precision, float(average_precision_score(y, probability))


def _draw_bars(
    axes: Axes,
    rows: np.ndarray,
    metrics: Sequence[Mapping[str, Any]],
    name: str,
    colour: str,
    hatch: str = "",
) -> None:
    """Draw one bar an entry with its interval as a capped line."""
    entries = [entry.get(name) or {} for entry in metrics]
    value, low, high = (floats(entries, key) for key in ("value", "low", "high"))
    look: dict[str, Any] = {"fc": (*to_rgb(colour), 0.45), "ec": colour, "hatch": hatch}
    axes.barh(rows, value, 0.36, label=METRIC_LABELS[name], **look)
    axes.hlines(rows, low, high, color="black", linewidth=1.4)
    axes.plot(np.r_[low, high], np.r_[rows, rows], "k|", markersize=7)


def _name(curve: Mapping[str, Any]) -> str:
    return curve["name"] if "name" in curve else f"fold {curve['fold']}"


def _draw_history(axes: Axes, curve: Mapping[str, Any], key: str, look: Mapping[str, Any]) -> None:
    """Draw one line over the epochs; validation's lines (not dotted) star the epoch used."""
    epochs, values = (floats(curve["history"], name) for name in ("epoch", key))
    axes.plot(epochs, values, markersize=3, linewidth=1.3, **look)
    used = epochs == curve.get("best_epoch")
    if "linestyle" not in look:
        axes.plot(epochs[used], values[used], "*", color=look["color"], markersize=12, mec="black")
