"""The report on a localisation study."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnnsvm.data.images import load_image
from cnnsvm.evaluation.localization_records import load_truth
from cnnsvm.io.tables import to_csv
from cnnsvm.report.model import Card, Exhibit, Gallery, Plot, Plots, Report, Section, Thumbnail
from cnnsvm.report.overlay import blend
from cnnsvm.report.plots import COLOURS, GREY, MARKERS, new_figure, wrap_name
from cnnsvm.report.render import encode_jpeg, to_json
from cnnsvm.report.wording import format_interval, format_number, interval_of, is_number
from localization_study.controls import EVERY_PIXEL
from localization_study.study import Study
from localization_study.tables import Costs, study_tables

logger = logging.getLogger(__name__)

PROTOCOL = (
    "No source is on both sides of the split, with all that was made from it; each localiser chose "
    "its epoch on sources of its training part, and its threshold is frozen.",
    "The 95 % intervals come from resampling whole sources: they do not cover retraining, other "
    "seeds or other generators.",
    "Every training also had the untouched originals.",
)
MEANINGS = {
    "IoU": "intersection of what is called and what is repainted over their union, mean over the "
    "images; that of calling everything is the repainted share",
    "pooled IoU": "the same over the pixels of all images",
    "F1": "harmonic mean of precision and recall of the pixels, mean over the images",
    "pooled AUC": "chance that a repainted pixel scores above an untouched one; 0.5 is guessing",
    "best IoU": "with each image's best threshold, chosen with the mask in hand: a bound",
    "false alarms": "share of the pixels of untouched images that is called repainted",
}
READINGS = (
    "A spliced image is repainted inside its mask. A regenerated one went through the engine "
    "whole, so it is read in two ways that are kept apart: (mask) against the mask that the "
    "engine was given, as the earlier study scored its inpainted images, although all its pixels "
    "are the engine's; (whole) as repainted everywhere, where calling every pixel is right and a "
    "localiser that marks differences within an image has nothing to find."
)
SIDE = 200  # pixels, at most
ROLES = ("image", "mask", "map", "overlay")
NOTE = (
    "Held-out images of the kind that the localiser was trained on, evenly spread over the list, "
    "not chosen. Mask: white is repainted. Map: white is sure. Overlay: yellow where the map is "
    "high, a white contour around what is called repainted."
)
_NO_JPEG = 101.0
#: Best published F1 at JPEG 80 of a localiser that had not seen the generator.
_BEST_ZERO_SHOT = 0.349


def localization_report(study: Study, costs: Costs, facts: Mapping[str, Any]) -> Report:
    """Make the report, with ``localization.json``, ``.csv`` and ``localization-images.csv``.

    Parameters
    ----------
    study : Study
    costs : mapping of str to mapping
        By design, see `localization_study.cost.measure_cost`.
    facts : mapping
        ``tables``, ``kinds``, ``main``, ``policy``, ``designs``, ``sizes`` and ``has_greys`` of
        the plan, and those of a `Report`.
    """
    results: dict[str, Any] = {"fits": study.fits, "costs": costs}
    results |= {"summary": _records(study.summary), "controls": _records(study.controls)}
    return Report(
        facts,
        "Localisation",
        findings=_findings(study, facts),
        notes=[*PROTOCOL, READINGS],
        cards=[
            Card.of(f"IoU, {design}, {facts['main']}", interval)
            for design, interval in _on_main(study, facts).items()
        ],
        sections=[
            Section("Plots", [Plots(_plots(study, facts))]),
            *study_tables(study, costs, facts),
            Section("Scores", [MEANINGS], page_only=True),
            Section("Overlays", example_galleries(study.examples)),
        ],
        files={
            "localization.json": to_json({**facts, "protocol": " ".join(PROTOCOL), **results}),
            "localization.csv": to_csv(study.summary),
            "localization-images.csv": to_csv(study.images),
        },
        name="localization",
    )


def _on_main(study: Study, facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the IoU of each design on the main images, without JPEG."""
    found = {}
    for row in study.summary.to_dict("records"):
        on_main = row["trained_on"] == row["judged_on"] == facts["main"]
        plain = row["policy"] == row["judged_policy"] == facts["policy"]
        if on_main and plain and pd.isna(row["quality"]):
            found[row["design"]] = interval_of(row, "per_image_iou")
    return found


def _findings(study: Study, facts: Mapping[str, Any]) -> list[str]:
    on_main = _on_main(study, facts)
    found = {name: entry for name, entry in on_main.items() if is_number(entry["value"])}
    if not found:
        return []
    best = max(found, key=lambda design: found[design]["value"])
    where = f"{best} localises best on {facts['main']}"
    return [f"{where}: IoU {format_interval(found[best])}, mean over the images."]


def _f1_of_every_pixel(study: Study, facts: Mapping[str, Any]) -> float | None:
    wanted = {"control": EVERY_PIXEL, "judged_on": facts["main"], "judged_policy": facts["policy"]}
    for row in study.controls.to_dict("records"):
        if all(row[key] == value for key, value in wanted.items()):
            return float(row["per_image_f1"])
    return None


def _records(table: pd.DataFrame) -> list[Any]:
    """List the rows of a table, with None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _plots(study: Study, facts: Mapping[str, Any]) -> list[Plot]:
    plots = []
    summary, designs = study.summary, facts["designs"]
    usual = summary[(summary[["policy", "judged_policy"]] == facts["policy"]).all(axis=1)]
    if "matrix" in facts["tables"]:
        clean = usual[usual["quality"].isna()]
        for design in designs:
            alt = f"IoU of {design} by training and test images, as in its table"
            plots.append(Plot(matrix_plot(clean, design, facts["kinds"]), alt))
    if "jpeg" in facts["tables"]:
        main = usual[(usual[["trained_on", "judged_on"]] == facts["main"]).all(axis=1)]
        drawn = jpeg_plot(main, designs, _f1_of_every_pixel(study, facts))
        plots.append(Plot(drawn, "F1 by JPEG quality"))
    return plots


def matrix_plot(plain: pd.DataFrame, design: str, kinds: Sequence[str]) -> Figure:
    """Draw the IoU of one design by what it was trained on and judged on."""
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
    """Draw F1 by JPEG quality, one line a design, with 95 % intervals.

    ``every_pixel`` is the F1 of calling every pixel repainted, dashed if it is known.
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


def example_galleries(examples: Sequence[Mapping[str, Any]]) -> list[Gallery]:
    """Group examples, as of `localization_study.study.Study`, by localiser."""
    groups: dict[str, list[Exhibit]] = {}
    for example in examples:
        name = f"{example['design']}, {example['kind']}, mask {example['policy']}"
        groups.setdefault(name, []).append(_exhibit(example))
    return [Gallery(exhibits, name, NOTE) for name, exhibits in groups.items()]


def draw_example(example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draw the four images of an example, uint8 (H, W, 3) each, by the names in `ROLES`.

    Raises
    ------
    ImageError
        If the image, its mask or its map cannot be read.
    """
    pixels = load_image(example["row"]["path"])
    truth = load_truth(example["row"], example["policy"])
    grey = load_image(example["map"])
    probability = grey[:, :, 0] / np.float32(255)
    drawn = blend(pixels, probability, example["threshold"])
    white = np.repeat(np.where(truth, np.uint8(255), np.uint8(0))[:, :, None], 3, axis=2)
    return dict(zip(ROLES, (pixels, white, grey, drawn), strict=True))


def _exhibit(example: Mapping[str, Any]) -> Exhibit:
    path = "/".join(str(example["row"]["path"]).rsplit("/", 2)[-2:])
    try:
        drawn: Mapping[str, np.ndarray | None] = draw_example(example)
    except (OSError, ValueError) as error:
        logger.warning("no overlay: %s", error)
        drawn = dict.fromkeys(ROLES)
    thumbnails = [
        Thumbnail(None if pixels is None else encode_jpeg(pixels, SIDE), f"{role} of {path}", role)
        for role, pixels in drawn.items()
    ]
    return Exhibit(thumbnails, path, [f"IoU {format_number(example['iou'])}"])
