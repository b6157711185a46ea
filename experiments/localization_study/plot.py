"""The plots of a localisation study."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure, wrap_name

_NO_JPEG = 101.0
#: Best published F1 at JPEG 80 of a localiser that had not seen the generator.
_BEST_ZERO_SHOT = 0.349


def matrix_plot(plain: pd.DataFrame, design: str, kinds: Sequence[str]) -> Figure:
    """Draw the IoU of one design by what it was trained on and judged on.

    Parameters
    ----------
    plain : DataFrame
        Rows of a study's summary: no JPEG, one policy.
    design : str
    kinds : sequence of str
    """
    own = plain[plain["design"] == design].set_index(["trained_on", "judged_on"])["per_image_iou"]
    trained = [kind for kind in kinds if (kind, kind) in own.index]
    values = np.array([[own.get((row, column), np.nan) for column in kinds] for row in trained])
    figure, (axes,) = new_figure(height=1.8 + 0.75 * len(trained))
    shown = axes.imshow(values.astype(float), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    columns, rows = ([wrap_name(kind, 16) for kind in names] for names in (kinds, trained))
    axes.set_xticks(range(len(columns)), columns, fontsize=8, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set(xlabel="judged on", ylabel="trained on", title=design)
    for (row, column), value in np.ndenumerate(values.astype(float)):
        text = "n/a" if np.isnan(value) else f"{value:.2f}"
        colour = "black" if value > 0.6 else "white"
        axes.text(column, row, text, ha="center", va="center", color=colour)
    figure.colorbar(shown, ax=axes, label="IoU")
    return figure


def jpeg_plot(
    rows: pd.DataFrame, designs: Sequence[str], every_pixel: float | None = None
) -> Figure:
    """Draw F1 by JPEG quality, one line a design; vertical lines are 95 % intervals.

    Parameters
    ----------
    rows : DataFrame
        Rows of a study's summary on the main pictures, under one policy.
    designs : sequence of str
    every_pixel : float or None
        F1 of calling every pixel repainted, dashed if it is known.
    """
    qualities = sorted(rows["quality"].dropna().unique(), reverse=True)
    names = ["none", *(f"{quality:.0f}" for quality in qualities)]
    figure, (axes,) = new_figure(height=3.8)
    for number, design in enumerate(designs):
        own = rows[rows["design"] == design].astype({"quality": float, "per_image_f1": float})
        part = own.assign(quality=own["quality"].fillna(_NO_JPEG)).set_index("quality")
        part = part.reindex([_NO_JPEG, *qualities])
        colour = COLOURS[number % len(COLOURS)]
        places = np.arange(len(names)) + 0.08 * (number - (len(designs) - 1) / 2)
        low, high = (part[f"per_image_f1_{end}"].to_numpy(float) for end in ("low", "high"))
        axes.vlines(places, low, high, color=colour, linewidth=1.2)
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(places, part["per_image_f1"], marker=marker, color=colour, label=design)
    axes.axhline(_BEST_ZERO_SHOT, color=GREY, linestyle=":", linewidth=1)
    if every_pixel is not None:
        axes.axhline(every_pixel, color="black", linestyle="--", linewidth=1, label="every pixel")
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="JPEG quality", ylabel="F1", ylim=(-0.02, 1.02))
    axes.set_title("F1 under JPEG (dotted: best published zero-shot at 80)", fontsize=9)
    axes.legend(fontsize=8)
    return figure
