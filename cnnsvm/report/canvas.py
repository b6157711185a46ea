"""What the plots have in common: figures without global state, fold curves, encoding.

Colours are those of Okabe and Ito, "Color universal design" (2008), safe for colour-blind
readers, and never the only difference: hatching, line style or a label says the same.
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from cnnsvm.evaluation.metrics import binary_metrics
from cnnsvm.report.wording import METRIC_LABELS, format_number, is_number

REAL, FAKE, GREY = "#0072B2", "#D55E00", "#6b7280"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DPI = 150
_STYLES: tuple[Any, ...] = ("--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_WIDTH = 4.8  # inches: 720 dots, twice a phone's width in the page's own pixels
_MAX_FOLDS_IN_LEGEND = 6


def new_figure(rows: int = 1, height: float = 4.4, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure with one column of axes, drawn by Agg whatever the session's backend is.

    Parameters
    ----------
    rows : int
        Number of axes.
    height : float
        In inches.
    **grid
        Options of ``Figure.subplots``, such as ``height_ratios``.

    Returns
    -------
    Figure, list of Axes
    """
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, 1, squeeze=False, **grid)[:, 0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def new_grid(n: int, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``n`` square panels without ticks, row by row; as `new_figure` else."""
    rows = -(-n // columns)
    figure = Figure(figsize=(_WIDTH, 0.95 + 1.8 * rows), dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[n:]:
        spare.set_axis_off()
    for panel in panels[:n]:
        panel.set(xticks=[], yticks=[], box_aspect=1)
    return figure, panels[:n]


def to_png(figure: Figure) -> bytes:
    """Encode a figure; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def show_message(axes: Axes, message: str) -> None:
    """Say in place of a plot why there is none."""
    axes.clear()
    axes.set_axis_off()
    text = textwrap.fill(message, 34)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def roc_points(y: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false alarm rate and recall over all thresholds."""
    false_alarms, recall, _ = roc_curve(y, probability)
    return false_alarms, recall


def recall_precision_points(
    y: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision over all thresholds."""
    precision, recall, _ = precision_recall_curve(y, probability, drop_intermediate=True)
    return recall, precision


def draw_fold_curves(
    axes: Axes,
    predictions: pd.DataFrame,
    metric: str,
    points: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> bool:
    """Draw one curve a fold and a thick one of all rows; False if a class is missing.

    Parameters
    ----------
    axes : Axes
    predictions : DataFrame
        With ``label``, ``probability``, ``prediction`` and ``fold``.
    metric : str
        The area that the legend gives, ``"roc_auc"`` or ``"pr_auc"``.
    points : callable
        Turns labels and probabilities into x and y.

    Returns
    -------
    bool
    """
    if predictions["label"].nunique() < 2:
        return False
    folds = list(predictions.groupby("fold")) if predictions["fold"].nunique() > 1 else []
    for i, (fold, rows) in enumerate(folds):
        if rows["label"].nunique() == 2:
            name = f"fold {fold} ({format_number(_area(rows, metric))})"
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": _STYLES[i % len(_STYLES)]}
            label = name if len(folds) <= _MAX_FOLDS_IN_LEGEND else None
            axes.plot(*points(*_judged(rows)), linewidth=1.1, label=label, **style)
    name = f"all folds ({METRIC_LABELS[metric]} {format_number(_area(predictions, metric))})"
    axes.plot(*points(*_judged(predictions)), color="black", linewidth=2, label=name)
    return True


def show_unit_square(axes: Axes) -> None:
    """Show 0 to 1 both ways, equally long."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


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


def _judged(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return rows["label"].to_numpy(), rows["probability"].to_numpy()


def _area(rows: pd.DataFrame, metric: str) -> float:
    return binary_metrics(*_judged(rows), rows["prediction"].to_numpy())[metric]
