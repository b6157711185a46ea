"""The report as one HTML file that needs nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cnnsvm.data.images import load_image
from cnnsvm.report import sections
from cnnsvm.report.markup import Html, element, html, join, paragraph, section
from cnnsvm.report.mistakes import Loader, mistakes_html, sample_html
from cnnsvm.report.style import CSS, PAGE
from cnnsvm.report.wording import count_folds, format_seconds


def render_html(
    result: Mapping[str, Any],
    predictions: pd.DataFrame,
    curves: Sequence[Mapping[str, Any]] = (),
    loader: Loader = load_image,
) -> str:
    """Write the whole report as a page.

    Parameters
    ----------
    result, predictions, curves, loader
        As :func:`cnnsvm.report.write_report` takes them.

    Returns
    -------
    str
        HTML with inline style and embedded images; paths and names in it are escaped.
    """
    title = result.get("title") or "Report"
    body = [
        _header(result, str(title)),
        sections.headline(result),
        sections.metrics_table(result),
        sections.plots(predictions, curves),
        sections.groups(result),
        sections.controls(result),
        sections.tables(result),
        sections.folds(result),
        section("Most confident mistakes", mistakes_html(predictions, loader)),
        section("A random sample", sample_html(predictions, loader)),
        sections.provenance(result),
    ]
    return PAGE.format(title=html(title), css=CSS, body=join(body))


def _header(result: Mapping[str, Any], title: str) -> Html:
    size = f"{result.get('n_images', '?')} images from {result.get('n_sources', '?')} sources"
    facts = [result.get("data"), size, count_folds(result), format_seconds(result.get("seconds"))]
    command = result.get("command")
    return join(
        [
            element("h1", title),
            paragraph(" · ".join(str(fact) for fact in facts if fact), class_="soft"),
            paragraph(element("code", command), class_="command") if command else "",
        ]
    )
