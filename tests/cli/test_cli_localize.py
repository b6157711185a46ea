import csv
import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm import InpaintLocalizer
from cnnsvm.cli import main
from cnnsvm.data.images import load_image

QUICK = ["--architecture", "iidnet", "--size", "small", "--crop-size", "32", "--epochs", "1"]
QUICK += ["--crops", "1", "--precision", "float32", "--augmentation", "geometric"]


def draw_image(seed, height=48, width=56):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return build(tmp_path_factory.mktemp("localize"), range(6))


def build(root, seeds):
    """Make records: a source of each seed with two spliced images."""
    (root / "photos").mkdir()
    for seed in seeds:
        Image.fromarray(draw_image(seed)).save(root / "photos" / f"{seed}.png")
    flags = ["--schemas", "diagonal_upper_left", "random_patches", "--no-panels"]
    assert main(["build", str(root / "photos"), str(root / "records"), *flags]) == 0
    return root / "records"


@pytest.fixture(scope="module")
def model(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "localizer"
    assert main(["localize-train", str(records), "--model", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, seed in (("a.png", 1), ("a.bmp", 2), ("sub/a.png", 3)):
        Image.fromarray(draw_image(seed)).save(folder / name)
    return folder


def rows_of(out):
    with open(out / "localize.csv", newline="", encoding="utf-8") as stream:
        return {row["path"]: row for row in csv.DictReader(stream)}


def test_a_folder_in_masks_out(model, photos, tmp_path):
    out = tmp_path / "out"
    assert main(["localize", str(photos), str(out), "--model", str(model)]) == 0
    rows = rows_of(out)
    assert list(rows) == ["a.bmp", "a.png", "sub/a.png"]
    localizer = InpaintLocalizer.from_pretrained(model)
    for name, row in rows.items():
        expected = localizer.predict_proba([photos / name])[0]
        mask, values = (np.asarray(Image.open(out / f"{name}.{k}.png")) for k in ("mask", "map"))
        assert values.dtype == np.uint16
        np.testing.assert_allclose(values / 65535, expected, atol=1e-4)
        assert set(np.unique(mask)) <= {0, 255}
        called = mask == 255
        np.testing.assert_array_equal(called, expected >= localizer.threshold_)
        assert float(row["repainted"]) == pytest.approx(called.mean(), abs=1e-5)
        assert float(row["highest"]) == pytest.approx(expected.max(), abs=1e-4)
        assert float(row["mean"]) == pytest.approx(expected.mean(), abs=1e-4)
        assert load_image(out / f"{name}.overlay.jpg").shape[0] > 4 * 48  # with a strip below
    assert len(list(out.rglob("*.png"))) == 6


@pytest.mark.parametrize("orientation", [1, 6, 5])
def test_masks_lie_on_the_pixels_as_they_are_stored(model, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = tmp_path / "turned.jpg"
    Image.fromarray(draw_image(1, 40, 64)).save(turned, exif=exif, quality=95)
    assert main(["localize", str(turned), str(tmp_path / "out"), "--model", str(model)]) == 0
    with Image.open(tmp_path / "out" / "turned.jpg.mask.png") as mask:
        assert mask.size == (64, 40)
    shown = load_image(tmp_path / "out" / "turned.jpg.mask.png")[..., 0] == 255
    expected = InpaintLocalizer.from_pretrained(model).predict([turned])[0]
    np.testing.assert_array_equal(shown, expected)
    with Image.open(tmp_path / "out" / "turned.jpg.map.png") as stored:
        assert stored.size == (64, 40)
        assert stored.getexif()[0x0112] == orientation


def test_one_bad_file_does_not_stop_the_rest(model, photos, tmp_path):
    (photos / "0.png").write_bytes(b"nothing")
    content = (photos / "a.png").read_bytes()
    (photos / "half.png").write_bytes(content[: len(content) // 2])
    out = tmp_path / "out"
    (out / "a.bmp.mask.png").mkdir(parents=True)  # in the way
    assert main(["localize", str(photos), str(out), "--model", str(model)]) == 1
    rows = rows_of(out)
    failed = {name for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {"0.png", "half.png", "a.bmp"}
    assert "not an image" in rows["0.png"]["reason"]
    assert all(rows[name]["reason"] for name in failed)
    assert not list(out.glob("half.png*"))
    assert (out / "sub" / "a.png.mask.png").is_file()


def test_what_is_done_is_not_done_again(model, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    call = ["localize", str(photos), str(out), "--model", str(model)]
    assert main(call) == 0
    table = out / "localize.csv"
    whole = table.read_text()
    lines = whole.splitlines()
    table.write_text("\n".join([*lines[:3], lines[3][:-4]]))  # killed in the last row
    (out / "a.bmp.map.png").unlink()
    Image.fromarray(draw_image(9)).save(photos / "a.png")
    seen = []
    usual = InpaintLocalizer.predict_proba

    def watched(self, images):
        seen.append(images[0][0, 0].tolist())
        return usual(self, images)

    monkeypatch.setattr(InpaintLocalizer, "predict_proba", watched)
    assert main(call) == 0
    assert len(seen) == 3  # a file missing, an image changed, a row cut off
    capsys.readouterr()
    assert main(call) == 0
    assert len(seen) == 3
    assert "0 image(s) done, 3 before, 0 failed" in capsys.readouterr().out
    rows = rows_of(out)
    assert list(rows) == ["a.bmp", "a.png", "sub/a.png"]
    assert table.read_text() != whole  # a.png is another image now


@pytest.mark.parametrize("flags", [["--threshold", "0.9"], ["--tile-size", "32"]])
def test_results_of_other_settings_are_not_mixed(model, photos, tmp_path, capsys, flags):
    call = ["localize", str(photos), str(tmp_path / "out"), "--model", str(model)]
    assert main(call) == 0
    usual = ["--tile-overlap", "8"] if "--tile-size" in flags else []
    assert main([*call, *flags, *usual]) == 2
    assert "Choose another output folder" in capsys.readouterr().err


def test_the_threshold_can_be_chosen(model, photos, tmp_path):
    for name, threshold in (("low", "0.01"), ("high", "0.99")):
        call = ["localize", str(photos), str(tmp_path / name), "--model", str(model)]
        assert main([*call, "--threshold", threshold]) == 0
    low, high = (rows_of(tmp_path / name) for name in ("low", "high"))
    for name in low:
        assert float(low[name]["repainted"]) > float(high[name]["repainted"])


def test_masks_are_not_looked_at_by_the_next_call(model, photos, capsys):
    out = photos / "found"
    for _ in range(2):
        assert main(["localize", str(photos), str(out), "--model", str(model)]) == 0
        assert len(rows_of(out)) == 3
    assert main(["localize", str(photos), str(photos), "--model", str(model)]) == 2
    assert main(["localize", str(out), str(out), "--model", str(model)]) == 2
    assert "Choose another output folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "flags", "message"),
    [
        ("nowhere", [], "no such file or folder"),
        ("empty", [], "no images in this folder"),
        ("photos", ["--threshold", "1.5"], "--threshold must be"),
        ("photos", ["--tile-overlap", "900"], "--tile-overlap must be below"),
        ("photos", ["--device", "cuda:9"], "cuda:9"),
    ],
)
def test_mistakes_are_one_message(model, photos, tmp_path, capsys, place, flags, message):
    (tmp_path / "empty").mkdir()
    call = ["localize", str(tmp_path / place), str(tmp_path / "out"), "--model", str(model)]
    assert main([*call, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_model_of_another_kind_or_none_is_told(photos, tmp_path, capsys):
    call = ["localize", str(photos), str(tmp_path / "out"), "--model", str(tmp_path / "none")]
    assert main(call) == 2
    assert "holds no saved model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_training_again_goes_on_with_what_is_there(records, model, monkeypatch):
    from cnnsvm.localization.trainer import LocalizerTrainer

    def forbidden(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(LocalizerTrainer, "run", forbidden)
    before = (model / "config.json").read_bytes()
    assert main(["localize-train", str(records), "--model", str(model), *QUICK]) == 0
    assert (model / "config.json").read_bytes() == before


def test_training_keeps_no_model_of_ones_own_in_the_way(records, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["localize-train", str(records), "--model", str(tmp_path), *QUICK]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_without_torchrun_there_is_no_distributed_training(records, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)
    call = ["localize-train", str(records), "--model", str(tmp_path / "m"), *QUICK]
    assert main([*call, "--distributed"]) == 2
    assert "torchrun" in capsys.readouterr().err


def test_a_test_scores_each_kind(model, tmp_path, capsys):
    others = build(tmp_path, range(4, 12))
    call = ["localize-test", str(others), "--model", str(model), "--out", str(tmp_path)]
    assert main([*call, "--work", str(tmp_path / "work")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 of 8 sources look like images that" in said
    assert "opencv-telea spliced" in said
    assert "Of the 6 untouched" in said
    report = json.loads((tmp_path / "localize-test.json").read_text())
    assert set(report["kinds"]) == {"opencv-telea spliced", "original"}
    table = pd.read_csv(tmp_path / "localize-test.csv")
    fakes = table[table["variant"] == "spliced"]
    assert len(fakes) == 12
    stated = report["kinds"]["opencv-telea spliced"]["per_image_iou"]
    assert stated == pytest.approx(fakes["iou"].mean())
    row = fakes.iloc[0]
    called = InpaintLocalizer.from_pretrained(model).predict([row["path"]])[0]
    assert called.mean() == pytest.approx(row["called"])


def test_nothing_is_tested_on_what_it_was_trained_on(records, model, tmp_path, capsys):
    call = ["localize-test", str(records), "--model", str(model), "--work", str(tmp_path)]
    assert main(call) == 2
    assert "6 of 6 sources" in capsys.readouterr().err
    assert len(InpaintLocalizer.from_pretrained(model).trained_on_) == 6


def test_a_bad_mask_stops_a_training_unless_it_may_be_left_out(records, tmp_path, capsys):
    copy = shutil.copytree(records, tmp_path / "copy")
    mask = sorted(copy.rglob("mask_*.png"))[0]
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(mask)
    call = ["localize-train", str(copy), "--model", str(tmp_path / "m"), *QUICK]
    assert main([*call, "--codec", "keep"]) == 2
    assert "5x5 pixels" in capsys.readouterr().err
    assert main([*call, "--codec", "keep", "--skip-bad"]) == 0
    assert "Trained on 11 repainted and 6 untouched" in capsys.readouterr().out
