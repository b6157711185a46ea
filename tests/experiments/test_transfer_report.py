import json

import numpy as np
import pandas as pd
import pytest
from report_contract import HOSTILE, check_report, check_width, is_drawn, words_of

from cnnsvm.report import write_report
from cnnsvm.report.wording import format_interval, interval_of
from transfer_study.plot import transfer_plot
from transfer_study.report import describe_transfer, transfer_report
from transfer_study.study import plan_fits
from transfer_study.summary import summarise_transfer

SKILL = {"vae:a": 2.5, "vae:some-community/a-very-long-autoencoder": 1.5, "diffusion": 0.3}
SKILL |= {"opencv-telea": 0.9, "opencv-ns": 1.1}
FACTS = {
    "title": "Unseen engines: a test",
    "data": "thirty sources",
    "command": "python experiments/leave_one_out.py --growth",
    "n_images": 330,
    "n_sources": 30,
    "split": "1 of 5 folds as test part",
    "seconds": 75.0,
    "settings": {"backbone": "resnet18"},
    "environment": {"python": "3.11"},
    "warnings": ["files differ"],
    "skipped": [{"path": "broken.png", "reason": "truncated"}],
}
METRICS = ("roc_auc", "roc_auc_change", "detection_rate", "false_alarm_rate")


def judge(fit, data, engines, rng):
    rows = [
        (f"{data}{s}/{variant}/{engine}", f"{data}{s}", int(engine is not None), variant, engine)
        for s in range(30)
        for engine in (None, *engines)
        for variant in (("regenerated", "spliced") if engine else ("original",))
    ]
    table = pd.DataFrame(rows, columns=["path", "source_id", "label", "variant", "engine"])
    seen = table["engine"].isin(fit.families)
    skill = table["engine"].map(SKILL).fillna(0.8) * (0.6 + 0.1 * len(fit.families)) + seen
    skill *= table["variant"].map({"original": 0, "regenerated": 1, "spliced": 0.6})
    score = rng.normal(skill * table["label"] - 0.7, 1)
    table = table.assign(score=score, probability=1 / (1 + np.exp(-score)), data=data)
    facts = {"fit": fit.name, "held_out": fit.held_out, "n_families": len(fit.families)}
    table["family"] = data if data else table["engine"]
    table.loc[table["label"] == 0, "family"] = None
    return table.assign(record=None, prediction=(score > 0).astype(int), **facts)


@pytest.fixture(scope="module")
def judged():
    rng = np.random.default_rng(0)
    parts = []
    for fit in plan_fits(list(SKILL), growth=True):
        unseen = [name for name in SKILL if fit.name == "none held out" or name not in fit.families]
        parts += [judge(fit, "", unseen, rng), judge(fit, "repaint", ["repaint"], rng)]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def summary(judged):
    return summarise_transfer(judged, n_resamples=100)


@pytest.fixture(scope="module")
def plain(judged):
    """One variant, no growth, no other data."""
    rows = (judged["data"] == "") & (judged["fit"] != "first") & (judged["variant"] != "spliced")
    return summarise_transfer(judged[rows], n_resamples=50)


def held_out(summary):
    rows = summary[(summary["fit"] == "held out") & ~summary["external"]]
    return rows[rows["judged"] == rows["held_out"]].to_dict("records")


@pytest.fixture(scope="module")
def shown(judged, summary):
    """The report as page and text."""
    return check_report(transfer_report(judged, summary, FACTS))


def test_page_and_text_have_every_number(shown, summary):
    page, text = shown
    check_width(text)
    for variant in ("All fakes", "Regenerated", "Spliced"):
        for table in ("engines left out of training", "other data sets", "more engines"):
            assert f"{variant}: {table}" in text
    for row in held_out(summary):
        assert f"{row['judged']} ({row['n_fakes']})" in page.cells
        for column in METRICS:
            assert format_interval(interval_of(row, column)) in page.cells
        for column in METRICS[:2]:
            assert format_interval(interval_of(row, column)) in text
    far = summary[summary["external"] & (summary["fit"] == "none held out")].to_dict("records")
    assert len(far) == 3
    for row in far:
        assert format_interval(interval_of(row, "false_alarm_rate")) in page.cells
    grown = summary[(summary["fit"] == "first") & summary["judged"].str.startswith("mean")]
    assert len(grown) == 3 * 3 * 2  # variants, sizes, both means
    for value in grown["roc_auc"]:
        assert f"{value:.3f}" in page.cells
    for words in ("1 of 5 folds", "files differ", "broken.png", "plain mean"):
        assert words in page.said
        assert words in " ".join(text.split())


def test_engines_come_hardest_first_and_their_mean_last(shown, summary):
    blocks = shown[1].split("\n\n")
    block = next(b for b in blocks if b.startswith("All fakes: engines left out"))
    rows = summary[(summary["fit"] == "held out") & (summary["variant"] == "all")]
    rows = rows[~rows["external"] & (rows["judged"] != "mean")].sort_values("roc_auc")
    places = [block.index(name) for name in [*rows["judged"], "mean"]]
    assert places == sorted(places)
    mean = block.splitlines()[-1].split()
    assert mean[:2] == ["mean", f"{rows['roc_auc'].mean():.3f}"]


def test_the_range_over_detectors_is_that_of_one_family_left_out(shown, summary):
    rows = summary[summary["external"] & (summary["variant"] == "spliced")]
    values = rows.loc[rows["fit"] == "held out", "roc_auc"]
    assert len(values) == len(SKILL)
    assert {f"{values.min():.3f}", f"{values.max():.3f}"} <= set(shown[0].cells)


def test_the_words_are_those_of_the_numbers(summary):
    said = " ".join(describe_transfer(summary))
    rows = summary[(summary["variant"] == "all") & (summary["judged"] == "mean")]
    for fit in ("held out", "none held out"):
        assert f"{rows.loc[rows['fit'] == fit, 'roc_auc'].item():.3f}" in said
    assert "in the mean of 5" in said
    assert "The hardest is diffusion: ROC AUC" in said
    assert "On repaint, never trained on: ROC AUC" in said


def test_what_is_not_measured_is_not_mentioned(judged, plain):
    _, said = check_report(transfer_report(judged, plain, {}))
    assert "Regenerated: engines left out" in said
    assert "All fakes" not in said
    assert "data set" not in said
    assert "never added" not in said
    figure = transfer_plot(plain)
    assert len(figure.axes) == 1
    assert "grey" not in words_of(figure)


def test_the_plot_says_what_is_in_it(summary):
    figure = transfer_plot(summary)
    said = words_of(figure)
    upper, lower = figure.axes
    for words in ("diffusion", "mean", "repaint", "spliced", "not in training", "grey"):
        assert words in said
    assert "the same engines throughout" in said
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["1", "2", "4", "5"]
    drawn = [line.get_xdata() for line in upper.get_lines() if len(line.get_xdata()) > 2]
    rows = pd.DataFrame(held_out(summary))
    values = rows[rows["variant"] == "spliced"]["roc_auc"]
    assert any(set(values) <= set(np.round(points, 12)) | set(points) for points in drawn)
    assert is_drawn(figure)


def test_names_are_escaped(judged):
    hostile = judged.replace({"family": {"diffusion": HOSTILE}, "held_out": {"diffusion": HOSTILE}})
    summary = summarise_transfer(hostile, n_resamples=5)
    page, _ = check_report(transfer_report(judged, summary, {"title": HOSTILE}))
    assert HOSTILE in page.said


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_no_failure(judged, label):
    found = summarise_transfer(judged[judged["label"] == label], n_resamples=5)
    _, text = check_report(transfer_report(judged, found, FACTS))
    assert "No metric is defined" in text


def test_files_are_written_and_round_trip(judged, summary, tmp_path):
    files = write_report(tmp_path / "out", transfer_report(judged, summary, FACTS))
    assert sorted(files) == [
        *("leave-one-out-predictions.csv", "leave-one-out.csv"),
        *("leave-one-out.html", "leave-one-out.json"),
    ]
    table = pd.read_csv(files["leave-one-out.csv"], keep_default_na=True)
    np.testing.assert_allclose(table["roc_auc"], summary["roc_auc"])
    report = json.loads(files["leave-one-out.json"].read_text())
    assert len(report["summary"]) == len(summary)
    entry = next(e for e in report["summary"] if e["judged"] == "mean")
    assert entry["roc_auc"]["low"] is None
    assert entry["n_averaged"] == 5
    assert report["skipped"] == FACTS["skipped"]
    assert len(pd.read_csv(files["leave-one-out-predictions.csv"])) == len(judged)
