import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.cli import main as cnnsvm

ROOT = Path(__file__).parents[2]
QUICK = [
    *("--architectures", "iidnet:small", "--crop-size", "32", "--epochs", "1", "--crops", "1"),
    *("--augmentation", "none", "--precision", "float32", "--folds", "2", "--codec", "keep"),
]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "experiments" / "localize.py"
    spec = importlib.util.spec_from_file_location("localize_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.N_RESAMPLES, module.N_STEPS = 20, 1
    return module


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("localize")
    (root / "photos").mkdir()
    for i in range(5):
        rng = np.random.default_rng(i)
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "photos" / f"{i}.png")
    flags = ["--schemas", "diagonal_upper_left", "--edge", "blur:2", "--no-panels"]
    for engine in ("opencv-telea", "opencv-ns"):
        place = str(root / engine)
        assert cnnsvm(["build", str(root / "photos"), place, "--engine", engine, *flags]) == 0
    return [str(root / "opencv-telea"), str(root / "opencv-ns")]


@pytest.fixture(scope="module")
def run(script, records, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    arguments = ["--data", *records, "--out", str(out), *QUICK, "--tables", "cross", "masks"]
    arguments += ["cost", "--limit", "4"]
    assert script.main(arguments) == 0
    return arguments, out


def test_the_report_has_every_localiser_and_its_overlays(run):
    report = json.loads((run[1] / "localization.json").read_text())
    kinds = ["opencv-ns spliced", "opencv-telea spliced"]
    assert report["kinds"] == kinds
    assert report["n_sources"] == 4
    fits = [(fit["trained_on"], fit["policy"]) for fit in report["fits"]]
    assert fits == [(kinds[0], "half"), (kinds[1], "half"), (kinds[0], "any"), (kinds[0], "full")]
    assert report["costs"]["iidnet:small"]["parameters"] > 1e5
    assert {row["control"] for row in report["controls"]} == {"every pixel", "where masks lie"}
    page = (run[1] / "localization.html").read_text()
    assert "From one engine to another" in page
    assert "Without looking at an image" in page
    assert page.count("data:image/jpeg") == 4 * 2 * 4  # of each localiser two images
    assert "<script" not in page


def test_no_source_is_trained_on_and_judged(run):
    table = pd.read_csv(run[1] / "localization-images.csv", dtype={"source_id": str})
    report = json.loads((run[1] / "localization.json").read_text())
    assert table["source_id"].nunique() == 2
    assert {fit["n_images"] for fit in report["fits"]} == {4}  # two sources, fake and original


def test_edges_that_are_blurred_make_policies_differ(run):
    report = json.loads((run[1] / "localization.json").read_text())
    assert report["has_greys"]
    of_one = [row for row in report["summary"] if row["policy"] == "any" and row["pooled_auc"]]
    assert len({row["pooled_auc"] for row in of_one}) == 3


def test_run_again_it_trains_and_judges_nothing(run, script, monkeypatch, capsys):
    from cnnsvm import InpaintLocalizer

    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    arguments, out = run
    before = (out / "localization.csv").read_text()
    for method in ("fit", "predict_proba"):
        monkeypatch.setattr(InpaintLocalizer, method, forbidden)
    assert script.main(arguments) == 0
    assert (out / "localization.csv").read_text() == before
    assert "Side by side: opencv-ns spliced" in capsys.readouterr().out


def test_other_settings_are_not_mixed_in(run, script, capsys):
    assert script.main([*run[0], "--learning-rate", "0.01"]) == 2
    assert "Choose another output folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--tables", "table3"], "there is no table 'table3'"),
        (["--architectures", "unet"], "architecture"),
        (["--architectures", "iidnet:huge"], "size must be one of"),
        (["--main", "vae spliced"], "There are: opencv-ns spliced"),
        (["--folds", "9"], "but 9 folds were asked for"),
        (["--limit", "-1"], "at least 1, got -1"),
        (["--distributed"], "torchrun"),
    ],
)
def test_mistakes_are_one_message(script, records, tmp_path, capsys, arguments, message):
    usual = ["--data", *records, "--out", str(tmp_path), *QUICK, "--tables", "cross"]
    assert script.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_flags_of_one_architecture_do_not_trouble_the_others(script, tmp_path):
    genotype = tmp_path / "g.json"
    cells = [["identity"] * 3] * 10
    genotype.write_text(json.dumps(cells))
    arguments = ["--genotype", str(genotype), "--architectures", "nixnet:2m", "iidnet:small"]
    args = script.parse_arguments(arguments)
    designs = script.make_designs(args, args.architectures)
    assert designs["nixnet:2m"].genotype is None
    assert designs["iidnet:small"].genotype == cells
    assert designs["nixnet:2m"].size == "2m"
