import csv
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnnsvm import InpaintDetector
from cnnsvm.cli import main

QUICK = [
    *("--finetune", "none", "--crop-size", "48", "--crops", "2"),
    *("--trials", "2", "--inner-folds", "2"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "detector"
    assert main(["fit", str(photos), str(folder), "--generate", "opencv-telea", *QUICK]) == 0
    return folder


def judged(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_fitted_detector_judges_files_and_folders(model, photos, capsys):
    assert main(["predict", str(model), str(photos / "3.png"), str(photos)]) == 0
    rows = judged(capsys)
    assert [row["path"][-5:] for row in rows] == ["3.png", *(f"{i}.png" for i in range(5))]
    detector = InpaintDetector.load(model)
    for row in rows:
        probability = detector.predict_proba([row["path"]])[0, 1]
        assert float(row["probability_fake"]) == pytest.approx(probability, abs=1e-3)
        assert row["prediction"] == ("fake" if detector.predict([row["path"]])[0] else "real")


def test_an_unreadable_image_is_a_row_and_status_1(model, photos, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    status = main(["predict", str(model), str(tmp_path / "bad.png"), str(photos / "0.png")])
    rows = judged(capsys)
    assert status == 1
    assert "not an image" in rows[0]["error"]
    assert rows[0]["prediction"] == ""
    assert rows[1]["error"] == ""


def test_a_missing_model_is_one_message(tmp_path, capsys):
    assert main(["predict", str(tmp_path / "none"), "x.png"]) == 2
    assert "holds no saved model" in capsys.readouterr().err


def test_help_lists_the_subcommands():
    command = [sys.executable, "-m", "cnnsvm", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "fit" in text
    assert "predict" in text
