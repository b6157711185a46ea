"""How the report says numbers, and what it says about them: shared by text and HTML."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeGuard

from cnnsvm.evaluation.negative_controls import ABOVE_CHANCE, BLIND, NEAR_CHANCE, SLIGHTLY_ABOVE

#: What the report calls each metric, in the order in which it lists them.
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
METRIC_GAPS = {
    "accuracy": "no images",
    "balanced_accuracy": "needs both real and fake images",
    "precision": "nothing was called fake",
    "recall": "no fakes",
    "f1": "no fakes, and nothing was called fake",
    "roc_auc": "needs both real and fake images",
    "pr_auc": "needs both real and fake images",
    "mcc": "needs both classes among labels and decisions",
    "brier": "no images",
    "ece": "no images",
}
GROUPINGS = {"by_mask_schema": "mask schema", "by_variant": "variant", "by_engine": "engine"}

_FEW_SOURCES = 50


def is_number(value: Any) -> TypeGuard[float]:
    """Tell a finite number (numpy's too) from nan, None and everything else."""
    return isinstance(value, Real) and math.isfinite(value)


def format_number(value: Any) -> str:
    """Write a float with three decimals and an undefined one as ``n/a``."""
    return f"{value:.3f}" if is_number(value) else "n/a"


def format_interval(entry: Mapping[str, Any] | None) -> str:
    """Write ``{"value", "low", "high"}`` as ``0.912 [0.880, 0.941]``.

    Parameters
    ----------
    entry : mapping or None
        ``low`` and ``high`` may be missing, nan or None: then they read ``[n/a]``.

    Returns
    -------
    str
        ``n/a`` alone where the value itself is undefined.
    """
    entry = entry or {}
    if not is_number(entry.get("value")):
        return "n/a"
    low, high = entry.get("low"), entry.get("high")
    bounds = f"{low:.3f}, {high:.3f}" if is_number(low) and is_number(high) else "n/a"
    return f"{entry['value']:.3f} [{bounds}]"


def format_metric(name: str, entry: Mapping[str, Any] | None) -> str:
    """Write an interval, with the reason where the metric ``name`` is undefined."""
    text = format_interval(entry)
    return f"n/a ({METRIC_GAPS[name]})" if text == "n/a" and name in METRIC_GAPS else text


def format_seconds(seconds: Any) -> str:
    """Write a duration in seconds as ``42 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if not is_number(seconds):
        return "n/a"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s"
    return f"{rest} s" if seconds >= 10 else f"{seconds:.1f} s"


def format_value(value: Any) -> str:
    """Write a setting: floats with four significant digits, mappings as ``key=value`` pairs."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={format_value(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(item) for item in value) or "none"
    return str(value)


def percent(value: float) -> str:
    """Write a share as a whole percentage, kept off 0 and 100 unless it is exactly that."""
    if 0 < value < 0.01:
        return "under 1 %"
    if 0.99 < value < 1:
        return "over 99 %"
    return f"{100 * value:.0f} %"


def metric_names(result: Mapping[str, Any]) -> list[str]:
    """List the metrics of a result, known ones first and in the report's order."""
    metrics = result.get("metrics") or {}
    return [n for n in METRIC_LABELS if n in metrics] + [
        n for n in metrics if n not in METRIC_LABELS
    ]


def explain(result: Mapping[str, Any]) -> list[str]:
    """Say in plain words what the headline numbers mean.

    Parameters
    ----------
    result : mapping
        As :func:`cnnsvm.report.write_report` takes it.

    Returns
    -------
    list of str
        Sentences about the decision, the ranking and the probabilities; not escaped.
    """
    metrics = result.get("metrics") or {}
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


def count_folds(result: Mapping[str, Any]) -> str:
    """Say how many outer folds there were, such as ``3 folds``."""
    n_folds = len(result.get("folds") or [])
    return "1 held-out part" if n_folds == 1 else f"{n_folds} folds"


def caveats(result: Mapping[str, Any]) -> list[str]:
    """Say in plain words how far to trust the numbers, controls first.

    Parameters
    ----------
    result : mapping
        As :func:`cnnsvm.report.write_report` takes it.

    Returns
    -------
    list of str
        Sentences, not escaped.

    References
    ----------
    Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983
    (the rule of three, for intervals of no width).
    """
    sentences = [_control_sentence(result.get("controls") or {})]
    n_sources = result.get("n_sources")
    sentences.append(
        "The intervals come from resampling whole sources: they say how the numbers would vary "
        "with other test pictures of this kind, not with retraining or with other generators."
    )
    if is_number(n_sources) and n_sources < _FEW_SOURCES:
        sentences.append(f"With only {n_sources} sources the intervals themselves are rough.")
    if is_number(n_sources) and _any_without_width(result.get("metrics") or {}):
        sentences.append(
            "An interval of no width means that no source contradicted the value, not certainty: "
            f"after 0 mistakes in n = {n_sources} sources, a rate of mistakes up to 3/n = "
            f"{percent(min(1.0, 3 / n_sources))} remains plausible."
        )
    engines = list(result.get("by_engine") or {})
    if len(engines) == 1:
        made = "one engine" if engines[0] == "unknown" else str(engines[0])
        sentences.append(f"Every fake here was made by {made}: the numbers say nothing of others.")
    return sentences


def _decision_sentence(value: Mapping[str, Any]) -> str:
    found = f"The detector finds {percent(value['recall'])} of the fakes"
    if not is_number(value["balanced_accuracy"]):
        return f"{found}; without real images there is no telling how many it would call fake."
    false_alarms = min(max(1 - 2 * value["balanced_accuracy"] + value["recall"], 0.0), 1.0)
    return f"{found} and calls {percent(false_alarms)} of the real images fake (false alarms)."


def _ranking_sentence(entry: Mapping[str, Any]) -> str:
    sentence = (
        f"Shown one real and one fake image, it rates the fake higher {percent(entry['value'])} of "
        "the time; guessing gives 50 %."
    )
    low, high = entry.get("low"), entry.get("high")
    if not (is_number(low) and is_number(high)):
        return sentence
    if low <= 0.5 <= high:
        sentence += " The interval includes 50 %, so these data do not show that it beats guessing."
    elif high < 0.5:
        sentence += " That is worse than guessing: check that labels and scores mean the same."
    return sentence


def _any_without_width(metrics: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(
        is_number(entry.get("low")) and entry["low"] == entry["value"] == entry.get("high")
        for entry in metrics.values()
    )


def leaking(controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the controls above chance that see no pixels: only a leak explains them."""
    return [
        name
        for name, entry in controls.items()
        if entry.get("verdict") == ABOVE_CHANCE and name in BLIND
    ]


def _control_sentence(controls: Mapping[str, Mapping[str, Any]]) -> str:
    if not controls:
        return (
            "No negative controls were run, so it is not known whether something other than "
            "inpainting gives the fakes away."
        )
    leaks = leaking(controls)
    if leaks:
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
