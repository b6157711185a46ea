import io
import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.report.render import to_png
from cnnsvm.report.wording import format_interval
from transfer_study.plot import transfer_plot
from transfer_study.report import (
    describe_transfer,
    format_transfer,
    render_transfer,
    write_transfer,
)
from transfer_study.study import plan_fits
from transfer_study.summary import summarise_transfer

SKILL = {"vae:a": 2.5, "vae:some-community/a-very-long-autoencoder": 1.5, "diffusion": 0.3}
SKILL |= {"opencv-telea": 0.9, "opencv-ns": 1.1}
HOSTILE = '<script>alert(1)</script>" onerror="alert(2)'
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
    "warnings": ["histories differ"],
    "skipped": [{"path": "broken.png", "reason": "truncated"}],
}
METRICS = ("roc_auc", "roc_auc_change", "detection_rate", "false_alarm_rate")


class Words(HTMLParser):
    """Collect the cells of a page's tables, and check that tags close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


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


def texts(figure):
    return " | ".join(t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text")))


def spread(row, column):
    ends = (("value", ""), ("low", "_low"), ("high", "_high"))
    return {key: row[f"{column}{end}"] for key, end in ends}


def held_out(summary):
    rows = summary[(summary["fit"] == "held out") & ~summary["external"]]
    return rows[rows["judged"] == rows["held_out"]].to_dict("records")


def test_the_text_has_every_number(summary):
    said = format_transfer(summary, FACTS)
    assert max(map(len, said.splitlines())) <= 98
    for variant in ("All fakes", "Regenerated", "Spliced"):
        for table in ("engines left out of training", "other data sets", "more engines"):
            assert f"{variant}: {table}" in said
    for row in held_out(summary):
        line = format_interval(spread(row, "roc_auc"))
        assert line in said
        assert format_interval(spread(row, "roc_auc_change")) in said
    for words in ("1 of 5 folds", "Warning: histories differ", "1 image(s) left out", "plain mean"):
        assert words in said.replace("\n", " ")


def test_engines_come_hardest_first_and_their_mean_last(summary):
    block = format_transfer(summary, FACTS).split("\n\n")[1]
    rows = summary[(summary["fit"] == "held out") & (summary["variant"] == "all")]
    rows = rows[~rows["external"] & (rows["judged"] != "mean")].sort_values("roc_auc")
    places = [block.index(name) for name in [*rows["judged"], "mean"]]
    assert places == sorted(places)
    mean = block.splitlines()[-1].split()
    assert mean[:2] == ["mean", f"{rows['roc_auc'].mean():.3f}"]


def test_the_page_has_every_number_and_nothing_from_elsewhere(summary):
    page = render_transfer(summary, FACTS)
    cells = Words(page).cells
    for row in held_out(summary):
        assert f"{row['judged']} ({row['n_fakes']})" in cells
        for column in METRICS:
            assert format_interval(spread(row, column)) in cells
    far = summary[summary["external"] & (summary["fit"] == "none held out")].to_dict("records")
    assert len(far) == 3
    for row in far:
        assert format_interval(spread(row, "false_alarm_rate")) in cells
    grown = summary[(summary["fit"] == "first") & summary["judged"].str.startswith("mean")]
    assert len(grown) == 3 * 3 * 2  # variants, sizes, both means
    for value in grown["roc_auc"]:
        assert f"{value:.3f}" in cells
    for token in ("http://", "https://", "<script", "<link"):
        assert token not in page.replace("http://www.w3.org", "")


def test_the_range_over_detectors_is_that_of_one_family_left_out(summary):
    rows = summary[summary["external"] & (summary["variant"] == "spliced")]
    values = rows.loc[rows["fit"] == "held out", "roc_auc"]
    assert len(values) == len(SKILL)
    cells = Words(render_transfer(summary, FACTS)).cells
    assert f"{values.min():.3f}" in cells
    assert f"{values.max():.3f}" in cells


def test_the_words_are_those_of_the_numbers(summary):
    said = " ".join(describe_transfer(summary))
    rows = summary[(summary["variant"] == "all") & (summary["judged"] == "mean")]
    for fit in ("held out", "none held out"):
        assert f"{rows.loc[rows['fit'] == fit, 'roc_auc'].item():.3f}" in said
    assert "in the mean of 5" in said
    assert "The hardest is diffusion: ROC AUC" in said
    assert "On repaint, never trained on: ROC AUC" in said


def test_what_is_not_measured_is_not_mentioned(plain):
    said = format_transfer(plain, {})
    assert "Regenerated: engines left out" in said
    assert "All fakes" not in said
    assert "data set" not in said
    assert "never added" not in said
    figure = transfer_plot(plain)
    assert len(figure.axes) == 1
    assert "grey" not in texts(figure)
    assert Words(render_transfer(plain, {})).cells


def test_the_plot_says_what_is_in_it(summary):
    figure = transfer_plot(summary)
    said = texts(figure)
    upper, lower = figure.axes
    for words in ("diffusion", "mean", "repaint", "spliced", "not in training", "grey"):
        assert words in said
    assert "the same engines throughout" in said
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["1", "2", "4", "5"]
    drawn = [line.get_xdata() for line in upper.get_lines() if len(line.get_xdata()) > 2]
    rows = pd.DataFrame(held_out(summary))
    values = rows[rows["variant"] == "spliced"]["roc_auc"]
    assert any(set(values) <= set(np.round(points, 12)) | set(points) for points in drawn)
    pixels = np.asarray(Image.open(io.BytesIO(to_png(figure))).convert("L"))
    assert pixels.std() > 5


def test_names_are_escaped(judged):
    hostile = judged.replace({"family": {"diffusion": HOSTILE}, "held_out": {"diffusion": HOSTILE}})
    page = render_transfer(summarise_transfer(hostile, n_resamples=5), {"title": HOSTILE})
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    Words(page)


def test_one_class_alone_is_no_failure(judged):
    for label in (0, 1):
        found = summarise_transfer(judged[judged["label"] == label], n_resamples=5)
        assert "No metric is defined" in format_transfer(found, FACTS)
        assert render_transfer(found, FACTS)


def test_files_are_written_and_round_trip(judged, summary, tmp_path):
    files = write_transfer(tmp_path / "out", judged, summary, FACTS)
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
