"""The parts of the HTML report: one function a section, each empty if there is nothing to say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cnnsvm.evaluation.negative_controls import ABOVE_CHANCE, BLIND, NEAR_CHANCE, SLIGHTLY_ABOVE
from cnnsvm.report.canvas import to_png
from cnnsvm.report.markup import (
    Html,
    definitions,
    element,
    image,
    join,
    paragraph,
    section,
    table,
)
from cnnsvm.report.plots import (
    confusion_matrix_plot,
    group_plot,
    precision_recall_plot,
    reliability_plot,
    roc_plot,
    training_plot,
)
from cnnsvm.report.summaries import trust
from cnnsvm.report.wording import (
    GROUPINGS,
    METRIC_GAPS,
    METRIC_LABELS,
    METRIC_MEANINGS,
    caveats,
    explain,
    format_interval,
    format_metric,
    format_number,
    format_seconds,
    format_value,
    leaking,
    metric_names,
)

_HEADLINES = ("roc_auc", "balanced_accuracy", "precision", "recall", "f1", "ece")
_GROUP_METRICS = ("recall", "precision", "f1", "balanced_accuracy", "roc_auc")
_FOLD_METRICS = ("balanced_accuracy", "precision", "recall", "f1", "roc_auc")
_MAX_LISTED = 100

_PLOTS: tuple[tuple[Callable[[pd.DataFrame], Figure], str, str], ...] = (
    (confusion_matrix_plot, "Confusion matrix", "Percentages are of the row."),
    (roc_plot, "ROC curves", "Dashed: single folds, with their areas."),
    (precision_recall_plot, "Precision-recall curves", "The grey line is the share of fakes."),
    (reliability_plot, "Reliability diagram", "Above the line: fake more often than stated."),
)


def headline(result: Mapping[str, Any]) -> Html:
    """Show the main metrics as large numbers, and what they mean and are worth in words."""
    metrics = result.get("metrics") or {}
    cards = [_card(name, metrics[name]) for name in _HEADLINES if name in metrics]
    alarming = bool(leaking(result.get("controls") or {}))
    return join(
        [
            element("ul", *cards, class_="cards"),
            paragraph(" ".join(explain(result))),
            trust(" ".join(caveats(result)), alarming=alarming),
        ]
    )


def metrics_table(result: Mapping[str, Any]) -> Html:
    """List every metric with its interval and its meaning."""
    metrics = result.get("metrics") or {}
    level = f"value [{100 * result.get('confidence', 0.95):g} % interval]"
    rows = [
        [METRIC_LABELS.get(n, n), format_metric(n, metrics[n]), METRIC_MEANINGS.get(n, "")]
        for n in metric_names(result)
    ]
    return section("Metrics", table(["metric", level, "meaning"], rows, words=["meaning"]))


def plots(predictions: pd.DataFrame, curves: Sequence[Mapping[str, Any]]) -> Html:
    """Draw what the predictions show and, if anything was fine-tuned, how that went."""
    figures = [_figure(draw(predictions), alt, note) for draw, alt, note in _PLOTS]
    if any(curve.get("history") for curve in curves):
        note = "Early stopping keeps the starred epoch; validation sources are not trained on."
        figures.append(
            _figure(training_plot(curves), "Loss, accuracy and AUC over the epochs", note)
        )
    return section("Plots", element("div", *figures, class_="plots"))


def groups(result: Mapping[str, Any]) -> Html:
    """Compare mask schemas, variants and engines, each in a table and, if several, a plot."""
    return join(
        _grouping(result[key], label) for key, label in GROUPINGS.items() if result.get(key)
    )


def controls(result: Mapping[str, Any]) -> Html:
    """Show the negative controls with their verdicts."""
    entries = result.get("controls") or {}
    if not entries:
        return section("Negative controls", paragraph("None were run."))
    rows = [
        [
            name,
            _verdict(name, entry.get("verdict")),
            format_interval(entry.get("roc_auc")),
            format_interval(entry.get("balanced_accuracy")),
        ]
        for name, entry in entries.items()
    ]
    meanings = {name: entry["meaning"] for name, entry in entries.items() if entry.get("meaning")}
    intro = (
        "Models that cannot see inpainting. Those without pixels (metadata, shuffled labels) must "
        "be near chance (0.5), or the data leak; the others show what colour or texture tells."
    )
    headers = ["control", "verdict", "ROC AUC", "balanced accuracy"]
    return section(
        "Negative controls",
        paragraph(intro, class_="soft"),
        table(headers, rows, words=["verdict"]),
        definitions(meanings),
    )


def tables(result: Mapping[str, Any]) -> Html:
    """Show what else was counted or compared, each table with its note."""
    return join(
        section(
            entry["title"],
            paragraph(entry["note"], class_="soft") if entry.get("note") else "",
            table(entry["headers"], entry["rows"]),
        )
        for entry in result.get("tables") or []
    )


def folds(result: Mapping[str, Any]) -> Html:
    """List the outer folds and what the inner search chose in each."""
    entries = result.get("folds") or []
    headers = ["fold", "training", "test", *(METRIC_LABELS[name] for name in _FOLD_METRICS)]
    headers += ["threshold", "time"]
    intro = "Images (sources) of each outer fold; no source is in both parts."
    chosen = {
        f"fold {fold.get('fold')} chose": format_value(fold["best_params"])
        for fold in entries
        if fold.get("best_params")
    }
    return section(
        "Folds",
        paragraph(intro, class_="soft") if entries else "",
        table(headers, [_fold_row(fold) for fold in entries]),
        definitions(chosen),
    )


def provenance(result: Mapping[str, Any]) -> Html:
    """List warnings, skipped images, settings and environment."""
    skipped = [
        element("li", element("code", entry["path"]), f": {entry['reason']}")
        for entry in result.get("skipped") or []
    ]
    warned = [element("li", warning) for warning in result.get("warnings") or []]
    return join(
        [
            section("Warnings", _bullets(warned)),
            section(f"Skipped images ({len(skipped)})", _bullets(skipped)),
            section("Settings", _values(result.get("settings"))),
            section("Environment", _values(result.get("environment"))),
        ]
    )


def _card(name: str, entry: Mapping[str, Any]) -> Html:
    value, _, interval = format_interval(entry).partition(" ")
    under = METRIC_GAPS[name] if value == "n/a" else interval
    return element(
        "li",
        element("span", METRIC_LABELS[name]),
        element("strong", value),
        element("span", under),
    )


def _figure(figure: Figure, alt: str, note: str) -> Html:
    return element("figure", image(to_png(figure), "png", alt), element("figcaption", note))


def _grouping(entries: Mapping[str, Mapping[str, Any]], label: str) -> Html:
    rows = [
        [name, entry["n_fakes"]]
        + [format_interval(entry["metrics"].get(metric)) for metric in _GROUP_METRICS]
        for name, entry in entries.items()
    ]
    headers = [label, "fakes", *(METRIC_LABELS[metric] for metric in _GROUP_METRICS)]
    intro = "Its fakes against all originals. Precision and F1 also depend on the number of fakes."
    return section(
        f"By {label}",
        paragraph(intro, class_="soft"),
        table(headers, rows),
        _compared(entries, label) if len(entries) > 1 else "",
    )


def _compared(entries: Mapping[str, Mapping[str, Any]], label: str) -> Html:
    alt = f"Recall and ROC AUC by {label}, with the values of the table above"
    plot = image(to_png(group_plot(entries, f"By {label}")), "png", alt)
    return element("div", element("figure", plot), class_="plots")


def _verdict(name: str, verdict: Any) -> Html:
    proof = name in BLIND  # above chance is no proof of a leak where pixels are seen
    look = {NEAR_CHANCE: "good", ABOVE_CHANCE: "bad" if proof else None}.get(verdict)
    above = "⚠ " if proof else "~ "
    mark = {NEAR_CHANCE: "✓ ", SLIGHTLY_ABOVE: "~ ", ABOVE_CHANCE: above}.get(verdict, "")
    return element("span", f"{mark}{verdict or 'none'}", class_=look)


def _fold_row(fold: Mapping[str, Any]) -> list[str]:
    scores = fold.get("metrics") or {}
    return [
        str(fold.get("fold")),
        f"{fold.get('n_train', '?')} ({fold.get('n_sources_train', '?')})",
        f"{fold.get('n_test', '?')} ({fold.get('n_sources_test', '?')})",
        *(format_number(scores.get(name)) for name in _FOLD_METRICS),
        format_number(fold.get("threshold")),
        format_seconds(fold.get("seconds")),
    ]


def _bullets(items: Sequence[Html]) -> Html:
    """List items, up to a number that a reader would still read."""
    if not items:
        return Html("")
    more = len(items) - _MAX_LISTED
    rest = [element("li", f"and {more} more, all in report.json")] if more > 0 else []
    return element("ul", *items[:_MAX_LISTED], *rest, class_="plain")


def _values(values: Mapping[str, Any] | None) -> Html:
    return definitions({name: format_value(value) for name, value in (values or {}).items()})
