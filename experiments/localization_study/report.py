"""The report on a localisation study: text, CSV, JSON, and one HTML page with overlays."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.report import sections
from cnnsvm.report.files import to_json, write_files
from cnnsvm.report.localization_scores import MEANINGS, READINGS
from cnnsvm.report.markup import (
    Html,
    definitions,
    element,
    html,
    image,
    join,
    paragraph,
    section,
)
from cnnsvm.report.render import to_png
from cnnsvm.report.style import CSS, PAGE, SHEET_CSS
from cnnsvm.report.summaries import (
    card,
    interval_of,
    page_head,
    text_head,
    text_tail,
    trust,
    warnings_of,
    wrapped,
)
from cnnsvm.report.text import format_table
from localization_study.controls import EVERY_PIXEL
from localization_study.examples import examples_html
from localization_study.plot import jpeg_plot, matrix_plot
from localization_study.study import Study
from localization_study.tables import long_form, short_form, study_tables

FILE = "localization.json"
PROTOCOL = (
    "No source is on both sides of the split, with all that was made from it; each localiser chose "
    "its epoch on sources of its training part, and its threshold is frozen. The 95 % intervals "
    "come from resampling whole sources: they do not cover retraining, other seeds or other "
    "generators. Every training also had the untouched originals."
)
Costs = Mapping[str, Mapping[str, Any]]


def write_localization(
    out: Path, study: Study, costs: Costs, facts: Mapping[str, Any]
) -> dict[str, Path]:
    """Write ``localization.html``, ``.json`` and ``.csv``, and ``localization-images.csv``.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    study : Study
    costs : mapping of str to mapping
        By design, see `localization_study.cost.measure_cost`.
    facts : mapping
        ``tables``, ``kinds``, ``main``, ``policy``, ``designs``, ``sizes`` and ``has_greys`` of
        the plan; optional: ``title``, ``data``, ``command``, ``n_images``, ``n_sources``,
        ``split``, ``seconds``, ``settings``, ``environment``, ``warnings`` and ``skipped``
        (``path`` and ``reason`` each).

    Returns
    -------
    dict of str to Path
        File name to path.
    """
    results: dict[str, Any] = {"fits": study.fits, "costs": costs}
    results |= {"summary": _records(study.summary), "controls": _records(study.controls)}
    contents = {
        "localization.html": render_localization(study, costs, facts),
        FILE: to_json({**facts, "protocol": PROTOCOL, **results}),
        "localization.csv": study.summary.to_csv(index=False, lineterminator="\n"),
        "localization-images.csv": study.images.to_csv(index=False, lineterminator="\n"),
    }
    return write_files(out, contents)


def format_localization(
    study: Study, costs: Costs, facts: Mapping[str, Any], files: Iterable[Path] = ()
) -> str:
    """Write a study as text; the tables have values alone, without intervals.

    Parameters
    ----------
    study, costs, facts
        As `write_localization` takes them.
    files : iterable of Path
        Where the written files are.

    Returns
    -------
    str
        With a final newline.
    """
    blocks = [text_head(str(facts.get("title") or "Localisation"), facts)]
    for entry in study_tables(study, costs, facts, short_form):
        blocks.append(f"{entry['title']}\n{format_table(entry['headers'], entry['rows'])}")
    prose = [READINGS, PROTOCOL, *(f"Warning: {text}" for text in warnings_of(facts, FILE))]
    blocks += [wrapped(text) for text in prose]
    return "\n\n".join([*blocks, *text_tail(files)]) + "\n"


def render_localization(study: Study, costs: Costs, facts: Mapping[str, Any]) -> str:
    """Write a study as a page that needs nothing from elsewhere.

    Parameters
    ----------
    study, costs, facts
        As `write_localization` takes them.

    Returns
    -------
    str
        HTML with inline style and embedded images; paths and names in it are escaped.
    """
    title = str(facts.get("title") or "Localisation")
    body = [
        page_head(title, facts),
        element("ul", *_cards(study, facts), class_="cards"),
        paragraph(READINGS),
        trust(PROTOCOL),
        section("Plots", element("div", *_figures(study, facts), class_="plots")),
        sections.tables({"tables": study_tables(study, costs, facts, long_form)}),
        section("Scores", definitions(MEANINGS)),
        examples_html(study.examples),
        sections.provenance({**facts, "warnings": warnings_of(facts, FILE), "skipped": []}),
    ]
    return PAGE.format(title=html(title), css=CSS + SHEET_CSS, body=join(body))


def _cards(study: Study, facts: Mapping[str, Any]) -> list[Html]:
    """Show the IoU of each design on the main pictures."""
    cards = []
    for row in study.summary.to_dict("records"):
        on_main = row["trained_on"] == row["judged_on"] == facts["main"]
        plain = row["policy"] == row["judged_policy"] == facts["policy"]
        if on_main and plain and pd.isna(row["quality"]):  # no JPEG
            label = f"IoU, {row['design']}, {row['judged_on']}"
            cards.append(card(label, interval_of(row, "per_image_iou")))
    return cards


def _f1_of_every_pixel(study: Study, facts: Mapping[str, Any]) -> float | None:
    wanted = {"control": EVERY_PIXEL, "judged_on": facts["main"], "judged_policy": facts["policy"]}
    for row in study.controls.to_dict("records"):
        if all(row[key] == value for key, value in wanted.items()):
            return float(row["per_image_f1"])
    return None


def _records(table: pd.DataFrame) -> list[Any]:
    """List the rows of a table, with None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _figures(study: Study, facts: Mapping[str, Any]) -> list[Html]:
    figures = []
    summary, designs = study.summary, facts["designs"]
    usual = summary[(summary[["policy", "judged_policy"]] == facts["policy"]).all(axis=1)]
    if "matrix" in facts["tables"]:
        clean = usual[usual["quality"].isna()]
        for design in designs:
            alt = f"IoU of {design} by training and test pictures, as in its table"
            plot = matrix_plot(clean, design, facts["kinds"])
            figures.append(element("figure", image(to_png(plot), "png", alt)))
    if "jpeg" in facts["tables"]:
        main = usual[(usual[["trained_on", "judged_on"]] == facts["main"]).all(axis=1)]
        plot = jpeg_plot(main, designs, _f1_of_every_pixel(study, facts))
        figures.append(element("figure", image(to_png(plot), "png", "F1 by JPEG quality")))
    return figures
