"""Reports on CIFAKE: backbones side by side, and tables of heads and of near-duplicates."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cnnsvm.features.trainer import best_epoch
from cnnsvm.io.tables import to_csv
from cnnsvm.report.model import Plot, Plots, Report, Section, Table
from cnnsvm.report.plots import training_plot
from cnnsvm.report.render import to_json
from cnnsvm.report.wording import format_interval, format_number

METRICS = {"accuracy": "accuracy", "f1": "F1", "roc_auc": "ROC AUC"}
HEADS = {"network": "own layer", "svm": "SVM"}
PROTOCOL = (
    "All networks were trained on the same images with the same settings, but for what a row's "
    "name says and a learning rate that is lower from given weights and without batch "
    "normalisation.",
    "They were judged on the same images; none of these, nor a near-duplicate of one, was trained "
    "on.",
    "Own layer: what fine-tuning trained on top; SVM: tuned on the same embeddings.",
    "With auxiliary labels, the training loss includes theirs.",
    "95 % intervals come from resampling groups of near-duplicates, and say nothing about "
    "retraining.",
)


def backbones_report(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Report:
    """Make the report, with ``backbones.csv`` and ``backbones.json``.

    Parameters
    ----------
    rows : sequence of mapping
        As `cifake_study.backbones.judge_variants` returns them.
    facts : mapping
        ``n_train``, ``n_test``, and those of a `Report`.
    """
    split = f"{facts['n_train']:,} images to train on, {facts['n_test']:,} judged"
    drawn = Plot(training_plot(_curves(rows)), "Loss, accuracy and AUC over the epochs")
    return Report(
        {**facts, "split": split},
        "Backbones",
        findings=[_best(rows)],
        notes=PROTOCOL,
        sections=[
            Section("Side by side", _tables(rows)),
            Section("Training", [Plots([drawn], wide=True)]),
        ],
        files={
            "backbones.csv": to_csv(pd.DataFrame(map(_flat, rows))),
            "backbones.json": to_json({**facts, "backbones": list(rows)}),
        },
        name="backbones",
    )


def heads_table(rows: Sequence[Mapping[str, Any]], memory: int) -> dict[str, Any]:
    """Put heads on the same embeddings side by side.

    Parameters
    ----------
    rows : sequence of mapping
        See `cifake_study.heads.compare_heads`.
    memory : int
        Most bytes that the process has held.

    Returns
    -------
    dict
        ``title``, ``headers``, ``rows`` and ``note``, as `evaluation_report` takes tables.
    """
    shown = [
        [
            row["head"],
            *(format_interval(row["metrics"][name]) for name in METRICS),
            "" if row["difference"] is None else format_interval(row["difference"]),
            "" if row["n_vectors"] is None else f"{row['n_vectors']:,}",
            "" if row["seconds"] is None else f"{row['seconds']:,.0f} s",
            "" if row["rate"] is None else f"{row['rate']:,.0f}",
        ]
        for row in rows
    ]
    headers = ["head", *METRICS.values(), "against the last", "vectors", "fitted in", "rows/s"]
    note = "The same embeddings under each head; the difference in accuracy is paired."
    note += f" Most memory of the process so far: {format_number(memory / 1e9)} GB."
    return {"title": "With and without the SVM", "headers": headers, "rows": shown, "note": note}


def duplicates_table(counted: pd.DataFrame, n_left_out: int) -> dict[str, Any]:
    """Show how many images have near-duplicates, and how many were left out for it.

    Parameters
    ----------
    counted : DataFrame
        See `cifake_study.groups.count_duplicates`.
    n_left_out : int
        Training images that share a group with one that is judged.

    Returns
    -------
    dict
        As of `heads_table`.
    """
    return {
        "title": "Near-duplicates",
        "headers": ["images", "n", "same pixels", "near-duplicates", "groups of them"],
        "rows": [[str(name), *(f"{n:,}" for n in row)] for name, row in counted.iterrows()],
        "note": f"No group is on two sides of a split. Left out of training for it: {n_left_out}.",
    }


def _best(rows: Sequence[Mapping[str, Any]]) -> str:
    entries = [
        (row[head]["metrics"]["accuracy"], f"{row['name']}, {name}")
        for row in rows
        for head, name in HEADS.items()
    ]
    accuracy, name = max(entries, key=lambda entry: entry[0]["value"])
    return f"Most accurate: {name}, accuracy {format_interval(accuracy)}."


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": row["name"], "history": row["history"], "best_epoch": best_epoch(row["history"])}
        for row in rows
    ]


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Make a table of the accuracy and the cost, and one of the other metrics."""
    first, second = [], []
    for row in rows:
        scores = {metric: [row[head]["metrics"][metric] for head in HEADS] for metric in METRICS}
        cost = [f"{row['parameters'] / 1e6:.2f} M", f"{row['minutes']:.1f}"]
        cost.append(f"{row['images_a_second']:,.0f}")
        first.append([row["name"], *scores["accuracy"], row["network"]["difference"], *cost])
        second.append([row["name"], *scores["f1"], *scores["roc_auc"]])
    accuracy, *others = (
        [f"{name}, {head}" for head in HEADS.values()] for name in METRICS.values()
    )
    costs = ("difference", "parameters", "minutes", "images/s")
    return [
        Table(["backbone", *accuracy, *costs], first),
        Table(["backbone", *others[0], *others[1]], second, "Other metrics"),
    ]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: row[key] for key in ("name", "parameters", "minutes", "images_a_second")}
    for head in HEADS:
        for metric in METRICS:
            for end, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                flat[f"{head}_{metric}{suffix}"] = row[head]["metrics"][metric][end]
    return flat
