"""The report on a cross-validated or held-out evaluation of a detector."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cnnsvm.data.images import load_image
from cnnsvm.evaluation.negative_controls import ABOVE_CHANCE, BLIND, NEAR_CHANCE, SLIGHTLY_ABOVE
from cnnsvm.io.tables import to_csv
from cnnsvm.report import plots
from cnnsvm.report.conclusions import caveats, headline, is_leaking
from cnnsvm.report.conclusions import explain as explain_metrics
from cnnsvm.report.mistakes import KINDS, Explainer, image_sections
from cnnsvm.report.model import Block, Card, Cell, Plot, Plots, Report, Section, Table
from cnnsvm.report.render import Loader, to_json
from cnnsvm.report.wording import (
    METRIC_GAPS,
    METRIC_LABELS,
    METRIC_MEANINGS,
    common_folder,
    format_interval,
    format_seconds,
    format_value,
)

_SAID = ("fold", "label", "prediction", "score", "probability")
PREDICTION_COLUMNS = ("path", "source_id", *KINDS, *_SAID)
OPTIONAL_COLUMNS = ("sha256",)  # of the file: tells whether two runs judged the same images
_HEADLINES = ("balanced_accuracy", "roc_auc", "precision", "recall", "f1", "ece")
_GROUPINGS = {"by_mask_schema": "mask schema", "by_variant": "variant", "by_engine": "engine"}
_GROUP_METRICS = ("roc_auc", "balanced_accuracy", "recall", "precision", "f1")
_FOLD_METRICS = ("roc_auc", "balanced_accuracy", "recall", "precision", "f1")
_PLOTS: tuple[tuple[Callable[[pd.DataFrame], Figure], str, str], ...] = (
    (plots.confusion_matrix_plot, "Confusion matrix", "Percentages are of the row."),
    (plots.roc_plot, "ROC curves", "Dashed: single folds, with their areas."),
    (plots.precision_recall_plot, "Precision-recall curves", "Grey: the share of fakes."),
    (plots.reliability_plot, "Reliability diagram", "Above the line: fake more often than stated."),
)


def evaluation_report(
    result: Mapping[str, Any],
    predictions: pd.DataFrame,
    folds: Sequence[Mapping[str, Any]] = (),
    curves: Sequence[Mapping[str, Any]] = (),
    *,
    loader: Loader = load_image,
    explain: Explainer | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Report:
    """Make the report, with ``report.json``, ``folds.csv`` and ``predictions.csv``.

    Parameters
    ----------
    result : mapping
        What ``report.json`` holds. ``metrics``: a ``{"value", "low", "high"}`` each;
        ``by_mask_schema``, ``by_variant`` and ``by_engine``: ``n_fakes`` and ``metrics`` each;
        ``controls``: ``roc_auc``, ``balanced_accuracy``, ``meaning`` and ``verdict`` each;
        ``audit``: what `cnnsvm.audit.audit.audit` found;
        ``tables``: more to show, each with ``title``, ``headers``, ``rows`` and, if wanted, a
        ``note``; ``folds``: taken from the parameter if missing; ``confidence`` of the intervals
        (0.95 if missing); and the facts of a `Report`. nan and None both mean
        undefined; what is missing is left out.
    predictions : DataFrame
        One row an image with the columns of ``PREDICTION_COLUMNS``: ``label`` and
        ``prediction`` 0 (real) or 1 (fake), ``probability`` of fake in [0, 1]; a ValueError says
        that one is missing or a value impossible.
    folds, curves : sequence of mapping
        One an outer fold: ``fold``, ``n_train``, ``n_test``, ``n_sources_train``,
        ``n_sources_test``, ``metrics``, ``best_params``, ``threshold`` and ``seconds``; and what
        `cnnsvm.report.plots.training_plot` takes.
    loader : callable
        Turns a path into uint8 pixels of shape (H, W, 3) for the thumbnails.
    explain : callable, optional
        Turns the path of a mistake into a heatmap, see `cnnsvm.report.mistakes.Explainer`.
    folder : path, optional
        Where the report will lie: ``predictions.csv`` names images by their paths from there.
    """
    result = {**result, "folds": result.get("folds") or list(folds)}
    metrics, controls = result.get("metrics") or {}, result.get("controls") or {}
    headlines = [name for name in _HEADLINES if name in metrics]
    thresholds = {fold.get("fold"): fold.get("threshold") for fold in result["folds"]}
    return Report(
        result | {"skipped": _skipped(result, predictions)},
        "Report",
        findings=[text for text in (headline(result), *explain_metrics(metrics)) if text],
        notes=caveats(result),
        alarming=is_leaking(result),
        cards=[Card.of(METRIC_LABELS[n], metrics[n], METRIC_GAPS[n]) for n in headlines],
        sections=[
            _metrics(metrics, result.get("confidence", 0.95), _only_kinds(result)),
            _plots(predictions, curves),
            *(_groups(result.get(key) or {}, label) for key, label in _GROUPINGS.items()),
            _controls(controls),
            *(
                Section(e["title"], [Table(e["headers"], e["rows"])], e.get("note", ""))
                for e in result.get("tables") or []
            ),
            _folds(result["folds"]),
            *image_sections(predictions, loader, thresholds, explain),
        ],
        files={
            "report.json": to_json(result),
            "folds.csv": folds_csv(folds),
            "predictions.csv": predictions_csv(predictions, folder),
        },
    )


def folds_csv(folds: Sequence[Mapping[str, Any]]) -> str:
    """Write one row a fold; metrics are columns, and chosen parameters are ``best_<name>``."""
    rows = []
    for fold in folds:
        row = {key: value for key, value in fold.items() if key not in ("metrics", "best_params")}
        row |= fold.get("metrics") or {}
        row |= {f"best_{name}": value for name, value in (fold.get("best_params") or {}).items()}
        rows.append(row)
    return to_csv(pd.DataFrame(rows))


def predictions_csv(predictions: pd.DataFrame, folder: str | os.PathLike[str] | None = None) -> str:
    """Write one row an image, with the columns of ``PREDICTION_COLUMNS`` in that order.

    Those of ``OPTIONAL_COLUMNS`` follow where there are any. With ``folder`` paths start there.
    """
    missing = [column for column in PREDICTION_COLUMNS if column not in predictions]
    if missing:
        raise ValueError(
            f"predictions lack the column(s) {', '.join(missing)}; "
            f"a report needs {', '.join(PREDICTION_COLUMNS)}."
        )
    if folder is not None:
        paths = [os.path.relpath(path, folder) for path in predictions["path"]]
        predictions = predictions.assign(path=paths)
    known = [column for column in OPTIONAL_COLUMNS if column in predictions]
    return to_csv(predictions[[*PREDICTION_COLUMNS, *known]])


def _skipped(result: Mapping[str, Any], predictions: pd.DataFrame) -> list[dict[str, str]]:
    """Write the paths of skipped images as those of the others: below the folder of the data."""
    skipped = result.get("skipped") or []
    folder = common_folder([*predictions["path"], *(str(entry["path"]) for entry in skipped)])
    return [
        {name: str(entry[name]).replace(folder, "") for name in ("path", "reason")}
        if len(folder) > 1
        else entry
        for entry in skipped
    ]


def _only_kinds(result: Mapping[str, Any]) -> str:
    """Name the variant, engine or mask schema of all fakes where there is but one."""
    only = [
        f"{label} {next(iter(entries))}"
        for key, label in _GROUPINGS.items()
        for entries in [result.get(key) or {}]
        if len(entries) == 1
    ]
    return f"All fakes: {', '.join(only)}." if only else ""


def _metrics(metrics: Mapping[str, Any], confidence: float, note: str) -> Section:
    """List every metric with its interval, or why it has none, and its meaning."""
    rows = []
    for name in sorted(metrics, key=[*METRIC_LABELS, *metrics].index):
        value = format_interval(metrics[name])
        value += f" ({METRIC_GAPS[name]})" if value == "n/a" and name in METRIC_GAPS else ""
        rows.append([METRIC_LABELS.get(name, name), value, METRIC_MEANINGS.get(name, "")])
    level = f"value [{100 * confidence:g} % interval]"
    headers = ["metric", level, "meaning"]
    return Section("Metrics", [Table(headers, rows, prose=["meaning"])], note)


def _plots(predictions: pd.DataFrame, curves: Sequence[Mapping[str, Any]]) -> Section:
    shown = [Plot(draw(predictions), alt, caption) for draw, alt, caption in _PLOTS]
    if any(curve.get("history") for curve in curves):
        caption = "Star: the epoch used. Validation sources are not trained on."
        drawn = plots.training_plot(curves)
        shown.append(Plot(drawn, "Loss, accuracy and AUC over the epochs", caption))
    return Section("Plots", [Plots(shown)])


def _groups(entries: Mapping[str, Mapping[str, Any]], label: str) -> Section:
    """Compare mask schemas, variants or engines; one alone has the metrics of all."""
    if len(entries) < 2:
        return Section(f"By {label}", [])
    rows = [
        [name, entry["n_fakes"], *(entry["metrics"].get(metric) for metric in _GROUP_METRICS)]
        for name, entry in entries.items()
    ]
    headers = [label, "fakes", *(METRIC_LABELS[metric] for metric in _GROUP_METRICS)]
    alt = f"Recall and ROC AUC by {label}, with the values of the table above"
    drawn = Plots([Plot(plots.group_plot(entries, f"By {label}"), alt)])
    blocks: list[Block] = [Table(headers, rows), drawn]
    note = "Its fakes against all originals. Precision and F1 also depend on the number of fakes."
    return Section(f"By {label}", blocks, note)


def _controls(controls: Mapping[str, Mapping[str, Any]]) -> Section:
    if not controls:
        return Section("Negative controls", ["None were run."])
    rows = [
        [name, entry.get("roc_auc"), entry.get("balanced_accuracy"), _verdict(name, entry)]
        for name, entry in controls.items()
    ]
    headers = ["control", "ROC AUC", "balanced accuracy", "verdict"]
    table = Table(headers, rows, prose=["verdict"])
    meanings = {name: entry["meaning"] for name, entry in controls.items() if entry.get("meaning")}
    note = (
        "Models that cannot see inpainting. Those without pixels (metadata, shuffled labels) must "
        "be near chance (0.5), or the data leak; the others show what colour or texture tells."
    )
    return Section("Negative controls", [table, meanings], note)


def _verdict(name: str, entry: Mapping[str, Any]) -> Cell:
    """Mark a verdict; above chance is no proof of a leak where pixels are seen."""
    looks = {NEAR_CHANCE: "good", SLIGHTLY_ABOVE: "some"}
    looks[ABOVE_CHANCE] = "bad" if name in BLIND else "some"
    return Cell(str(entry.get("verdict") or "none"), looks.get(str(entry.get("verdict"))))


def _folds(folds: Sequence[Mapping[str, Any]]) -> Section:
    rows = [
        [str(fold.get("fold")), fold.get("n_train"), fold.get("n_test")]
        + [f"{fold.get('n_sources_train', '?')}+{fold.get('n_sources_test', '?')}"]
        + [(fold.get("metrics") or {}).get(name) for name in _FOLD_METRICS]
        + [fold.get("threshold"), format_seconds(fold.get("seconds"))]
        for fold in folds
    ]
    metrics = (METRIC_LABELS[name] for name in _FOLD_METRICS)
    headers = ["fold", "train", "test", "sources", *metrics, "threshold", "time"]
    chosen = {
        f"fold {fold.get('fold')} chose": format_value(fold["best_params"])
        for fold in folds
        if fold.get("best_params")
    }
    note = "Images and sources (training + test) of each outer fold; no source is in both parts."
    return Section("Folds", [Table(headers, rows), chosen], note)
