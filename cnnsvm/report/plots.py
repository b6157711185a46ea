"""The plots of a report. Each function returns a Figure of its own; pyplot is not involved."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cnnsvm.evaluation.metrics import expected_calibration_error, reliability_bins
from cnnsvm.report.canvas import (
    COLOURS,
    FAKE,
    GREY,
    MARKERS,
    REAL,
    draw_fold_curves,
    floats,
    new_figure,
    recall_precision_points,
    roc_points,
    show_message,
    show_unit_square,
    wrap_name,
)
from cnnsvm.report.wording import METRIC_LABELS, format_number

LINE = 76  # letters of a legend beside each other


def confusion_matrix_plot(predictions: pd.DataFrame) -> Figure:
    """Show how many reals and fakes were called what.

    Parameters
    ----------
    predictions : DataFrame
        With ``label`` and ``prediction`` (0 or 1).

    Returns
    -------
    Figure
        Rows are the truth; a cell's shade and percentage are its share of the row.
    """
    figure, (axes,) = new_figure()
    cells = np.zeros((2, 2), dtype=int)
    np.add.at(cells, (predictions["label"].to_numpy(), predictions["prediction"].to_numpy()), 1)
    share = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = (("real, called real", "false alarm"), ("miss", "fake, found"))
    for row, column in np.ndindex(2, 2):
        text = f"{cells[row, column]}\n{share[row, column]:.0%}\n{names[row][column]}"
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
    axes.set_xticks([0, 1], ["real", "fake"])
    axes.set_yticks([0, 1], ["real", "fake"], rotation=90, va="center")
    axes.set(xlabel="called", ylabel="is", title="Decisions")
    axes.tick_params(length=0)
    return figure


def roc_plot(predictions: pd.DataFrame) -> Figure:
    """Draw the ROC curve of all outer test rows together and of each fold.

    Parameters
    ----------
    predictions : DataFrame
        With ``label``, ``probability``, ``prediction`` and ``fold``.

    Returns
    -------
    Figure
        With a message instead of curves unless both classes occur.
    """
    figure, (axes,) = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="guessing (0.500)")
    if not draw_fold_curves(axes, predictions, "roc_auc", roc_points):
        show_message(axes, "A ROC curve needs both real and fake images.")
        return figure
    axes.set(xlabel="reals called fake (false alarms)", ylabel="fakes found (recall)")
    axes.set_title("ROC curve")
    axes.legend(loc="lower right", fontsize=8)
    show_unit_square(axes)
    return figure


def precision_recall_plot(predictions: pd.DataFrame) -> Figure:
    """Draw the precision-recall curve of all outer test rows together and of each fold.

    Parameters
    ----------
    predictions : DataFrame
        With ``label``, ``probability``, ``prediction`` and ``fold``.

    Returns
    -------
    Figure
        With a message instead of curves unless both classes occur.
    """
    figure, (axes,) = new_figure()
    share = float(predictions["label"].mean()) if len(predictions) else 0.0
    axes.axhline(share, color=GREY, linewidth=1, label=f"guessing ({share:.3f})")
    if not draw_fold_curves(axes, predictions, "pr_auc", recall_precision_points):
        show_message(axes, "A precision-recall curve needs both real and fake images.")
        return figure
    axes.set(xlabel="fakes found (recall)", ylabel="right when it says fake (precision)")
    axes.set_title("Precision-recall curve")
    axes.legend(loc="lower left", fontsize=8)
    show_unit_square(axes)
    return figure


def reliability_plot(predictions: pd.DataFrame, n_bins: int = 10) -> Figure:
    """Set stated probabilities against observed shares, above their histogram.

    Parameters
    ----------
    predictions : DataFrame
        With ``label`` and ``probability``.
    n_bins : int
        Number of bins of equal width, as in
        :func:`~cnnsvm.evaluation.metrics.expected_calibration_error`.

    Returns
    -------
    Figure
        A point's area grows with the number of images in its bin.
    """
    figure, (upper, lower) = new_figure(rows=2, height_ratios=(2.4, 1), sharex=True)
    label, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
    mean, share, count = reliability_bins(label, probability, n_bins)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="honest probabilities")
    upper.plot(mean, share, color=FAKE, linewidth=1)
    area = 15 + 120 * count / max(count.max(), 1)
    upper.scatter(mean, share, s=area, color=FAKE, zorder=3, label="bins (area: images)")
    error = expected_calibration_error(label, probability, n_bins)
    upper.set(ylabel="share that is fake", ylim=(-0.06, 1.06), xlim=(-0.02, 1.02))
    upper.set_title(f"Reliability (ECE {format_number(error)})")
    upper.legend(loc="upper left", fontsize=8)
    _draw_histograms(lower, probability, label, 2 * n_bins)
    return figure


def group_plot(groups: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Draw recall and ROC AUC of each kind of fake, with their intervals.

    Parameters
    ----------
    groups : mapping of str to mapping
        As :func:`~cnnsvm.evaluation.bootstrap.metrics_by` returns it.
    title : str

    Returns
    -------
    Figure
        As high as the number of groups asks for.
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

    Parameters
    ----------
    curves : sequence of mapping
        One a fold: ``fold`` or another ``name``, ``best_epoch`` and ``history``, a list of
        mappings with ``epoch``, ``train_loss``, ``valid_loss``, ``train_accuracy``,
        ``valid_accuracy`` and ``valid_auc``; what is missing is not drawn.

    Returns
    -------
    Figure
        Dotted is training, solid validation; a star marks the epoch that was kept.
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
    losses.legend(key, ["training", "validation", "epoch kept"], fontsize=8)
    folds = losses.get_legend_handles_labels()
    columns = min(4, LINE // max(len(name) + 8 for name in ["", *folds[1]]))  # 8: line and gap
    figure.legend(*folds, loc="outside lower center", ncols=max(1, columns), fontsize=8)
    return figure


def _draw_histograms(axes: Axes, probability: np.ndarray, label: np.ndarray, n_bins: int) -> None:
    """Draw the probabilities of each class as shares of it, so that the rarer one shows too."""
    for value, name, colour, hatch in ((1, "fake", FAKE, ""), (0, "real", REAL, "////")):
        heights, edges = np.histogram(probability[label == value], n_bins, range=(0, 1))
        heights = heights / max(heights.sum(), 1)
        fill = (*to_rgb(colour), 0.35)
        axes.stairs(heights, edges, fill=True, label=name, fc=fill, ec=colour, hatch=hatch)
    axes.set(xlabel="stated probability of fake", ylabel="share of class")
    axes.legend(fontsize=8, loc="upper center")


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
    fill = (*to_rgb(colour), 0.45)
    label = METRIC_LABELS[name]
    axes.barh(rows, value, 0.36, label=label, facecolor=fill, edgecolor=colour, hatch=hatch)
    axes.hlines(rows, low, high, color="black", linewidth=1.4)
    axes.plot(np.r_[low, high], np.r_[rows, rows], "k|", markersize=7)


def _name(curve: Mapping[str, Any]) -> str:
    return curve["name"] if "name" in curve else f"fold {curve['fold']}"


def _draw_history(axes: Axes, curve: Mapping[str, Any], key: str, look: Mapping[str, Any]) -> None:
    """Draw one line over the epochs; validation's lines (not dotted) star the epoch kept."""
    epochs, values = (floats(curve["history"], name) for name in ("epoch", key))
    axes.plot(epochs, values, markersize=3, linewidth=1.3, **look)
    kept = epochs == curve.get("best_epoch")
    if "linestyle" not in look:
        axes.plot(epochs[kept], values[kept], "*", color=look["color"], markersize=12, mec="black")
