"""What the numbers of an evaluation mean in sentences, and how far they can be trusted."""

from collections.abc import Mapping
from typing import Any

from cnnsvm.evaluation.negative_controls import ABOVE_CHANCE, BLIND, NEAR_CHANCE, SLIGHTLY_ABOVE
from cnnsvm.report.wording import METRIC_LABELS, format_number, is_number, percent

_FEW_SOURCES = 50


def headline(result: Mapping[str, Any]) -> str:
    """Conclude in one sentence, "" without both classes: how well, on what, and what spoils it.

    ``result`` is that of an `evaluation_report`.
    """
    entry = (result.get("metrics") or {}).get("balanced_accuracy") or {}
    value, low, high = (entry.get(key) for key in ("value", "low", "high"))
    if not is_number(value):
        return ""
    level = f"{100 * result.get('confidence', 0.95):g} %"
    known = is_number(low) and is_number(high)
    interval = f"{level} interval {low:.3f} to {high:.3f}; " if known else ""
    sentence = f"Balanced accuracy {value:.3f} ({interval}guessing is 0.5)"
    if is_number(result.get("n_sources")):
        sentence += f" on images from {result['n_sources']:,} sources that it never saw"
    if is_leaking(result):
        return f"{sentence}, but the data leak: it may have seen the leak, not the inpainting."
    if is_number(low) and low <= 0.5:
        return f"{sentence}: these data do not show it to beat guessing."
    return f"{sentence}."


def is_leaking(result: Mapping[str, Any]) -> bool:
    """Tell whether the audit or a control without pixels finds that the data leak."""
    audit, controls = result.get("audit") or {}, result.get("controls") or {}
    return bool(leaking(controls)) or audit.get("verdict") == "leak"


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
    """Say in plain words how far to trust the numbers of an `evaluation_report`, leaks first.

    Intervals of no width get the rule of three (Hanley and Lippman-Hand, "If nothing goes wrong, is
    everything all right?", JAMA 249, 1983).
    """
    sentences = [
        *_leak_sentences(result.get("audit"), result.get("controls") or {}),
        *map(str, result.get("warnings") or []),
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
    engines = result.get("by_engine")
    if engines is not None and len(engines) < 2:
        engine = next(iter(engines), "unknown")
        made = f"Every fake here was made by {engine}"
        made = "By which engine the fakes were made is unknown" if engine == "unknown" else made
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
    if leaking(controls):
        return [seen]
    found = f"An audit of the {audit['n_images']} files that were judged finds no leak"
    unseen = [check["name"] for check in audit["checks"] if check["verdict"] == "not checked"]
    return [seen, f"{found}; it could not check {', '.join(unseen)}." if unseen else f"{found}."]


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
