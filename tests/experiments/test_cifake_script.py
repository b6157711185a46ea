import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from script_runs import N_CIFAKE, cifake_jpeg, pack_cifake

from cnnsvm import InpaintDetector
from cnnsvm.detection.training_overlap import find_training_images


@pytest.fixture(scope="module")
def run(finished):
    found = finished("cifake")
    return found.arguments, found.out


@pytest.fixture(scope="module")
def script(finished):
    return finished("cifake").script


def changed(arguments, **values):
    """Give other values to the flags of a command line."""
    found = list(arguments)
    for name, value in values.items():
        place = found.index(f"--{name}") if f"--{name}" in found else len(found)
        found[place : place + 2] = [f"--{name}", str(value)]
    return found


def test_training_goes_on_from_a_detector(script, run, tmp_path):
    bundle, again = run[1] / "bundle", tmp_path / "bundle"
    arguments = changed(run[0], out=tmp_path / "out", weights=bundle, epochs=1, bundle=again)
    assert script.main([*arguments, "--no-shuffled"]) == 0
    before, after = (InpaintDetector.from_pretrained(folder) for folder in (bundle, again))
    assert len(after.history_) == 1
    # a new layer on trained ones
    assert after.history_[0]["train_loss"] < before.history_[0]["train_loss"]
    assert (after.trained_on_ == before.trained_on_).all()
    assert f"It began with the network of {bundle}." in (again / "README.md").read_text()
    assert "It began with" not in (bundle / "README.md").read_text()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"seed": 1}, "with another seed (its: 0, now: 1)"),
        ({"limit": 40}, "was trained on other images"),
        ({"weights": "files"}, "is no saved detector. Give 'cifake'"),
    ],
)
def test_a_detector_that_may_have_seen_what_is_set_aside_is_refused(
    script, run, tmp_path, capsys, case, expected
):
    weights = run[1] / case.get("weights", "bundle")
    wanted = case | {"weights": weights, "out": tmp_path / "out"}
    assert script.main(changed(run[0], **wanted)) != 0
    said = capsys.readouterr().err
    assert str(weights) in said
    assert expected in said
    assert not (tmp_path / "out" / "model").exists()


@pytest.fixture(scope="module")
def both(script, run):
    """A second network, with auxiliary labels, and then both side by side."""
    out, first = run[1].parent, run[1] / "bundle"
    auxiliary = {"backbone": "plain_cnn_7", "bundle": out / "objects", "epochs": 8}
    second = changed(run[0], out=out / "second", **auxiliary)
    assert script.main([*second, "--objects"]) == 0
    arguments = changed(run[0], out=out / "both", weights=first, bundle=out / "together")
    assert script.main([*arguments, "--ensemble", str(out / "objects")]) == 0
    return [InpaintDetector.from_pretrained(out / k) for k in ("objects", "together")], out / "both"


def test_a_network_is_taught_what_images_show(both):
    auxiliary = both[0][0]
    network = auxiliary.embedder_[0].network_
    assert network.parents == (0, 1, 0, 1)  # airplanes and cats, real and fake
    assert network.classifier.out_features == 4
    assert auxiliary.classes_.tolist() == [0, 1]
    report = json.loads((both[1].parent / "second" / "report.json").read_text())
    assert report["metrics"]["roc_auc"]["value"] > 0.9
    assert "Auxiliary labels of the training" in (both[1].parent / "objects/README.md").read_text()


def test_networks_side_by_side_are_judged_on_what_none_has_learnt_from(both, run):
    together, report = both[0][1], json.loads((both[1] / "report.json").read_text())
    first, second = (embedder.network_ for embedder in together.embedder_)
    for name, value in both[0][0].embedder_[0].network_.state_dict().items():
        assert (second.state_dict()[name] == value).all(), name
    names = [row["head"] for row in report["heads"]]
    assert names[:2] == ["plain_cnn alone, its own layer", "plain_cnn_7 alone, its own layer"]
    assert names[2] == "networks' own layers, averaged"
    assert "the networks as they are" in report["controls"]["shuffled_labels"]["meaning"]
    assert [row["rate"] is None for row in report["heads"][:3]] == [True] * 3
    card = (run[1].parent / "together" / "README.md").read_text()
    for folder in (run[1] / "bundle", run[1].parent / "objects"):
        assert f"{folder} was made by `" in card
    assert report["metrics"]["roc_auc"]["value"] > 0.9
    first = json.loads((run[1] / "report.json").read_text())["folds"][0]
    fold = report["folds"][0]
    assert fold["n_test"] == first["n_test"]
    assert 0 < fold["n_train"] <= 0.3 * first["n_train"]  # what told when to stop
    known = InpaintDetector.from_pretrained(run[1] / "bundle").trained_on_
    assert (together.trained_on_ == known).all()


def test_an_ensemble_stands_beside_weights(script, run, capsys, tmp_path):
    arguments = [*changed(run[0], out=tmp_path), "--ensemble", str(run[1] / "bundle")]
    assert script.main(arguments) != 0
    assert "stands beside --weights, which is missing" in capsys.readouterr().err


def test_the_held_out_part_is_judged_and_well(run):
    table = pd.read_csv(run[1] / "predictions.csv")
    report = json.loads((run[1] / "report.json").read_text())
    assert len(table) == pytest.approx(32, abs=3)
    assert report["n_images"] == 2 * N_CIFAKE
    right = (table["label"] == table["prediction"]).mean()
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert report["metrics"]["roc_auc"]["value"] > 0.9
    assert report["folds"][0]["n_train"] + len(table) == 2 * N_CIFAKE


def test_heads_controls_and_duplicates_are_reported(run):
    report = json.loads((run[1] / "report.json").read_text())
    names = [row["head"] for row in report["heads"]]
    n_train = report["folds"][0]["n_train"]
    assert names[0] == "network's own layer"
    assert names[1:3] == [f"SVM, exact, {n_train} rows", f"SVM, exact, all {n_train} rows"]
    assert report["heads"][-1]["n_vectors"] == 20
    assert report["controls"]["metadata"]["roc_auc"]["value"] == 0.5
    assert "shuffled_labels" in report["controls"]
    page = (run[1] / "report.html").read_text()
    for text in ("With and without the SVM", "Near-duplicates", "Loss, accuracy and AUC"):
        assert text in page
    assert "Data set: CIFAKE" in (run[1] / "explore.html").read_text()


def test_the_bundle_judges_as_the_report_says(run):
    detector = InpaintDetector.from_pretrained(run[1] / "bundle")
    table = pd.read_csv(run[1] / "predictions.csv")
    images = [cifake_jpeg(int(Path(path).stem[:4]), "FAKE" in path) for path in table["path"]]
    said = detector.predict_proba(images)[:, 1]
    assert np.abs(said - table["probability"]).max() < 0.05  # half precision
    larger = np.zeros((48, 48, 3), np.uint8)
    assert detector.verdict([larger])[0] == "unsure"
    card = (run[1] / "bundle" / "README.md").read_text()
    assert "CIFAKE" in card
    assert "held out by near-duplicate groups" in card


def test_the_bundle_knows_what_it_was_trained_on(run):
    detector = InpaintDetector.from_pretrained(run[1] / "bundle")
    judged = set(pd.read_csv(run[1] / "predictions.csv")["path"])
    judged = {(int(Path(path).stem[:4]), "FAKE" in path) for path in judged}
    everything = [(seed, fake) for seed in range(N_CIFAKE) for fake in (False, True)]
    trained = [cifake_jpeg(*image) for image in everything if image not in judged]
    assert [distance for _, distance in find_training_images(detector, trained)] == [0] * len(
        trained
    )


def test_test_images_are_judged_and_their_copies_not_trained_on(run, script, tmp_path, capsys):
    train = run[0][1]
    test = pack_cifake(tmp_path / "test.tar.xz", "test", [0, *range(100, 112)])  # 0 is in both
    arguments = ["--train", train, "--test", str(test), "--out", str(tmp_path / "out")]
    arguments += ["--epochs", "1", "--landmarks", "20", "--no-shuffled", "--device", "cpu"]
    arguments += ["--backbone", "plain_cnn"]
    assert script.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["folds"][0]["n_test"], report["folds"][0]["n_train"]) == (26, 2 * N_CIFAKE - 2)
    assert "Left out of training for it: 2" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "no class", "33x32", "text"])
def test_bad_data_is_named(run, script, tmp_path, damage, capsys):
    path = tmp_path / "train.tar.xz"
    train = run[0][1]
    if damage == "cut":
        path.write_bytes(Path(train).read_bytes()[:-3000])
    else:
        buffer = io.BytesIO()
        Image.new("RGB", (33, 32)).save(buffer, "JPEG")
        odd = {"33x32": buffer.getvalue(), "text": b"no image", "no class": None}[damage]
        with tarfile.open(path, "w:xz") as opened:
            for kind in ("REAL",) if odd is None else ("REAL", "FAKE"):
                for seed in range(4):
                    data = odd if odd and seed == 2 and kind == "FAKE" else cifake_jpeg(seed, 0)
                    info = tarfile.TarInfo(f"train/{kind}/{seed:04}.jpg")
                    info.size = len(data)
                    opened.addfile(info, io.BytesIO(data))
    out = tmp_path / "out"
    assert script.main(["--train", str(path), "--out", str(out)]) != 0
    said = capsys.readouterr().err
    expected = {"cut": "train.tar.xz", "no class": "no images in train/FAKE"}
    assert expected.get(damage, "train/FAKE/0002.jpg") in said
    assert ("33x32" in said) == (damage == "33x32")
    assert not (out / "model").exists()
