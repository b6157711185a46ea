"""The scripts of ``examples/`` run, with small models in the place of those that ship."""

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from textures import repaint, texture
from tiny_shipped import make_shipped, use_shipped

from cnnsvm import InpaintDetector

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Untouched images, one that is not, and the models."""
    folder = tmp_path_factory.mktemp("examples")
    for name, n_images in (("untouched", 19), ("photos", 6)):
        (folder / name).mkdir()
        for seed in range(n_images):
            Image.fromarray(texture(seed, 64, 64)).save(folder / name / f"{seed}.png")
    Image.fromarray(repaint(texture(99))).save(folder / "repainted.png")
    make_shipped(folder / "shipped")
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run an example on files of the folder, and return what it prints."""
    use_shipped(monkeypatch, folder / "shipped")
    monkeypatch.chdir(folder)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_is_listed_and_tested():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f"]({script.name})" in text
        assert f'run("{script.name}"' in tests


def test_train_saves_a_detector_of_both_classes(run, folder):
    said = run("train.py", "photos", "model").splitlines()
    assert {line.split(": ")[1] for line in said} <= {"real", "fake", "unsure"}
    assert InpaintDetector.from_pretrained(folder / "model").classes_.tolist() == [0, 1]


def test_judge_folder_writes_a_row_an_image(run, folder):
    run("judge_folder.py", "photos", "out.csv")
    table = pd.read_csv(folder / "out.csv")
    assert len(table) == 6
    assert table["no_trace"].is_monotonic_increasing


def test_own_backbone_tells_easy_fakes_apart(run):
    assert float(run("own_backbone.py", "photos").split()[-1]) > 0.6


def test_recalibrate_says_what_it_promises(run):
    assert "5.0% will be named fake" in run("recalibrate.py", "untouched", "photos")


def test_heatmap_draws_an_image(run, folder):
    run("heatmap.py", "repainted.png", "heat.png")
    assert len(set(Image.open(folder / "heat.png").convert("L").tobytes())) > 50
