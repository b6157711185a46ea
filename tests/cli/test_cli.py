import csv
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnnsvm import InpaintDetector
from cnnsvm.cli import main
from cnnsvm.cli.errors import guard

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


def test_a_target_that_cannot_be_written_is_refused_first(photos, tmp_path, capsys):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.txt").write_text("keep")
    arguments = ["fit", str(photos), str(tmp_path / "target"), "--generate", "opencv-telea"]
    assert main([*arguments, *QUICK]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_a_user_can_mend_is_one_message(capsys):
    def fail(error):
        raise error

    assert guard("cv.py", lambda: 0) == 0
    assert guard("cv.py", lambda: fail(ValueError("bad value"))) == 2
    assert guard("cv.py", lambda: fail(KeyboardInterrupt())) == 130
    assert guard("cv.py", lambda: fail(RuntimeError("CUDA out of memory. Tried"))) == 2
    text = capsys.readouterr().err
    for part in ("cv.py: bad value", "goes on from here", "Lower --batch-size"):
        assert part in text
    with pytest.raises(RuntimeError, match="a bug"):
        guard("cv.py", lambda: fail(RuntimeError("a bug")))
