import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from script_runs import load_script

METRICS = {
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1"),
    *("roc_auc", "pr_auc", "mcc", "brier", "ece"),
}


@pytest.fixture(scope="module")
def run(finished):
    found = finished("cv")
    return found.arguments, found.out


def test_report_json_has_what_is_promised(run):
    report = json.loads((run[1] / "report.json").read_text())
    assert set(report["metrics"]) >= METRICS
    for interval in report["metrics"].values():
        assert set(interval) == {"value", "low", "high"}
    assert {check["name"] for check in report["audit"]["checks"]} >= {"labels", "metadata"}
    promised = {"by_mask_schema", "by_variant", "by_engine", "controls", "folds", "n_images"}
    assert promised | {"n_sources", "seconds", "environment"} <= set(report)
    assert (report["n_images"], report["n_sources"], len(report["folds"])) == (36, 6, 2)
    assert len(report["by_mask_schema"]) == 5
    assert set(report["by_engine"]) == {"opencv-telea"}
    expected = {"metadata", "file_size", "colour_histogram", "shuffled_labels"}
    assert set(report["controls"]) == expected


def test_metrics_are_those_of_the_predictions(run):
    report = json.loads((run[1] / "report.json").read_text())
    table = pd.read_csv(run[1] / "predictions.csv")
    assert len(table) == 36
    assert (table["prediction"] == table["label"]).mean() == pytest.approx(
        report["metrics"]["accuracy"]["value"]
    )
    assert (table.groupby("source_id")["fold"].nunique() == 1).all()
    assert len(pd.read_csv(run[1] / "folds.csv")) == 2
    for path in table["path"]:  # from where the table lies, so that it tells nothing of the machine
        assert not Path(path).is_absolute()
        assert (run[1] / path).is_file()


def test_the_scores_of_make_cv_are_those_that_were_recorded(tmp_path, capsys):
    cv = load_script("cv")
    assert cv.main(["--out", str(tmp_path), "--no-shuffled", "--precision", "float32"]) == 0
    assert "ROC AUC" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "predictions.csv")
    recorded = json.loads(Path(__file__).with_name("recorded_cv.json").read_text())
    names = table["source_id"] + "/" + table["path"].map(lambda path: Path(path).name)
    found = table.groupby(names)["probability"].apply(sorted)
    assert set(found.index) == set(recorded)
    for name, expected in recorded.items():
        # processors add up in other orders: 2e-6 between two of one maker, 2e-5 of two
        np.testing.assert_allclose(found[name], expected, atol=1e-4, err_msg=name)
