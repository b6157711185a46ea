import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
QUICK = [
    *("--finetune", "none", "--backbone", "squeezenet1_1", "--crop-size", "48", "--n-crops", "2"),
    *("--trials", "2", "--inner-folds", "2", "--folds", "2", "--generate", "opencv-telea"),
]
SOME = ["--degradations", "crop", "jpeg-75"]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "experiments" / "robustness.py"
    spec = importlib.util.spec_from_file_location("robustness_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.N_RESAMPLES = 50
    return module


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(script, photos, tmp_path_factory):
    """A whole run: sources -> inpaintings -> a detector a fold -> judgements -> report."""
    out = tmp_path_factory.mktemp("run")
    arguments = ["--data", str(photos), "--out", str(out), *QUICK, *SOME]
    assert script.main(arguments) == 0
    return arguments, out


def test_all_images_are_judged_clean_and_degraded(run):
    table = pd.read_csv(run[1] / "robustness-predictions.csv")
    assert table["degradation"].unique().tolist() == ["clean", "jpeg-75", "crop"]
    assert (table.groupby("degradation")["path"].nunique() == 36).all()
    assert (table.groupby("source_id")["fold"].nunique() == 1).all()


def test_the_report_is_that_of_the_predictions(run):
    report = json.loads((run[1] / "robustness.json").read_text())
    assert (report["n_images"], report["n_sources"], report["n_folds"]) == (36, 6, 2)
    assert report["model"] is None
    table = pd.read_csv(run[1] / "robustness-predictions.csv")
    for entry in report["summary"]:
        part = table[(table["degradation"] == entry["degradation"]) & (table["label"] == 0)]
        rate = part["prediction"].mean()
        assert entry["false_alarm_rate"]["value"] == pytest.approx(rate)
    page = (run[1] / "robustness.html").read_text()
    assert f"{report['summary'][0]['roc_auc']['value']:.3f}" in page
    assert "<script" not in page


def test_run_again_it_fits_and_judges_nothing(run, script, monkeypatch, capsys):
    from cnnsvm import InpaintDetector

    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    arguments, out = run
    before = (out / "robustness-predictions.csv").read_text()
    for method in ("fit", "transform"):
        monkeypatch.setattr(InpaintDetector, method, forbidden)
    assert script.main(arguments) == 0
    assert (out / "robustness-predictions.csv").read_text() == before
    assert "Spliced: 30 fakes against 6 originals" in capsys.readouterr().out


def test_other_settings_are_not_mixed_in(run, script, capsys):
    assert script.main([*run[0], "--kernel", "linear"]) == 2
    assert "Choose another output folder" in capsys.readouterr().err


def test_a_saved_detector_judges_all_the_data(run, script, photos, tmp_path, capsys):
    model = run[1] / "folds" / "fold_0" / "model"
    usual = ["--data", str(photos), "--generate", "opencv-telea", "--out", str(tmp_path)]
    assert script.main([*usual, "--model", str(model), "--degradations", "webp-80"]) == 0
    table = pd.read_csv(tmp_path / "robustness-predictions.csv")
    assert table["degradation"].value_counts().to_dict() == {"clean": 18, "webp-80": 18}
    by_folds = pd.read_csv(run[1] / "robustness-predictions.csv")
    own = by_folds[(by_folds["fold"] == 0) & (by_folds["degradation"] == "clean")]
    names = own["path"].map(lambda path: Path(path).parts[-2:]).tolist()
    scores = table[table["degradation"] == "clean"]
    scores = scores.set_index(scores["path"].map(lambda path: Path(path).parts[-2:]))["score"]
    np.testing.assert_allclose(scores.loc[names], own["score"], atol=1e-3)
    warned = capsys.readouterr().out.replace("\n", " ")
    assert "3 of 6 sources look like pictures" in warned  # those that it was trained on
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--degradations", "jpeg-50"], "There is: clean, jpeg-95"),
        (["--model", "nowhere"], "nowhere"),
        (["--backbone", "resnet19"], "'resnet19' is not known"),
        (["--folds", "7"], "6 group(s) but 7 folds"),
        (["--target", "path"], "target='path' must put all originals"),
    ],
)
def test_mistakes_are_one_message(script, photos, tmp_path, capsys, arguments, message):
    usual = ["--data", str(photos), "--out", str(tmp_path), *QUICK]
    assert script.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
