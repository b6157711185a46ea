import numpy as np
import pytest

from cnnsvm.evaluation.metrics import METRICS
from cnnsvm.report.wording import (
    METRIC_GAPS,
    METRIC_LABELS,
    METRIC_MEANINGS,
    caveats,
    explain,
    format_interval,
    format_metric,
    format_seconds,
    format_value,
    leaking,
    percent,
)


def test_every_metric_has_a_name_a_meaning_and_a_reason_to_be_undefined():
    assert set(METRICS) == set(METRIC_LABELS) == set(METRIC_MEANINGS) == set(METRIC_GAPS)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"value": 0.9123, "low": 0.88, "high": 0.9409}, "0.912 [0.880, 0.941]"),
        ({"value": np.float32(0.5), "low": None, "high": None}, "0.500 [n/a]"),
        ({"value": float("nan"), "low": 0.1, "high": 0.2}, "n/a"),
        ({"value": None}, "n/a"),
        (None, "n/a"),
    ],
)
def test_intervals_have_three_decimals_and_say_when_they_are_undefined(entry, text):
    assert format_interval(entry) == text


def test_an_undefined_metric_says_why():
    assert format_metric("precision", {"value": None}) == "n/a (nothing was called fake)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (42, "42 s"), (185, "3 min 5 s"), (7800.4, "2 h 10 min"), (None, "n/a")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.23456789e-5, "1.235e-05"),
        (True, "True"),
        (None, "None"),
        ({"C": 2.0, "kernel": "rbf"}, "C=2, kernel=rbf"),
        (["a", 1], "a, 1"),
        ({}, "none"),
    ],
)
def test_settings_are_short(value, text):
    assert format_value(value) == text


def test_a_percentage_is_never_rounded_to_certainty():
    assert [percent(v) for v in (0, 0.004, 0.5, 0.996, 1)] == [
        "0 %",
        "under 1 %",
        "50 %",
        "over 99 %",
        "100 %",
    ]


def test_the_false_alarm_rate_follows_from_recall_and_balanced_accuracy():
    metrics = {"recall": {"value": 0.8}, "balanced_accuracy": {"value": 0.75}}
    assert "80 % of the fakes and calls 30 % of the real" in explain({"metrics": metrics})[0]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0.45, 0.6, "do not show"), (0.2, 0.4, "worse than guessing"), (0.6, 0.8, None)],
)
def test_the_ranking_is_held_against_guessing(low, high, text):
    entry = {"value": (low + high) / 2, "low": low, "high": high}
    sentence = " ".join(explain({"metrics": {"roc_auc": entry}}))
    assert (text in sentence) if text else sentence.endswith("guessing gives 50 %.")


def control(verdict, value=0.7):
    return {"verdict": verdict, "roc_auc": {"value": value, "low": value, "high": value}}


@pytest.mark.parametrize(
    ("controls", "text"),
    [
        ({}, "No negative controls were run"),
        ({"metadata": "near chance", "file_size": "near chance"}, "no sign"),
        (
            {"metadata": "above chance"},
            "Warning: above chance without seeing inpainting: metadata.",
        ),
        ({"shuffled_labels": "above chance", "file_size": "above chance"}, "The data leak"),
        ({"metadata": "near chance", "file_size": "above chance"}, "file_size (0.700)"),
        ({"colour_histogram": "slightly above chance"}, "only what the detector has beyond them"),
        ({"metadata": "undefined"}, "No control is above chance; below it or undefined: metadata"),
    ],
)
def test_controls_are_judged_first(controls, text):
    entries = {name: control(verdict) for name, verdict in controls.items()}
    assert text in caveats({"controls": entries})[0]


def test_only_controls_without_pixels_prove_a_leak():
    entries = {name: control("above chance") for name in ("metadata", "colour_histogram")}
    assert leaking(entries) == ["metadata"]


def test_few_sources_one_engine_and_perfect_scores_are_pointed_out():
    perfect = {"recall": {"value": 1.0, "low": 1.0, "high": 1.0}}
    said = " ".join(caveats({"n_sources": 12, "by_engine": {"vae:a": {}}, "metrics": perfect}))
    assert "only 12 sources" in said
    assert "made by vae:a" in said
    assert "3/n = 25 %" in said
    many = " ".join(caveats({"n_sources": 500, "by_engine": {"a": {}, "b": {}}, "metrics": {}}))
    assert "sources the intervals" not in many
    assert "made by" not in many
    assert "no width" not in many
