"""How reports write numbers, and what they say about metrics, scores and controls."""

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, TypeGuard

from cnnsvm.evaluation.negative_controls import ABOVE_CHANCE, BLIND, NEAR_CHANCE, SLIGHTLY_ABOVE
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

_FEW_SOURCES = 50
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


def explain(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say in plain words what the headline numbers mean: decision, ranking and probabilities.

    ``metrics`` are mappings of ``value``, ``low`` and ``high``.
    """
    value = {name: (metrics.get(name) or {}).get("value") for name in METRIC_LABELS}
    sentences = []
    if is_number(value["recall"]):
        sentences.append(_decision_sentence(value))
    if is_number(value["precision"]):
        sentences.append(
            f"When it says fake it is right {percent(value['precision'])} of the time, at this "
            "data set's share of fakes; where fakes are rarer it is right less often."
        )
    if is_number(value["roc_auc"]):
        sentences.append(_ranking_sentence(metrics["roc_auc"]))
    if is_number(value["ece"]):
        points = f"{100 * value['ece']:.1f}"
        sentences.append(f"Its probabilities are off by {points} percentage points on average.")
    return sentences or ["No metric is defined for these predictions."]


def caveats(result: Mapping[str, Any]) -> list[str]:
    """Say in plain words how far to trust the numbers of an `evaluation_report`, controls first.

    Intervals of no width get the rule of three (Hanley and Lippman-Hand, "If nothing goes wrong, is
    everything all right?", JAMA 249, 1983).
    """
    sentences = [
        *_leak_sentences(result.get("audit"), result.get("controls") or {}),
        "The intervals come from resampling whole sources: they say how the numbers would vary "
        "with other test images of this kind, not with retraining or with other generators.",
    ]
    n_sources = result.get("n_sources")
    if is_number(n_sources) and n_sources < _FEW_SOURCES:
        sentences.append(f"With only {n_sources} sources the intervals themselves are rough.")
    without_width = (
        is_number(entry.get("low")) and entry["low"] == entry["value"] == entry.get("high")
        for entry in (result.get("metrics") or {}).values()
    )
    if is_number(n_sources) and any(without_width):
        sentences.append(
            "An interval of no width means that no source contradicted the value, not certainty: "
            f"after 0 mistakes in n = {n_sources} sources, a rate of mistakes up to 3/n = "
            f"{percent(min(1.0, 3 / n_sources))} remains plausible."
        )
    engines = list(result.get("by_engine") or {})
    if len(engines) == 1:
        made = "Every fake here was made by " + str(engines[0])
        made = "By which engine the fakes were made is unknown" if engines[0] == "unknown" else made
        sentences.append(f"{made}: the numbers say nothing of others.")
    return sentences


def leaking(controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the controls above chance that see no pixels: only a leak explains them."""
    return [
        name
        for name, entry in controls.items()
        if entry.get("verdict") == ABOVE_CHANCE and name in BLIND
    ]


def _decision_sentence(value: Mapping[str, Any]) -> str:
    found = f"The detector finds {percent(value['recall'])} of the fakes"
    if not is_number(value["balanced_accuracy"]):
        return f"{found}; without real images its false alarms are not known."
    false_alarms = min(max(1 - 2 * value["balanced_accuracy"] + value["recall"], 0.0), 1.0)
    return f"{found} and calls {percent(false_alarms)} of the real images fake (false alarms)."


def _ranking_sentence(entry: Mapping[str, Any]) -> str:
    sentence = (
        f"Shown one real and one fake image, it rates the fake higher {percent(entry['value'])} of "
        "the time; guessing gives 50 %."
    )
    low, high = entry.get("low"), entry.get("high")
    if is_number(low) and is_number(high) and low <= 0.5 <= high:
        return f"{sentence} The interval includes 50 %: these data do not show it to beat guessing."
    if is_number(high) and high < 0.5:
        return f"{sentence} That is worse than guessing: are labels or scores the wrong way round?"
    return sentence


def _leak_sentences(
    audit: Mapping[str, Any] | None, controls: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Say what the audit and the controls found; no control clears what the audit found."""
    seen = _control_sentence(controls)
    if audit is None:
        return [seen, "The files were not audited; cnnsvm audit says whether they give fakes away."]
    leaks = [
        f"{check['name']}: {check['summary']}"
        for check in audit["checks"]
        if check["verdict"] == "leak"
    ]
    if leaks:
        return [
            "Warning: the audit finds that the data leak, and part of these numbers may measure "
            f"the leak: {' '.join(leaks)}",
            *([seen] if leaking(controls) else []),
        ]
    return [seen, f"An audit of the {audit['n_images']} files that were judged finds no leak."]


def _control_sentence(controls: Mapping[str, Mapping[str, Any]]) -> str:
    if not controls:
        return (
            "No negative controls were run, so it is not known whether something other than "
            "inpainting gives the fakes away."
        )
    if leaks := leaking(controls):
        return (
            f"Warning: above chance without seeing inpainting: {', '.join(leaks)}. The data leak, "
            "and part of these numbers may measure the leak."
        )
    partial = [
        f"{name} ({format_number(entry['roc_auc']['value'])})"
        for name, entry in controls.items()
        if entry.get("verdict") in (ABOVE_CHANCE, SLIGHTLY_ABOVE)
    ]
    if partial:
        return (
            f"These controls rank fakes above reals more often than chance: {', '.join(partial)}. "
            "They see colours or texture without their place, which inpainting itself may change: "
            "only what the detector has beyond them speaks for it. Controls that see no pixels "
            "are near chance."
        )
    unclear = [name for name, entry in controls.items() if entry.get("verdict") != NEAR_CHANCE]
    if unclear:
        return f"No control is above chance; below it or undefined: {', '.join(unclear)}."
    return (
        f"All negative controls ({', '.join(controls)}) are near chance: no sign that anything but "
        "inpainting gives the fakes away."
    )
