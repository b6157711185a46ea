"""From a folder of images to a report, through a real (tiny, untrained) diffusion pipeline."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsvm.cli import main
from cnnsvm.data.manifest import read_manifest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "generation"))


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(6):
        coarse = np.random.default_rng(i).integers(0, 256, (6, 7, 3), dtype=np.uint8)
        size = (70 + 4 * i, 60 + i)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def records(photos, tmp_path_factory):
    """Records of both variants, made by Stable Diffusion 2's code with a model of a few kB."""
    from tiny_models import make_tiny_pipeline

    work = tmp_path_factory.mktemp("work")
    make_tiny_pipeline(work / "model")
    (photos / "text.png").write_text("no image")
    flags = ["--engine", f"diffusion:{work / 'model'}?steps=2", "--post-processing", "64,png"]
    flags += ["--variants", "both", "--schemas", "left", "random_patches", "strokes"]
    assert main(["build", str(photos), str(work / "records"), *flags]) == 0
    return work / "records"


def test_manifest_says_how_each_image_was_made(records):
    manifest = read_manifest(records / "manifest.parquet")
    assert manifest["variant"].value_counts().to_dict() == {
        "spliced": 18,
        "regenerated": 18,
        "original": 6,
    }
    fakes = manifest[manifest["label"] == 1]
    assert set(fakes["engine"]) == {"diffusion:model"}
    assert set(fakes["model_id"]) == {"model"}
    assert fakes["model_revision"].str.startswith("sha256:").all()
    assert set(fakes["prompt"]) == {"generate a painting compatible with the rest of the image"}
    assert set(fakes["steps"].astype(str)) == {"2"}
    assert set(manifest["history"]) == {"64x64,png"}
    assert str(records.parent) not in "".join(map(str, fakes["engine"] + fakes["model_id"]))


def test_records_pass_the_audit_of_their_files(records, capsys):
    assert main(["audit", str(records), "--folds", "3"]) in (0, 1)  # 2 is an error
    said = capsys.readouterr().out
    for check in ("post-processing", "metadata", "outside_mask"):
        assert re.search(rf"^  {check} .* pass( |$)", said, re.MULTILINE), said


def test_records_are_evaluated_to_a_report(records, tmp_path):
    flags = ["--finetune", "none", "--crop-size", "48", "--n-crops", "2", "--trials", "2"]
    flags += ["--inner-folds", "2", "--folds", "2", "--no-shuffled"]
    assert load_script("cv").main(["--data", str(records), "--out", str(tmp_path), *flags]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["n_images"] == 42
    assert set(report["by_variant"]) == {"spliced", "regenerated"}
    assert set(report["by_mask_schema"]) == {"left", "random_patches", "strokes"}
    assert set(report["by_engine"]) == {"diffusion:model"}


def test_sources_and_engine_given_to_the_experiment_alone(records, photos, tmp_path):
    """``cv.py --generate diffusion:<folder>`` does all of it in one command."""
    engine = f"diffusion:{records.parent / 'model'}?steps=2"
    flags = ["--generate", engine, "--codec", "32,png", "--skip-bad", "--finetune", "none"]
    flags += ["--crop-size", "32", "--n-crops", "1", "--trials", "1", "--inner-folds", "2"]
    flags += ["--folds", "2", "--no-shuffled", "--variants", "regenerated"]
    assert load_script("cv").main(["--data", str(photos), "--out", str(tmp_path), *flags]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["by_variant"]) == {"regenerated"}
