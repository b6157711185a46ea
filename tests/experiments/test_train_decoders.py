import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnsvm.generation.engines import Engine, one_by_one
from cnnsvm.generation.engines.decoder import decoder_engine, read_training
from cnnsvm.generation.engines.decoder_networks import DecoderSpec

ROOT = Path(__file__).parents[2]


def load_script():
    path = ROOT / "experiments" / "train_decoders.py"
    spec = importlib.util.spec_from_file_location("train_decoders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    module = load_script()
    module.SPECS = [("nearest", 8, "kl", "l1", 8), ("transposed", 4, "vq", "adversarial", 8)]
    return module


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Records whose fakes are no images: they must not be looked at."""
    folder = tmp_path_factory.mktemp("data")
    with zipfile.ZipFile(folder / "records.zip", "w") as packed:
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (70, 66, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "one.png")
            packed.write(folder / "one.png", f"monet_{i:04}/original.png")
            packed.writestr(f"monet_{i:04}/inpainting.webp", b"broken")
    return folder / "records.zip"


@pytest.fixture(scope="module")
def run(script, archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "decoders"
    arguments = ["--data", str(archive), "--out", str(out), "--steps", "2", "--seed", "5"]
    assert script.main(arguments) == 0
    return arguments, out


def test_the_table_is_of_eight_different_specs():
    specs = [DecoderSpec(*values) for values in load_script().SPECS]
    assert len({spec.name for spec in specs}) == 8
    assert specs[0].name == "nearest-8-kl-pyramid"
    assert specs[7].name == "bilinear-8-vq-pyramid"
    for field in ("upsampling", "factor", "bottleneck"):
        counts = [getattr(spec, field) for spec in specs]
        assert min(counts.count(value) for value in set(counts)) >= 2


def test_each_generator_is_saved_with_its_seed_and_runs(run):
    _, out = run
    seeds = {folder.name: read_training(folder)["random_state"] for folder in out.iterdir()}
    assert seeds == {"nearest-8-kl-l1": 5, "transposed-4-vq-adversarial": 6, "denoiser": 14}
    for name in seeds:
        assert decoder_engine(out / name).name == f"decoder:{name}"


def test_run_again_it_trains_nothing(run, script, monkeypatch, capsys):
    from decoders import training as decoder_training

    def forbidden(*args, **kwargs):
        raise AssertionError("done again")

    arguments, out = run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("train_autoencoder", "train_denoiser"):
        monkeypatch.setattr(decoder_training, name, forbidden)
    assert script.main(arguments) == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "generator", "nearest-8-kl-l1", "transposed-4-vq-adversarial", "denoiser",
    ]  # fmt: skip
    assert all(0 < float(line.split()[-1]) < 60 for line in lines[1:])


def test_other_settings_are_not_mixed_in(run, script, capsys):
    assert script.main([*run[0], "--steps", "3"]) == 2
    assert "n_steps 2, not 3). Choose another output folder" in capsys.readouterr().err


def test_damage_is_told_before_anything_is_trained(run, script, tmp_path, capsys):
    broken = tmp_path / "denoiser"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    assert script.main([*run[0], "--out", str(tmp_path)]) == 2
    assert "not a model's description" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--steps", "0"], "n_steps must be at least 1, got 0"),
        (["--device", "gpu"], "'gpu'"),
        (["--precision", "half"], "precision must be one of"),
    ],
)
def test_mistakes_are_one_message(script, archive, tmp_path, capsys, arguments, message):
    usual = ["--data", str(archive), "--out", str(tmp_path / "new")]
    assert script.main([*usual, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_mean_psnr_is_that_of_the_whole_output(script):
    engine = Engine("one off", one_by_one(lambda image, mask, seed: image + np.uint8(1 + seed)))
    found = script.mean_psnr(engine, [np.full((4, 5, 3), 9, np.uint8)] * 2)
    assert found == pytest.approx(20 * np.log10(255) - 10 * np.log10(2))
