import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
METRICS = {
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1"),
    *("roc_auc", "pr_auc", "mcc", "brier", "ece"),
}
QUICK = [
    *("--finetune", "none", "--crop-size", "48", "--n-crops", "2"),
    *("--trials", "2", "--inner-folds", "2", "--folds", "2"),
]


@pytest.fixture(scope="module")
def cv():
    spec = importlib.util.spec_from_file_location("cv", ROOT / "experiments" / "cv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(cv, photos, tmp_path_factory):
    """A whole run: sources -> inpaintings -> cross-validation -> report."""
    out = tmp_path_factory.mktemp("run")
    arguments = ["--data", str(photos), "--generate", "opencv-telea", "--out", str(out), *QUICK]
    assert cv.main(arguments) == 0
    return arguments, out


def test_report_json_has_what_is_promised(run):
    report = json.loads((run[1] / "report.json").read_text())
    assert set(report["metrics"]) >= METRICS
    for interval in report["metrics"].values():
        assert set(interval) == {"value", "low", "high"}
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


def test_the_page_is_self_contained(run):
    page = (run[1] / "report.html").read_text()
    assert "ROC" in page
    assert 'src="http' not in page
    assert "<script src" not in page


def test_run_again_it_takes_the_finished_folds(run, cv, monkeypatch):
    from cnnsvm import InpaintDetector

    def forbidden(*args, **kwargs):
        raise AssertionError("fitted again")

    arguments, out = run
    before = (out / "predictions.csv").read_text()
    monkeypatch.setattr(InpaintDetector, "fit", forbidden)
    assert cv.main(arguments) == 0
    assert (out / "predictions.csv").read_text() == before


def test_other_settings_are_not_mixed_in(run, cv, capsys):
    assert cv.main([*run[0], "--kernel", "linear"]) == 2
    assert "Choose another output folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--backbone", "resnet19"], "'resnet19' is not known"),
        (["--device", "cuda:77"], "torch sees"),
        (["--generate", "magic"], "opencv-telea"),
        (["--weights", "gone.pth"], "gone.pth"),
        (["--threshold", "often"], "'threshold'"),
    ],
)
def test_mistakes_are_one_message(cv, photos, tmp_path, capsys, arguments, message):
    usual = ["--data", str(photos), "--generate", "opencv-telea", "--out", str(tmp_path), *QUICK]
    assert cv.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_the_scores_of_make_cv_are_those_that_were_recorded(cv, tmp_path, capsys):
    assert cv.main(["--out", str(tmp_path), "--no-shuffled", "--precision", "float32"]) == 0
    assert "ROC AUC" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "predictions.csv")
    recorded = json.loads(Path(__file__).with_name("recorded_cv.json").read_text())
    names = table["source_id"] + "/" + table["path"].map(lambda path: Path(path).name)
    found = table.groupby(names)["probability"].apply(sorted)
    assert set(found.index) == set(recorded)
    for name, expected in recorded.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-6, err_msg=name)
