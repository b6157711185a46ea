import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny_detector import cnn, detector, tuning

from cnnsvm import InpaintDetector
from cnnsvm.cli import main
from cnnsvm.cli.cv import parse_run
from cnnsvm.evaluation.detectors import out_of_fold_auc

QUICK = [
    *("--backbone", "plain_cnn", "--finetune", "none", "--crop-size", "32", "--n-crops", "2"),
    *("--trials", "2", "--inner-folds", "2", "--kernel", "linear"),
]


def write_tree(folder, images, y):
    for k, (image, label) in enumerate(zip(images, y, strict=True)):
        place = folder / ("fake" if label else "real")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{k:02d}.png")
    return folder


@pytest.fixture
def tree(labelled_images, tmp_path):
    return write_tree(tmp_path / "tree", *labelled_images[:2])


@pytest.fixture
def at_chance(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), dtype=np.uint8)
    return write_tree(tmp_path / "noise", noise, [0, 1] * 10)


def test_the_auc_of_sources_not_fitted_on_is_printed(tree, tmp_path, capsys):
    assert main(["fit", str(tree), str(tmp_path / "model"), *QUICK]) == 0
    said = capsys.readouterr().out
    found = re.search(r"ROC AUC ([\d.]+) \(95 % ([\d.]+) to ([\d.]+)\) on (\d+) sources", said)
    assert int(found[4]) > 5
    assert 0.5 < float(found[2]) <= float(found[1]) <= float(found[3])
    assert InpaintDetector.from_pretrained(tmp_path / "model").max_error == 0.05


def test_a_detector_at_chance_is_not_saved_unless_forced(at_chance, tmp_path, capsys):
    model = tmp_path / "model"
    assert main(["fit", str(at_chance), str(model), *QUICK]) == 1
    assert "Not saved" in capsys.readouterr().out
    assert not model.exists()
    assert main(["fit", str(at_chance), str(model), *QUICK, "--force"]) == 0
    assert InpaintDetector.from_pretrained(model).classes_.tolist() == [0, 1]


def test_the_auc_is_that_of_the_scores(labelled_images):
    images, y, groups = labelled_images
    fitted = detector().fit(images, y, groups)
    held_out = fitted.out_of_fold_
    assert held_out.is_unseen
    auc = roc_auc_score(held_out.codes, held_out.decisions)
    assert out_of_fold_auc(fitted)["value"] == pytest.approx(auc)
    names = np.where(y == 0, "original", np.where(np.arange(len(y)) % 3 == 1, "a", "b"))
    several = detector().fit(images, names, groups)
    real = several.classes_.tolist().index("original")
    is_fake = several.out_of_fold_.codes != real
    assert out_of_fold_auc(several)["value"] > roc_auc_score(is_fake, ~is_fake)


def test_a_network_that_has_learnt_the_images_is_said_to_have(labelled_images, tmp_path):
    images, y, groups = labelled_images
    fitted = detector(cnn(finetune=tuning("head", epochs=1))).fit(images, y, groups)
    assert not fitted.out_of_fold_.is_unseen
    loaded = InpaintDetector.from_pretrained(fitted.save_pretrained(tmp_path / "model"))
    with pytest.raises(ValueError, match="a loaded detector has no out-of-fold scores"):
        out_of_fold_auc(loaded)


def test_what_a_run_judged_is_fitted(tree, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    flags = ["--data", str(tree), "--kernel", "poly", "--trials", "2", *QUICK[:8]]
    command = ["cnnsvm", "cv", *flags, "--folds", "2", "--seed", "3"]
    (run / "report.json").write_text(json.dumps({"command": " ".join(command)}))
    call = ["fit", str(tmp_path / "model"), "--like", str(run), "--trials", "1"]
    assert main([*call, "--inner-folds", "2", "--force"]) == 0
    fitted = InpaintDetector.from_pretrained(tmp_path / "model")
    assert (fitted.classifier.kernel, fitted.classifier.n_trials) == ("poly", 1)
    assert fitted.random_state == 3
    assert parse_run(run).data == str(tree)
    capsys.readouterr()


def test_a_folder_that_is_no_run_is_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", str(tmp_path / "model"), "--like", str(tmp_path)])
    assert end.value.code == 2
    assert "holds no report.json of `cnnsvm cv`" in capsys.readouterr().err
    assert main(["fit", str(tmp_path / "model")]) == 2
    assert "no data" in capsys.readouterr().err
