"""How reports write numbers, and what they call metrics and scores."""

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, TypeGuard

from cnnsvm.io.progress import format_duration

#: What reports call each metric, in the order in which they list them.
METRIC_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "mcc": "MCC",
    "brier": "Brier score",
    "ece": "ECE",
}
METRIC_MEANINGS = {
    "accuracy": "share of right decisions; flattered when one class is rare",
    "balanced_accuracy": "mean of the share right among reals and among fakes; 0.5 is guessing",
    "precision": "of what is called fake, the share that is",
    "recall": "of the fakes, the share that is found",
    "f1": "harmonic mean of precision and recall",
    "roc_auc": "chance that a fake scores above a real; 0.5 is guessing",
    "pr_auc": "average precision over all thresholds; the share of fakes is guessing",
    "mcc": "correlation of decision and truth; 0 is guessing",
    "brier": "mean squared error of the probability; lower is better",
    "ece": "expected calibration error: mean gap between stated and true chance; lower is better",
}
#: Why a metric can be undefined.
METRIC_GAPS = dict.fromkeys(METRIC_LABELS, "needs both real and fake images") | {
    "accuracy": "no images",
    "precision": "nothing was called fake",
    "recall": "no fakes",
    "f1": "no fakes, and nothing was called fake",
    "mcc": "needs both classes among labels and decisions",
    "brier": "no images",
    "ece": "no images",
}
#: Column of a flat summary (`cnnsvm.evaluation.localization_judging.flatten`) -> its heading.
LOCALIZATION_SCORES = {
    "per_image_iou": "IoU",
    "pooled_iou": "pooled IoU",
    "per_image_f1": "F1",
    "per_image_precision": "precision",
    "per_image_recall": "recall",
    "pooled_auc": "pooled AUC",
    "per_image_best_iou": "best IoU",
}

Row = Mapping[Any, Any]  # of a summary: columns ``name``, ``name_low``, ``name_high`` a metric


def is_number(value: Any) -> TypeGuard[float]:
    """Tell a finite number (numpy's too) from nan, None and everything else."""
    return isinstance(value, Real) and math.isfinite(value)


def format_number(value: Any) -> str:
    """Write a float with three decimals and an undefined one as ``n/a``."""
    return f"{value:.3f}" if is_number(value) else "n/a"


def format_interval(entry: Mapping[str, Any] | None) -> str:
    """Write ``{"value", "low", "high"}`` as ``0.912 [0.880, 0.941]``.

    Bounds that are missing, nan or None read ``[n/a]``; without a value it is ``n/a`` alone.
    """
    entry = entry or {}
    if not is_number(entry.get("value")):
        return "n/a"
    low, high = entry.get("low"), entry.get("high")
    bounds = f"{low:.3f}, {high:.3f}" if is_number(low) and is_number(high) else "n/a"
    return f"{entry['value']:.3f} [{bounds}]"


def format_seconds(seconds: Any) -> str:
    """Write a duration in seconds as ``4.2 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if not is_number(seconds):
        return "n/a"
    return format_duration(seconds) if seconds >= 10 else f"{seconds:.1f} s"


def format_value(value: Any) -> str:
    """Write a setting: floats with four significant digits, mappings as ``key=value`` pairs."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={format_value(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(item) for item in value) or "none"
    return str(value)


def percent(value: float) -> str:
    """Write a share as a whole percentage; 0 and 100 only where it is exactly that."""
    if 0 < value < 0.01:
        return "under 1 %"
    if 0.99 < value < 1:
        return "over 99 %"
    return f"{100 * value:.0f} %"


def common_folder(paths: Iterable[str]) -> str:
    """Return the folder that all paths are below, ending in a separator; empty if there is none."""
    try:
        return os.path.join(os.path.commonpath([os.path.dirname(path) for path in paths]), "")
    except ValueError:  # no path, or absolute and relative ones
        return ""


def interval_of(row: Row, name: str) -> dict[str, Any]:
    """Collect ``name``, ``name_low`` and ``name_high`` of a row."""
    return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}


def outcome(subject: str, row: Row) -> str:
    """Say in a sentence how well fakes are ranked, how many are found, and the false alarms."""
    sentence = f"{subject}: ROC AUC {format_interval(interval_of(row, 'roc_auc'))}"
    rates = [row["detection_rate"], row["false_alarm_rate"]]
    if not all(map(is_number, rates)):
        return f"{sentence}."
    found, alarms = map(percent, rates)
    return f"{sentence}; {found} of the fakes and {alarms} of the originals are called fake."


def localization_cells(summary: Row) -> list[Any]:
    """List the scores of a set of images in the order of `LOCALIZATION_SCORES`."""
    return [
        interval_of(summary, name)
        if name.endswith("_iou") and "best" not in name
        else summary[name]
        for name in LOCALIZATION_SCORES
    ]


def false_alarm_sentence(summary: Row | None) -> str:
    """Say how much of the untouched images is called repainted; empty if there are none."""
    if summary is None or not is_number(summary["untouched_false_alarm"]):
        return ""
    alarm = format_interval(interval_of(summary, "untouched_false_alarm"))
    return (
        f"Of the {summary['n_untouched']} untouched images, {alarm} of the pixels are called "
        f"repainted, and in {percent(summary['untouched_clean'])} of the images none is."
    )
