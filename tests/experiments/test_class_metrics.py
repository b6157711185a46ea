import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from robustness_study.class_metrics import class_metrics, verdict_metrics


def predictions(n_sources=40, right=0.8, confidence=0.8, seed=0):
    rng = np.random.default_rng(seed)
    kinds = ["original", "regenerated", "spliced", "spliced"]
    truth = np.array(kinds * n_sources)
    named = np.where(rng.random(len(truth)) < right, truth, rng.permutation(truth))
    sources = np.repeat([f"s{i}" for i in range(n_sources)], len(kinds))
    columns = {"source_id": sources, "variant": truth, "named": named, "confidence": confidence}
    return pd.DataFrame(columns)


def test_balanced_accuracy_is_scikit_learns():
    table = predictions()
    found = class_metrics(table)["class_balanced_accuracy"]
    expected = balanced_accuracy_score(table["variant"], table["named"])
    assert found["value"] == pytest.approx(expected)
    assert found["low"] < found["value"] < found["high"]


def test_ece_is_the_gap_between_confidence_and_accuracy():
    table = predictions(confidence=0.5)
    accuracy = (table["named"] == table["variant"]).mean()
    assert class_metrics(table)["class_ece"]["value"] == pytest.approx(accuracy - 0.5, abs=1e-9)


def test_more_sources_narrow_the_interval():
    widths = []
    for n_sources in (20, 320):
        found = class_metrics(predictions(n_sources))["class_balanced_accuracy"]
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 2.5


def test_copies_of_a_source_narrow_nothing():
    table = predictions(30)
    once = class_metrics(table)["class_balanced_accuracy"]
    thrice = class_metrics(pd.concat([table] * 3))["class_balanced_accuracy"]
    assert thrice == pytest.approx(once)


def test_one_source_has_no_interval_and_missing_columns_are_named():
    found = class_metrics(predictions(1))["class_balanced_accuracy"]
    assert np.isnan(found["low"])
    with pytest.raises(ValueError, match="'named' is missing"):
        class_metrics(predictions().drop(columns="named"))


def test_verdicts_are_counted_among_originals_and_among_fakes():
    said = ["original", "unsure", "fake", "original", "fake", "fake", "unsure", "original"]
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    sources = ["a", "b", "c", "d"] * 2
    table = pd.DataFrame({"source_id": sources, "label": labels, "verdict": said})
    found = {name: rate["value"] for name, rate in verdict_metrics(table, 200).items()}
    assert found == {
        "verdict_false_alarm_rate": 0.25,
        "verdict_detection_rate": 0.5,
        "verdict_miss_rate": 0.25,
        "fakes_unsure_rate": 0.25,
        "originals_unsure_rate": 0.25,
    }
    more = pd.concat([table, table[table["label"] == 1]])  # more fakes move no rate
    again = {name: rate["value"] for name, rate in verdict_metrics(more, 200).items()}
    assert again == found


def test_rates_of_verdicts_have_intervals_over_sources():
    rng = np.random.default_rng(0)
    n_sources = 50
    table = pd.DataFrame(
        {
            "source_id": [f"s{i}" for i in range(n_sources)] * 2,
            "label": np.repeat([0, 1], n_sources),
            "verdict": rng.choice(["original", "fake", "unsure"], 2 * n_sources),
        }
    )
    for rate in verdict_metrics(table).values():
        assert 0 < rate["low"] < rate["value"] < rate["high"] < 1
    originals = verdict_metrics(table[table["label"] == 0])
    assert np.isnan(originals["verdict_detection_rate"]["value"])
    assert originals["originals_unsure_rate"]["value"] > 0
