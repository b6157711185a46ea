import numpy as np
import pytest
from engine_records import DETECTOR, ENGINES, N_SOURCES, detector_of, write_records
from sklearn.metrics import roc_auc_score

from cnnsvm.evaluation.bootstrap import bootstrap_metrics, paired_difference
from transfer_study.study import measure_transfer, plan_fits
from transfer_study.summary import summarise_transfer


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run with everything."""
    manifest = write_records(tmp_path_factory.mktemp("own"), ENGINES, range(N_SOURCES))
    folder = tmp_path_factory.mktemp("far")
    external = write_records(folder, {"unheard of": 0.9}, range(50, 56), "far-")
    return measure_transfer(DETECTOR, manifest, {"far": external}, growth=True, n_splits=3)


@pytest.fixture(scope="module")
def summary(judged):
    return summarise_transfer(judged, n_resamples=60)


def part_of(judged, row):
    rows = detector_of(judged, row["fit"], row["held_out"], row["n_families"])
    rows = rows[rows["data"] == (row["judged"] if row["external"] else "")]
    part = rows[(rows["label"] == 0) | (rows["family"] == row["judged"])]
    return (
        part
        if row["variant"] == "all"
        else part[part["variant"].isin(["original", row["variant"]])]
    )


def is_mean(summary):
    return summary["judged"].str.startswith("mean")


def test_the_summary_is_what_scikit_learn_says(summary, judged):
    single = summary[~is_mean(summary)]
    assert len(single) == 3 * (4 + 4 + 3 + 2 + 7)  # families, and far by seven detectors
    assert single["roc_auc"].between(0.1, 0.95).any()  # there are mistakes to count
    for row in single.to_dict("records"):
        part = part_of(judged, row)
        truth, called = part["label"], part["prediction"]
        assert row["roc_auc"] == pytest.approx(roc_auc_score(truth, part["score"]))
        assert row["detection_rate"] == pytest.approx(called[truth == 1].mean())
        assert row["false_alarm_rate"] == pytest.approx(called[truth == 0].mean())
        assert row["n_fakes"] == truth.sum()
        assert row["n_originals"] == (truth == 0).sum()


def test_intervals_are_those_of_resampled_sources(summary, judged):
    row = summary[(summary["held_out"] == "a") & (summary["variant"] == "spliced")]
    row = row.iloc[0].to_dict()
    assert row["judged"] == "a"
    part = part_of(judged, row)
    expected = bootstrap_metrics(part, 60)
    for end in ("low", "high"):
        assert row[f"roc_auc_{end}"] == pytest.approx(expected["roc_auc"][end])
        assert row[f"detection_rate_{end}"] == pytest.approx(expected["recall"][end])
    seen = part_of(judged, row | {"fit": "none held out", "held_out": "", "n_families": 4})
    change = paired_difference(part, seen, "roc_auc", 60)
    for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
        assert row[f"roc_auc_change{end}"] == pytest.approx(change[key])


def test_means_count_every_family_once(summary):
    for variant in ("all", "spliced"):
        part = summary[(summary["variant"] == variant) & ~summary["external"]]
        for fit in ("held out", "none held out"):
            rows = part[part["fit"] == fit]
            mean = rows[rows["judged"] == "mean"].iloc[0]
            others = rows[~is_mean(rows)]
            assert mean["n_averaged"] == len(others) == 4
            for column in ("roc_auc", "detection_rate", "false_alarm_rate"):
                assert mean[column] == pytest.approx(others[column].mean())
            assert np.isnan(mean["roc_auc_low"])
        grown = part[part["fit"] == "first"]
        order = [fit.families for fit in plan_fits(list(ENGINES), True)[5:]]
        for families in order:
            rows = grown[grown["n_families"] == len(families)].set_index("judged")["roc_auc"]
            assert rows["mean"] == pytest.approx(rows[list(set(ENGINES) - set(families))].mean())
            never = list(set(ENGINES) - set(order[-1]))
            assert rows["mean of those never added"] == pytest.approx(rows[never].mean())


def test_fakes_are_set_against_originals_of_their_records(judged):
    rows = judged.copy()
    own = rows["data"] == ""
    small = own & (rows["family"].isin(["a", "b:1"]) | (rows["path"].str.endswith("-0.png")))
    rows["record"] = np.where(small, "small", "large")
    found = summarise_transfer(rows, n_resamples=5)
    left = found[(found["fit"] == "held out") & ~found["external"] & (found["variant"] == "all")]
    counts = left.set_index("judged")["n_originals"]
    n_small = rows.loc[(rows["fit"] == "none held out") & own & (rows["label"] == 0), "record"]
    assert counts["a"] == (n_small == "small").sum()
    assert counts["c"] == (n_small == "large").sum()
    nowhere = summarise_transfer(rows.assign(record=None), n_resamples=5)
    left = nowhere[(nowhere["fit"] == "held out") & (nowhere["judged"] == "a")]
    assert (left["n_originals"] == N_SOURCES / 3).all()


def test_a_family_without_fakes_in_the_test_part_is_not_hidden(judged):
    part = judged[judged["family"] != "a"]
    found = summarise_transfer(part, n_resamples=5)
    row = found[(found["held_out"] == "a") & (found["judged"] == "a")].iloc[0]
    assert row["n_fakes"] == 0
    assert np.isnan(row["roc_auc"])
    mean = found[(found["fit"] == "held out") & (found["judged"] == "mean")].iloc[0]
    assert mean["n_averaged"] == 3
    assert mean["roc_auc"] > 0
