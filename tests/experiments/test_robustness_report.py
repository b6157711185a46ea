import json

import numpy as np
import pandas as pd
import pytest
from report_contract import HOSTILE, check_report, check_width, is_drawn, words_of

from cnnsvm.evaluation.corruptions import MEANINGS
from cnnsvm.report import write_report
from cnnsvm.report.wording import format_interval, interval_of
from robustness_study.report import describe_robustness, robustness_plot, robustness_report
from robustness_study.study import summarise_robustness

NAMES = ["clean", "jpeg-90", "jpeg-40", "crop"]
LOSS = dict(zip(NAMES, (0, 0.1, 2.2, 0), strict=True))
FACTS = {
    "title": "Robustness: a test",
    "data": "thirty sources",
    "command": "python experiments/robustness.py --folds 2",
    "n_images": 90,
    "n_sources": 30,
    "n_folds": 2,
    "seconds": 75.0,
    "settings": {"backbone": "resnet18"},
    "environment": {"python": "3.11"},
    "warnings": ["files differ"],
    "skipped": [{"path": "broken.png", "reason": "truncated"}],
}
CELLS = ("roc_auc", "roc_auc_change", "balanced_accuracy", "detection_rate", "false_alarm_rate")


@pytest.fixture(scope="module")
def judged():
    rng = np.random.default_rng(0)
    rows = [
        (f"{source}/{kind}.png", f"s{source}", int(kind != "original"), kind, name)
        for name in NAMES
        for source in range(30)
        for kind in ("original", "regenerated", "spliced")
    ]
    table = pd.DataFrame(rows, columns=["path", "source_id", "label", "variant", "corruption"])
    skill = table["variant"].map({"original": -1.2, "regenerated": 2.2, "spliced": 1.4})
    alike = np.tile(rng.normal(0, 1.2, 90), len(NAMES))  # an image's own, in each corruption
    score = alike + rng.normal(skill - table["corruption"].map(LOSS) * table["label"], 0.1)
    chance = 1 / (1 + np.exp(-score))
    return table.assign(score=score, probability=chance, prediction=(score > 0).astype(int))


@pytest.fixture(scope="module")
def summary(judged):
    return summarise_robustness(judged, n_resamples=100)


@pytest.fixture(scope="module")
def shown(judged, summary):
    """The report as page and text."""
    return check_report(robustness_report(judged, summary, FACTS))


def test_the_text_has_every_number(shown, summary):
    _, said = shown
    check_width(said)
    blocks = [block for block in said.split("\n\n") if "fakes against" in block]
    for block, variant in zip(blocks, ("all", "regenerated", "spliced"), strict=True):
        assert block.lower().startswith(variant)
        lines = [line for line in block.splitlines() if line.split()[0] in NAMES]
        rows = summary[summary["variant"] == variant].to_dict("records")
        for line, row in zip(lines, rows, strict=True):
            assert line.split()[0] == row["corruption"]
            assert format_interval(interval_of(row, "roc_auc")) in line
            assert f"{row['false_alarm_rate']:.3f}" in line
            assert f"{row['detection_rate']:.3f}" in line
            assert (format_interval(interval_of(row, "roc_auc_change")) in line) != (
                row["corruption"] == "clean"
            )


def test_the_page_has_every_number(shown, summary):
    page, text = shown
    for row in summary.to_dict("records"):
        for column in CELLS:
            if column != "roc_auc_change" or row["corruption"] != "clean":
                assert format_interval(interval_of(row, column)) in page.cells
        assert f"{row['ece']:.3f}" in page.cells
    for part in ("30 sources, 2 folds", "files differ", "broken.png"):
        assert part in page.said
        assert part in text
    assert MEANINGS["crop"] in page.said
    assert page.tags.count("svg") == 1


def test_what_is_hostile_is_escaped(judged, summary):
    odd = {**FACTS, "title": HOSTILE, "model": HOSTILE, "warnings": [HOSTILE], "data": HOSTILE}
    page, _ = check_report(robustness_report(judged, summary.replace("spliced", HOSTILE), odd))
    assert page.said.count(HOSTILE) >= 3


def test_verdicts_are_shown_where_there_are_some(judged, shown):
    assert "may be unsure" not in shown[1]
    said = np.where(judged["prediction"] == 1, "fake", "original")
    rng = np.random.default_rng(0)
    verdicts = judged.assign(verdict=np.where(rng.random(len(said)) < 0.2, "unsure", said))
    more = summarise_robustness(verdicts, n_resamples=100)
    clean = more[(more["corruption"] == "clean") & (more["variant"] == "all")].iloc[0]
    rate = interval_of(clean, "fakes_unsure_rate")
    report = robustness_report(verdicts, more, FACTS)
    page, text = check_report(report)
    check_width(text)
    assert format_interval(rate) in page.cells
    table = text[text.index("Verdicts, which may be unsure") :].splitlines()
    line = next(line for line in table if line.startswith("  clean"))
    assert line.split()[-1] == f"{rate['value']:.3f}"
    first = json.loads(report.files["robustness.json"])["summary"][0]
    assert first["fakes_unsure_rate"]["value"] == pytest.approx(rate["value"])


def test_words_say_what_the_numbers_do(summary):
    said = " ".join(describe_robustness(summary))
    worst = summary[(summary["corruption"] == "jpeg-40") & (summary["variant"] == "all")]
    assert f"under jpeg-40: ROC AUC {worst['roc_auc'].item():.3f}" in said
    assert "ROC AUC 0.9" in said
    assert "Lower than clean, beyond chance: jpeg-40." in said
    assert "guessing" not in said
    low = summary.copy()
    low.loc[low["corruption"] == "jpeg-40", "roc_auc_low"] = 0.4
    assert "Not shown to beat guessing: jpeg-40." in " ".join(describe_robustness(low))


def test_the_plot_shows_each_variant_with_its_intervals(summary):
    figure = robustness_plot(summary)
    upper, lower = figure.axes
    said = words_of(figure)
    for part in (*NAMES, "all (60 fakes)", "regenerated (30 fakes)", "spliced (30 fakes)"):
        assert part in said
    for axes, column, variants in (
        (upper, "roc_auc", ["all", "regenerated", "spliced"]),
        (lower, "false_alarm_rate", ["all"]),
    ):
        for bars, variant in zip(axes.collections, variants, strict=True):
            part = summary[summary["variant"] == variant]
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            np.testing.assert_allclose(ends, part[[f"{column}_low", f"{column}_high"]])
    marks = [line for line in upper.get_lines() if line.get_marker() not in ("None", None, "")]
    np.testing.assert_allclose(
        marks[0].get_ydata(), summary.loc[summary["variant"] == "all", "roc_auc"]
    )
    assert is_drawn(figure)


def test_one_variant_is_shown_once(judged):
    one = summarise_robustness(judged[judged["variant"] != "spliced"], n_resamples=20)
    page, said = check_report(robustness_report(judged, one, FACTS))
    assert "Regenerated: 30 fakes against 30 originals" in said
    assert "All fakes" not in said
    assert len(robustness_plot(one).axes[0].collections) == 1
    assert "ROC AUC, clean" in page.said  # the cards are of all fakes


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_no_failure(judged, label):
    found = summarise_robustness(judged[judged["label"] == label], n_resamples=20)
    assert "n/a" in check_report(robustness_report(judged, found, FACTS))[1]


def test_without_facts_and_without_clean_there_is_a_report_too(judged):
    found = summarise_robustness(judged[judged["corruption"] == "crop"], n_resamples=20)
    assert "crop" in check_report(robustness_report(judged, found, {}))[1]


def test_files_are_written_and_round_trip(tmp_path, judged, summary):
    out = tmp_path / "new" / "run"
    files = write_report(out, robustness_report(judged, summary, FACTS | {"model": tmp_path}))
    assert set(out.iterdir()) == set(files.values())
    names = ("robustness.html", "robustness.json", "robustness.csv", "robustness-predictions.csv")
    assert set(files) == set(names)
    pd.testing.assert_frame_equal(pd.read_csv(files["robustness.csv"]), summary)
    back = pd.read_csv(files["robustness-predictions.csv"])
    pd.testing.assert_frame_equal(back, judged, check_dtype=False)
    report = json.loads(files["robustness.json"].read_text())
    assert report["model"] == str(tmp_path)
    assert list(report["corruptions"]) == NAMES
    first = report["summary"][4]
    row = summary.iloc[4]
    assert first["corruption"] == "jpeg-90"
    for column in (*CELLS, "ece"):
        assert first[column] == pytest.approx(interval_of(row, column))
