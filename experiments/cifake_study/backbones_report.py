"""The report on backbones side by side: text, CSV, JSON and one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.features.trainer import best_epoch
from cnnsvm.report import sections
from cnnsvm.report.files import to_json, write_files
from cnnsvm.report.markup import element, html, image, join, paragraph, section, table
from cnnsvm.report.plots import training_plot
from cnnsvm.report.render import to_png
from cnnsvm.report.style import CSS, PAGE
from cnnsvm.report.text import format_table
from cnnsvm.report.wording import format_interval, format_number

METRICS = {"accuracy": "accuracy", "f1": "F1", "roc_auc": "ROC AUC"}
HEADS = {"network": "own layer", "svm": "SVM"}
PROTOCOL = (
    "All networks were trained on the same images with the same settings, but for what a row's "
    "name says and a learning rate that is lower from given weights and without batch "
    "normalisation. They were judged on the same images, which none of them has seen, nor a "
    "near-duplicate of them. Own layer: what fine-tuning trained on top; SVM: tuned on the same "
    "embeddings. The training loss of a network that is taught objects is that of telling these "
    "too. 95 % intervals come from resampling groups of near-duplicates, and say nothing about "
    "retraining."
)
_WIDE = ".plots.wide { grid-template-columns: minmax(0, 46rem); }"


def write_backbones(
    out: Path, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> tuple[str, list[Path]]:
    """Write ``backbones.csv``, ``backbones.json`` and ``backbones.html``.

    Parameters
    ----------
    out : Path
        Folder; made if it is missing.
    rows : sequence of mapping
        As `cifake_study.backbones.judge_variants` returns them.
    facts : mapping
        ``title``, ``command``, ``environment``, ``n_train`` and ``n_test``.

    Returns
    -------
    text : str
        The table, to be printed.
    files : list of Path
    """
    headers = ["backbone", *(f"{METRICS[m]}, {h}" for m in METRICS for h in HEADS.values())]
    headers += ["own layer - SVM", "parameters", "minutes", "images/s"]
    cells = [_cells(row) for row in rows]
    contents = {
        "backbones.csv": pd.DataFrame(map(_flat, rows)).to_csv(index=False, lineterminator="\n"),
        "backbones.json": to_json({**facts, "backbones": list(rows)}),
        "backbones.html": _page(rows, facts, headers, cells),
    }
    files = write_files(out, contents)
    short = ["backbone", "accuracy, own layer", "accuracy, SVM", *headers[-3:]]
    picked = [[row[0], row[1], row[2], *row[-3:]] for row in cells]
    return f"{facts['title']}\n{format_table(short, picked)}", list(files.values())


def _cells(row: Mapping[str, Any]) -> list[str]:
    scores = [format_interval(row[head]["metrics"][m]) for m in METRICS for head in HEADS]
    measured = [f"{row['parameters'] / 1e6:.2f} M", format_number(row["minutes"])]
    measured.append(f"{row['images_a_second']:,.0f}")
    return [row["name"], *scores, format_interval(row["network"]["difference"]), *measured]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: row[key] for key in ("name", "parameters", "minutes", "images_a_second")}
    for head in HEADS:
        for metric in METRICS:
            for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                flat[f"{head}_{metric}{suffix}"] = row[head]["metrics"][metric][end]
    return flat


def _page(
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
) -> str:
    curves = [
        {"name": row["name"], "history": row["history"], "best_epoch": best_epoch(row["history"])}
        for row in rows
    ]
    drawn = image(to_png(training_plot(curves)), "png", "Loss, accuracy and AUC over the epochs")
    size = f"{facts['n_train']:,} images to train on, {facts['n_test']:,} judged"
    body = [
        element("h1", facts["title"]),
        paragraph(size, class_="soft"),
        paragraph(element("code", facts["command"]), class_="command"),
        section("Side by side", table(headers, cells), paragraph(PROTOCOL, class_="soft")),
        section("Training", element("div", element("figure", drawn), class_="plots wide")),
        sections.provenance(facts),
    ]
    return PAGE.format(title=html(facts["title"]), css=CSS + _WIDE, body=join(body))
