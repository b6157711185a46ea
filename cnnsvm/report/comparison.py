"""The report on a comparison of runs: a conclusion a pair, and a table of differences."""

from collections.abc import Mapping
from typing import Any

from cnnsvm.report.model import Report, Section, Table
from cnnsvm.report.wording import METRIC_LABELS, is_number

_ALPHA = 0.05
_LOWER_IS_BETTER = ("brier", "ece")


def comparison_report(result: Mapping[str, Any]) -> Report:
    """Make the report on what `cnnsvm.evaluation.comparison.compare_runs` returned."""
    pairs = result["pairs"]
    several = len(pairs) > 1
    notes = [
        "Intervals come from resampling whole sources, p from swapping what two runs say of a "
        "source; both runs see the same sources. They say nothing of other data or retraining."
    ]
    if several:
        notes.append(f"p is adjusted for {len(pairs)} pairs by Holm.")
    if result["same_folds"] is False:
        notes.append(
            "The runs split the images into other folds: part of a difference may be the split."
        )
    return Report(
        {**result, "title": f"Comparison of {', '.join(result['runs'])}"},
        "Comparison",
        findings=[conclude(pair, result) for pair in pairs],
        notes=notes,
        sections=[_section(pair, result["confidence"]) for pair in pairs],
        name="compare",
    )


def conclude(pair: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Say in a sentence which of two runs has the higher balanced accuracy, or that none has."""
    entry = pair["metrics"]["balanced_accuracy"]
    a, b, value, low, high, p = (
        *(pair["a"], pair["b"]),
        *(entry[key] for key in ("value", "low", "high", "p_holm")),
    )
    if not is_number(value) or not is_number(p):
        return f"{a} and {b}: balanced accuracy needs both real and fake images."
    sign = 1 if value >= 0 else -1
    bounds = sorted(sign * bound for bound in (low, high)) if is_number(low) else []
    level = f"{100 * result['confidence']:g} %"
    interval = " to ".join(f"{bound:.3f}" for bound in bounds)
    shown = f"{abs(value):.3f} ({level} interval {interval})" if bounds else f"{abs(value):.3f}"
    tested = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p < _ALPHA:
        better, worse = (a, b) if value > 0 else (b, a)
        return f"{better} is better than {worse} by {shown} of balanced accuracy, {tested}."
    favoured = f" in favour of {a if value > 0 else b}" if round(value, 3) else ""
    return (
        f"No difference between {a} and {b} that {result['n_sources']:,} sources could show: "
        f"balanced accuracy {shown}{favoured}, {tested}."
    )


def _section(pair: Mapping[str, Any], confidence: float) -> Section:
    level = f"difference [{100 * confidence:g} %]"
    rows = [
        [METRIC_LABELS[name], entry["a"], entry["b"], entry, entry["p_holm"], _better(name, pair)]
        for name, entry in pair["metrics"].items()
    ]
    headers = ["metric", pair["a"], pair["b"], level, "p", "better"]
    return Section(f"{pair['a']} and {pair['b']}", [Table(headers, rows, prose=["better"])])


def _better(name: str, pair: Mapping[str, Any]) -> str:
    entry = pair["metrics"][name]
    if not is_number(entry["p_holm"]) or entry["p_holm"] >= _ALPHA:
        return "not shown"
    return str(pair["a"] if (entry["value"] > 0) != (name in _LOWER_IS_BETTER) else pair["b"])
