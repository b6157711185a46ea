"""The report on a localisation study."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cnnsvm.report.model import Card, Plot, Plots, Report, Section
from cnnsvm.report.render import to_csv, to_json
from cnnsvm.report.wording import format_interval, interval_of, is_number
from localization_study.controls import EVERY_PIXEL
from localization_study.examples import example_galleries
from localization_study.plot import jpeg_plot, matrix_plot
from localization_study.study import Study
from localization_study.tables import Costs, study_tables

PROTOCOL = (
    "No source is on both sides of the split, with all that was made from it; each localiser chose "
    "its epoch on sources of its training part, and its threshold is frozen. The 95 % intervals "
    "come from resampling whole sources: they do not cover retraining, other seeds or other "
    "generators. Every training also had the untouched originals."
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
    "localiser that marks differences within a image has nothing to find."
)


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
        notes=[PROTOCOL, READINGS],
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
            "localization.json": to_json({**facts, "protocol": PROTOCOL, **results}),
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
