import csv
import io
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_detector import cnn, detector, tuning

from cnnsvm import CombinedDetector, InpaintDetector, TunedSVC
from cnnsvm.cli import guard, main
from cnnsvm.data.images import load_image
from cnnsvm.io.bundle import SHIPPED

FAILED, WRONG = 2, 3
QUICK = [
    *("--finetune", "none", "--crop-size", "48", "--n-crops", "2"),
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


@pytest.fixture(scope="module")
def finetuned(labelled_images, tmp_path_factory):
    images, y, groups = labelled_images
    model = detector(cnn(finetune=tuning("head", epochs=1)), max_error=0.45)
    model.fit(images, y, groups)
    model.rejection_threshold_ = float(np.median(model.predict_proba(images).max(axis=1)))
    return model.save_pretrained(tmp_path_factory.mktemp("finetuned") / "detector")


@pytest.fixture
def shipped(finetuned, monkeypatch):
    monkeypatch.setitem(SHIPPED, "cnnsvm", finetuned)
    return InpaintDetector.from_pretrained(finetuned)


def judged(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_fitted_detector_judges_files_and_folders(model, photos, capsys):
    assert main(["predict", "--model", str(model), str(photos / "3.png"), str(photos)]) < FAILED
    rows = judged(capsys)
    assert [row["path"][-5:] for row in rows] == [f"{i}.png" for i in (3, 0, 1, 2, 4)]
    detector = InpaintDetector.from_pretrained(model)
    for row in rows:
        probability = detector.predict_proba([row["path"]])[0, 1]
        assert float(row["probability_fake"]) == pytest.approx(probability, abs=1e-3)
        assert row["verdict"] == ("fake" if detector.predict([row["path"]])[0] else "no_trace")


def test_an_unreadable_image_is_a_row_and_a_status(model, photos, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    status = main(
        ["predict", "--model", str(model), str(tmp_path / "bad.png"), str(photos / "0.png")]
    )
    rows = judged(capsys)
    assert status == FAILED
    assert "not an image" in rows[0]["error"]
    assert rows[0]["verdict"] == ""
    assert rows[1]["error"] == ""


def test_a_shipped_one_judges_by_its_name(shipped, photos, capsys):
    assert main(["predict", "--model", "cnnsvm", str(photos / "3.png"), str(photos)]) < FAILED
    rows = judged(capsys)
    assert len(rows) == 5
    for row in rows:
        probability = shipped.predict_proba([row["path"]])[0, 1]
        assert float(row["probability_fake"]) == pytest.approx(probability, abs=1e-3)


def test_the_verdict_is_the_detectors(shipped, labelled_images, tmp_path, capsys):
    for i, image in enumerate(labelled_images[0]):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.png")
    assert main(["predict", "--model", "cnnsvm", str(tmp_path)]) < FAILED
    rows = judged(capsys)
    paths = [row["path"] for row in rows]
    names = {0: "no_trace", 1: "fake", "unsure": "unsure"}
    assert [row["verdict"] for row in rows] == [names[v] for v in shipped.verdict(paths)]
    verdicts = {row["verdict"] for row in rows}
    assert "unsure" in verdicts
    assert len(verdicts) > 1


def test_a_detector_without_a_rate_of_errors_is_never_unsure(model, photos, capsys):
    status = main(["predict", "--model", str(model), str(photos)])
    verdicts = {row["verdict"] for row in judged(capsys)}
    assert verdicts <= {"no_trace", "fake"}
    assert status == ("fake" in verdicts)


def test_a_missing_model_is_one_message(tmp_path, capsys):
    assert main(["predict", "--model", str(tmp_path / "none"), "x.png"]) == WRONG
    assert str(tmp_path / "none") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cnnsvm", "generated"])
def test_without_a_shipped_model_the_message_says_what_to_do(
    name, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(SHIPPED, name, tmp_path)
    assert main(["predict", str(photos)]) == WRONG
    assert f"no pretrained detector {name!r} ships with this cnnsvm" in capsys.readouterr().err


def test_without_a_model_all_evidence_is_asked(photos, capsys):
    assert main(["predict", str(photos / "3.png"), str(photos / "0.png")]) < FAILED
    rows = judged(capsys)
    table = CombinedDetector.from_pretrained().explain([row["path"] for row in rows])
    for row, (_, expected) in zip(rows, table.iterrows(), strict=True):
        for name in ("verdict", "evidence"):
            assert row[name] == expected[name]
        for name in CombinedDetector.classes_:
            assert float(row[f"probability_{name}"]) == pytest.approx(expected[name], abs=1e-3)
        assert float(row["coverage"]) == 1.0


def test_a_revision_without_a_model_is_refused(photos, capsys):
    assert main(["predict", "--revision", "main", str(photos)]) == WRONG
    assert "revision main" in capsys.readouterr().err


def test_a_damaged_model_is_not_passed_over_for_another(shipped, model, photos, tmp_path, capsys):
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "config.json").write_text("{}")
    assert main(["predict", "--model", str(copy), str(photos)]) == WRONG
    assert "not a model's description" in capsys.readouterr().err


def test_missing_images_and_empty_folders_are_rows(shipped, photos, tmp_path, capsys):
    gone, empty = str(tmp_path / "gone.png"), tmp_path / "empty"
    empty.mkdir()
    assert main(["predict", "--model", "cnnsvm", gone, str(empty), str(photos / "0.png")]) == FAILED
    rows = judged(capsys)
    assert "no such file" in rows[0]["error"]
    assert "no images in this folder" in rows[1]["error"]
    assert rows[2]["verdict"] in ("no_trace", "fake", "unsure")


def test_a_revision_is_for_the_hub(model, photos, capsys):
    call = ["predict", "--model", str(model), "--revision", "main", str(photos)]
    assert main(call) == WRONG
    assert "has no revisions" in capsys.readouterr().err


def test_a_detector_without_probabilities_is_refused(photos, tmp_path, capsys):
    images = [load_image(path) for path in sorted(photos.iterdir())] * 2
    model = detector(classifier=TunedSVC(n_trials=1, cv=2, calibrate=False))
    folder = model.fit(images, np.arange(10) % 2).save_pretrained(tmp_path / "m")
    assert main(["predict", "--model", str(folder), str(photos)]) == WRONG
    assert "calibrate=False" in capsys.readouterr().err


def test_heatmaps_are_those_of_the_detector(shipped, photos, tmp_path, capsys):
    target = tmp_path / "new" / "maps"
    assert main(["predict", "--model", "cnnsvm", str(photos), "--heatmaps", str(target)]) < FAILED
    for row in judged(capsys):
        name = row["path"].rsplit("/", 1)[1]
        assert row["heatmap"] == str(target / f"{name}.heatmap.png")
        with Image.open(row["heatmap"]) as heatmap:
            assert (heatmap.mode, heatmap.size) == ("L", (64, 64))
            values = np.asarray(heatmap) / 255
        np.testing.assert_allclose(values, shipped.explain(row["path"]), atol=0.01)
        with Image.open(target / f"{name}.overlay.jpg") as overlay:
            assert overlay.mode == "RGB"
            assert overlay.height > 256  # the image, enlarged, and a strip below
    assert len(list(target.iterdir())) == 10


@pytest.mark.parametrize("orientation", [1, 6, 8, 5])
def test_heatmaps_of_a_turned_photograph(shipped, tmp_path, capsys, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    target = tmp_path / "maps"
    assert (
        main(
            [
                "predict",
                "--model",
                "cnnsvm",
                str(tmp_path / "turned.jpg"),
                "--heatmaps",
                str(target),
            ]
        )
        == 0
    )
    with Image.open(target / "turned.jpg.heatmap.png") as heatmap:
        assert heatmap.size == (100, 60)  # as stored
        expected = shipped.explain(tmp_path / "turned.jpg")
        np.testing.assert_allclose(np.asarray(heatmap) / 255, expected, atol=0.01)
    seen = load_image(tmp_path / "turned.jpg")
    assert load_image(target / "turned.jpg.heatmap.png").shape == seen.shape  # as shown
    drawn = load_image(target / "turned.jpg.overlay.jpg")
    assert (drawn.shape[0] > 280) == (seen.shape[0] > seen.shape[1])  # upright, with a strip below


def test_images_of_one_name_keep_their_heatmaps(shipped, photos, tmp_path, capsys):
    for place in ("a/sub", "b"):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(photos / "0.png", tmp_path / place / "0.png")
    target = tmp_path / "maps"
    places = [str(tmp_path / "a"), str(tmp_path / "b"), str(photos / "0.png")]
    assert main(["predict", "--model", "cnnsvm", *places, "--heatmaps", str(target)]) < FAILED
    found = [row["heatmap"] for row in judged(capsys)]
    names = ["sub/0.png.heatmap.png", "0.png.heatmap.png", "0.png-2.heatmap.png"]
    assert found == [str(target / name) for name in names]
    assert all(Path(name).is_file() for name in found)


def test_one_bad_image_does_not_stop_the_heatmaps(shipped, photos, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    target = tmp_path / "maps"
    target.mkdir()
    (target / "0.png.heatmap.png").mkdir()  # in the way
    images = [str(tmp_path / "bad.png"), str(photos / "0.png"), str(photos / "1.png")]
    assert main(["predict", "--model", "cnnsvm", *images, "--heatmaps", str(target)]) == FAILED
    bad, blocked, good = judged(capsys)
    assert "not an image" in bad["error"]
    assert "cannot be written" in blocked["error"]
    assert blocked["verdict"] in ("no_trace", "fake", "unsure")
    assert good["error"] == ""
    assert Path(good["heatmap"]).is_file()


def test_heatmaps_are_not_judged_by_the_next_call(shipped, photos, tmp_path, capsys):
    place = tmp_path / "photos"
    shutil.copytree(photos, place)
    target = place / "maps"
    for _ in range(2):
        assert (
            main(["predict", "--model", "cnnsvm", str(place), "--heatmaps", str(target)]) < FAILED
        )
        assert len(judged(capsys)) == 5
    assert main(["predict", "--model", "cnnsvm", str(place), "--heatmaps", str(place)]) == WRONG
    assert "Choose another folder" in capsys.readouterr().err


def test_heatmaps_need_a_classifier(model, photos, tmp_path, capsys):
    assert (
        main(["predict", "--model", str(model), str(photos), "--heatmaps", str(tmp_path / "maps")])
        == WRONG
    )
    assert "--heatmaps needs a fine-tuned detector" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


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
    for part in ("cv.py: bad value", "resumes", "Lower --batch-size"):
        assert part in text
    with pytest.raises(RuntimeError, match="a bug"):
        guard("cv.py", lambda: fail(RuntimeError("a bug")))


def test_untouched_images_choose_when_a_fake_is_named(model, photos, tmp_path, capsys):
    folder = tmp_path / "untouched"
    folder.mkdir()
    for seed in range(19):
        pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    call = ["predict", str(folder), "--model", str(model), "--untouched", str(folder)]
    for share, n_above in (("0.05", 1), ("0.5", 10)):  # of 19, with the one at the threshold
        assert main([*call, "--max-false-alarms", share]) < FAILED
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        n_named = [row["verdict"] for row in rows].count("fake")
        assert n_above - 1 <= n_named <= n_above  # one at a time differs by rounding
    assert main([*call, "--max-false-alarms", "0.01"]) == WRONG
    assert "max_false_alarms=0.01 cannot be promised on 19" in capsys.readouterr().err


def test_a_share_of_false_alarms_needs_untouched_images(model, photos, capsys):
    call = ["predict", str(photos), "--model", str(model), "--max-false-alarms", "0.1"]
    assert main(call) == WRONG
    assert "--max-false-alarms 0.1 needs --untouched" in capsys.readouterr().err


def test_a_closed_standard_output_is_no_error_of_the_program(photos, model):
    code = "import sys; from cnnsvm.cli import main; sys.exit(main())"
    call = [sys.executable, "-c", code, "predict", str(photos / "0.png"), "--model", str(model)]
    ended = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *call], check=False, capture_output=True, text=True
    )
    assert ended.returncode in (0, 1)
    assert "1 judged" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_warns_of_a_file_names_no_place_in_the_code(tmp_path, model, capsys, monkeypatch):
    monkeypatch.setattr("warnings.formatwarning", None)
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    main(["predict", str(tmp_path / "a.gif"), "--model", str(model)])
    assert warnings.formatwarning("said", UserWarning, "code.py", 1) == "said\n"
    assert "code.py:1" in warnings.formatwarning("said", FutureWarning, "code.py", 1)
