import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report_contract import check_report

from cnnsvm import CNNEmbedder, InpaintDetector
from cnnsvm.data.images import ImageError
from cnnsvm.detection.pretrained import frozen_embedders
from cnnsvm.evaluation.mistakes import worst_mistakes
from cnnsvm.report.evaluation import evaluation_report
from cnnsvm.report.mistakes import frozen_explainer


@pytest.fixture
def wrong():
    """Build ten false alarms, ten misses and two right decisions."""
    table = pd.DataFrame({"label": [0] * 10 + [1] * 10 + [0, 1]})
    table["prediction"] = [1] * 10 + [0] * 10 + [0, 1]
    table["probability"] = [0.5 + 0.04 * i for i in range(10)] + [0.04 * i for i in range(12)]
    table["path"] = [f"/data/set/{i}.png" for i in range(22)]
    return table.assign(mask_schema=None, variant="spliced", engine="vae:a")


def section_of(report, title):
    return next(section for section in report.sections if section.title == title)


def _mistakes(report):
    galleries = section_of(report, "Most confident mistakes").blocks
    return [exhibit for gallery in galleries for exhibit in gallery.exhibits]


def test_the_surest_mistakes_come_first(wrong, loader):
    names = [list(rows["path"].str[10:-4].astype(int)) for rows in worst_mistakes(wrong).values()]
    assert names == [list(range(9, -1, -1)), list(range(10, 20))]
    sources = wrong["path"]
    result = {"folds": [{"fold": 0.0, "threshold": 0.25}]}
    report = evaluation_report(result, wrong.assign(**ROW | {"source_id": sources}), loader=loader)
    alarms, misses = section_of(report, "Most confident mistakes").blocks
    assert [exhibit.path for exhibit in alarms.exhibits] == [f"{i}.png" for i in range(9, 1, -1)]
    assert "8" in misses.note
    assert "10" in misses.note
    first = ["probability 0.860, threshold 0.250", "real, called fake", "spliced, vae:a"]
    assert alarms.exhibits[0].lines == first


def test_a_source_is_shown_once_with_how_many_more_of_it(wrong, loader):
    rows = wrong.assign(**ROW | {"source_id": ["a", "b"] * 11})
    section = section_of(evaluation_report({}, rows, loader=loader), "Most confident mistakes")
    alarms, _ = section.blocks
    assert [exhibit.path for exhibit in alarms.exhibits] == ["9.png", "8.png"]
    assert all("and 4 more of this source" in exhibit.lines for exhibit in alarms.exhibits)
    assert alarms.note == "10 in all; shown: all 2 sources that have any."


def test_mistakes_have_heatmaps_where_they_are_known(wrong, loader):
    rows = wrong.assign(**ROW | {"source_id": wrong["path"]})
    known = {"/data/set/9.png": np.ones((30, 20), dtype=np.float32)}
    report = evaluation_report({}, rows, loader=loader, explain=known.get)
    first, *others = _mistakes(report)
    image, heat = (Image.open(io.BytesIO(shown.data)) for shown in first.thumbnails)
    red, _, blue = np.asarray(heat).mean(axis=(0, 1))
    assert heat.size == image.size
    assert red > blue + 50
    assert all(len(exhibit.thumbnails) == 1 for exhibit in others)
    page, _ = check_report(report)
    assert "Yellow is where" in page.said
    page, _ = check_report(evaluation_report({}, rows, loader=loader, explain={}.get))
    assert "Yellow is where" not in page.said


def test_only_networks_that_no_fold_trains_explain(tmp_path):
    assert frozen_explainer(InpaintDetector(CNNEmbedder(weights=None))) is None
    untrained = CNNEmbedder(weights=None, finetune="none")
    assert frozen_explainer(InpaintDetector(untrained)) is None
    shipped = InpaintDetector(frozen_embedders("cnnsvm"))
    explain = frozen_explainer(shipped)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    heat = explain(str(tmp_path / "noise.png"))
    assert heat.shape == (90, 80)
    assert 0 <= heat.min() <= heat.max() <= 1


ROW = {"source_id": "s", "fold": 0, "score": 0.0}


def test_no_mistakes_are_good_news(wrong, loader):
    report = evaluation_report({}, wrong.iloc[20:].assign(**ROW), loader=loader)
    page, _ = check_report(report)
    assert page.said.count("None.") == 2


def test_a_sample_tells_truth_and_decision(wrong, loader):
    (sample,) = section_of(
        evaluation_report({}, wrong.assign(**ROW), loader=loader), "A random sample"
    ).blocks
    labels = wrong.assign(name=wrong["path"].str[10:]).set_index("name")
    assert len(sample.exhibits) == 12
    for exhibit in sample.exhibits:
        row = labels.loc[exhibit.path]
        truth, called = ("fake" if row[k] else "real" for k in ("label", "prediction"))
        assert exhibit.lines[1] == f"{truth}, called {called}"


def test_an_unreadable_image_gets_a_placeholder(wrong, caplog):
    def fail(path):
        raise ImageError(f"{path}: truncated")

    page, _ = check_report(evaluation_report({}, wrong.assign(**ROW), loader=fail))
    assert page.said.count("not available") == 2 + 12
    assert page.tags.count("img") == 0
    assert "9.png: truncated" in caplog.text
