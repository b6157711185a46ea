import csv
import io
import json

import numpy as np
import pandas as pd
import pytest

from cnnsvm.report import write_report
from cnnsvm.report.files import PREDICTION_COLUMNS, folds_csv, to_json


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_everything_is_written_and_nothing_else(
    tmp_path, result, predictions, folds, curves, loader
):
    out = tmp_path / "new" / "report"
    paths = write_report(out, result, predictions, folds, curves, loader=loader)
    assert list(paths) == ["report.json", "folds.csv", "predictions.csv", "report.html"]
    assert set(out.iterdir()) == set(paths.values())
    assert paths["report.html"].stat().st_size < 2_000_000


def test_json_is_strict_and_round_trips(result):
    result["metrics"]["mcc"] = {"value": float("nan"), "low": np.float64("inf"), "high": None}
    result["settings"] |= {"seed": np.int64(3), "sizes": np.arange(2), "dtype": np.float32(0.5)}
    back = json.loads(to_json(result), parse_constant=refuse)
    assert back["metrics"]["mcc"] == {"value": None, "low": None, "high": None}
    assert back["metrics"]["roc_auc"] == result["metrics"]["roc_auc"]
    assert back["settings"] == {
        "backbone": "resnet18",
        "kernels": ["linear", "rbf"],
        "seed": 3,
        "sizes": [0, 1],
        "dtype": 0.5,
    }
    assert to_json(back) == to_json(result)


def test_json_refuses_what_it_cannot_say():
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_json({"settings": {"model": object()}})


@pytest.mark.usefixtures("quick_plots")
def test_json_takes_the_folds_from_the_parameter(tmp_path, result, predictions, folds, loader):
    del result["folds"]
    paths = write_report(tmp_path, result, predictions, folds, [], loader=loader)
    assert json.loads(paths["report.json"].read_text())["folds"] == folds


@pytest.mark.usefixtures("quick_plots")
def test_predictions_round_trip(tmp_path, result, predictions, folds, loader):
    odd = predictions.copy()
    odd.loc[0, "path"] = 'a,"b"\nc.png'
    paths = write_report(tmp_path, result, odd.assign(extra=1), folds, [], loader=loader)
    back = pd.read_csv(paths["predictions.csv"])
    assert tuple(back.columns) == PREDICTION_COLUMNS
    pd.testing.assert_frame_equal(
        back, odd[list(PREDICTION_COLUMNS)], check_dtype=False, rtol=1e-12
    )


def test_folds_have_a_column_for_each_metric_and_parameter(folds):
    folds[1]["best_params"] = {"kernel": "linear"}
    rows = list(csv.DictReader(io.StringIO(folds_csv(folds))))
    assert [row["fold"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["roc_auc"]) == pytest.approx(folds[0]["metrics"]["roc_auc"])
    assert [row["best_C"] for row in rows] == ["1.5", "", "1.5"]


@pytest.mark.usefixtures("quick_plots")
def test_a_failure_leaves_the_old_report_alone(tmp_path, result, predictions, folds, loader):
    write_report(tmp_path, result, predictions, folds, [], loader=loader)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"lack the column.* score"):
        write_report(
            tmp_path, {**result, "title": "x"}, predictions.drop(columns="score"), folds, []
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
