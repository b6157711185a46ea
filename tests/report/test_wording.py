import numpy as np
import pytest

from cnnsvm.evaluation.metrics import METRICS
from cnnsvm.report.wording import (
    METRIC_GAPS,
    METRIC_LABELS,
    METRIC_MEANINGS,
    format_interval,
    format_seconds,
    format_value,
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
