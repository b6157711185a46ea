import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def run(finished):
    found = finished("robustness")
    return found.arguments, found.out


@pytest.fixture(scope="module")
def script(finished):
    return finished("robustness").script


def test_all_images_are_judged_clean_and_degraded(run):
    table = pd.read_csv(run[1] / "robustness-predictions.csv")
    assert table["corruption"].unique().tolist() == ["clean", "jpeg-75", "crop"]
    assert (table.groupby("corruption")["path"].nunique() == 36).all()
    assert (table.groupby("source_id")["fold"].nunique() == 1).all()


def test_the_report_is_that_of_the_predictions(run):
    report = json.loads((run[1] / "robustness.json").read_text())
    assert (report["n_images"], report["n_sources"], report["n_folds"]) == (36, 6, 2)
    assert report["model"] is None
    table = pd.read_csv(run[1] / "robustness-predictions.csv")
    for entry in report["summary"]:
        part = table[(table["corruption"] == entry["corruption"]) & (table["label"] == 0)]
        rate = part["prediction"].mean()
        assert entry["false_alarm_rate"]["value"] == pytest.approx(rate)
    page = (run[1] / "robustness.html").read_text()
    assert f"{report['summary'][0]['roc_auc']['value']:.3f}" in page
    assert "<script" not in page


def test_a_saved_detector_judges_all_the_data(run, script, tmp_path, capsys):
    model = run[1] / "folds" / "fold_0" / "model"
    usual = [*run[0][:4], "--out", str(tmp_path)]  # data and engine
    assert script.main([*usual, "--model", str(model), "--corruptions", "webp-80"]) == 0
    table = pd.read_csv(tmp_path / "robustness-predictions.csv")
    assert table["corruption"].value_counts().to_dict() == {"clean": 18, "webp-80": 18}
    by_folds = pd.read_csv(run[1] / "robustness-predictions.csv")
    own = by_folds[(by_folds["fold"] == 0) & (by_folds["corruption"] == "clean")]
    names = own["path"].map(lambda path: Path(path).parts[-2:]).tolist()
    scores = table[table["corruption"] == "clean"]
    scores = scores.set_index(scores["path"].map(lambda path: Path(path).parts[-2:]))["score"]
    np.testing.assert_allclose(scores.loc[names], own["score"], atol=1e-3)
    warned = capsys.readouterr().out.replace("\n", " ")
    assert "3 of 6 sources look like images" in warned  # those that it was trained on
    assert not (tmp_path / "folds").exists()
