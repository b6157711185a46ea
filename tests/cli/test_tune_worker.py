"""`fit --storage` begins a search in a database, of which `tune-worker` runs trials."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from cnnsvm import InpaintDetector
from cnnsvm.cli import main

QUICK = [
    *("--backbone", "plain_cnn", "--finetune", "none", "--crop-size", "32", "--n-crops", "2"),
    *("--trials", "3", "--inner-folds", "2", "--kernel", "linear", "--force"),
]


@pytest.fixture
def tree(labelled_images, tmp_path):
    for k, (image, label) in enumerate(zip(*labelled_images[:2], strict=True)):
        place = tmp_path / "tree" / ("fake" if label else "real")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{k:02d}.png")
    return tmp_path / "tree"


def test_a_search_that_fit_began_is_joined(tree, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    url, model = f"sqlite:///{tmp_path}/s.db", tmp_path / "model"
    search = ["--storage", url, "--study", "portraits"]
    assert main(["fit", str(tree), str(model), *QUICK, *search]) == 0
    (join,) = re.findall(r"other hosts join by: cnnsvm (tune-worker .*)", caplog.text)
    found = InpaintDetector.from_pretrained(model).classifier_
    capsys.readouterr()
    for call in (join.split(), ["tune-worker", *search, "--rows", str(tmp_path / "model.work")]):
        assert main(call) == 0
        assert capsys.readouterr().out == f"linear: 3 trials, best AUC {found.best_score_:.4f}\n"
    assert found.storage is None
    assert main(["fit", str(tree), str(model), *QUICK, *search, "--seed", "1"]) == 2
    assert "'portraits linear' of other" in capsys.readouterr().err


def test_what_cannot_be_joined_is_one_message(tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "search-rows.npz", X=np.zeros((2, 1)), y=np.arange(2))
    call = ["tune-worker", "--study", "portraits", "--rows", str(tmp_path), "--storage"]
    assert main([*call, f"sqlite:///{tmp_path}/s.db"]) == 2
    assert "--study 'portraits' is not in sqlite" in capsys.readouterr().err
    assert main([*call, str(tmp_path / "studies.log")]) == 2
    assert "no URL of a database" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert main([*call, "postgresql://user@127.0.0.1:1/studies"]) == 2
    assert "needs a database driver" in capsys.readouterr().err
