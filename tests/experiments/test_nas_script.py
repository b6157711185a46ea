import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsvm import InpaintLocalizer
from cnnsvm.cli import main as cnnsvm
from cnnsvm.cli.localize_train import read_genotype

ROOT = Path(__file__).parents[2]
QUICK = ["--trials", "2", "--epochs", "1", "--crop-size", "32", "--precision", "float32"]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "experiments" / "nas.py"
    spec = importlib.util.spec_from_file_location("nas_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.N_REPEATS = 1
    return module


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = tmp_path_factory.mktemp("nas")
    (root / "photos").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{i}.png")
    flags = ["--schemas", "diagonal_upper_left", "--no-panels"]
    assert cnnsvm(["build", str(root / "photos"), str(root / "records"), *flags]) == 0
    return root / "records"


@pytest.fixture(scope="module")
def run(script, records, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    arguments = ["--data", str(records), "--out", str(out), *QUICK]
    assert script.main(arguments) == 0
    return arguments, out


def test_the_published_genotype_is_beside_the_found_one(run):
    result = json.loads((run[1] / "genotype.json").read_text())
    assert set(result["scores"]) == {"published", "found"}
    for repeats in result["scores"].values():
        assert len(repeats) == 1
        assert 0 <= repeats[0]["auc"] <= 1
    assert sum(result["trials"].values()) == 2
    assert all(n > 0 for n in result["images"].values())


def test_a_localiser_takes_what_was_found(run):
    genotype = read_genotype(run[1] / "genotype.json")
    made = InpaintLocalizer("iidnet", size="small", genotype=genotype)
    assert made.build_network() is not None


def test_run_again_it_trains_nothing(run, script, monkeypatch, capsys):
    from architecture_search import search

    monkeypatch.setattr(search, "_trainer", None)
    before = json.loads((run[1] / "genotype.json").read_text())
    assert script.main(run[0]) == 0
    after = json.loads((run[1] / "genotype.json").read_text())
    assert after["scores"] == before["scores"]
    assert after["genotype"] == before["genotype"]
    assert "Both were trained alike" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--trials", "0"], "n_trials must be at least 1"),
        (["--size", "huge"], "size must be one of"),
        (["--learning-rate", "0.5"], "storage="),
    ],
)
def test_mistakes_are_one_message(run, script, capsys, arguments, message):
    assert script.main([*run[0], *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
