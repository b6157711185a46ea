import argparse
import json

import pytest

from cnnsvm import InpaintLocalizer
from cnnsvm.cli.localize_train import add_localizer_flags, make_localizer
from cnnsvm.localization.architectures.iidnet import PUBLISHED

#: Flag and value on the command line -> parameter and value of the localiser.
FLAGS = {
    "--architecture iidnet": ("architecture", "iidnet"),
    "--preprocessing residual": ("preprocessing", "residual"),
    "--mask-policy any": ("mask_policy", "any"),
    "--loss dice": ("loss", "dice"),
    "--optimizer adam": ("optimizer", "adam"),
    "--learning-rate 0.01": ("learning_rate", 0.01),
    "--weight-decay 0.1": ("weight_decay", 0.1),
    "--epochs 3": ("epochs", 3),
    "--patience 2": ("patience", 2),
    "--max-restarts 0": ("max_restarts", 0),
    "--validation-fraction 0.5": ("validation_fraction", 0.5),
    "--augmentation robust": ("augmentation", "robust"),
    "--crop-size 64": ("crop_size", 64),
    "--crops-per-image 3": ("crops_per_image", 3),
    "--crops 9": ("n_crops", 9),
    "--balance 0.2": ("balance", 0.2),
    "--warmup 0.2": ("warmup", 0.2),
    "--tile-size 128": ("tile_size", 128),
    "--tile-overlap 8": ("tile_overlap", 8),
    "--threshold iou": ("threshold", "iou"),
    "--distributed": ("distributed", True),
    "--device cpu": ("device", "cpu"),
    "--precision float32": ("precision", "float32"),
    "--gpu-memory-fraction 0.5": ("gpu_memory_fraction", 0.5),
    "--batch-size 2": ("batch_size", 2),
    "--jobs 2": ("n_jobs", 2),
    "--seed 3": ("random_state", 3),
}
#: Those that need an architecture, or a file; their own tests are below.
TESTED_BELOW = {"size", "genotype", "weights"}
#: The command sets it, so that an interrupted training goes on.
WITHOUT_FLAG = {"cache_dir", "max_pixels", "callbacks"}


@pytest.fixture
def unbuilt(monkeypatch):
    """Leave out the network of 33 million parameters, which says nothing about flags."""
    monkeypatch.setattr(InpaintLocalizer, "build_network", lambda self, seed=0: None)


def localizer_of(arguments):
    parser = argparse.ArgumentParser()
    add_localizer_flags(parser)
    return make_localizer(parser.parse_args(arguments))


def params_of(localizer):
    """All parameters, those of the training by their own names."""
    params = {k: v for k, v in localizer.get_params(deep=False).items() if k != "training"}
    return params | localizer.settings.get_params()


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_sets_its_parameter_and_no_other(flag, unbuilt):
    name, value = FLAGS[flag]
    plain = params_of(localizer_of([]))
    assert plain[name] != value
    assert params_of(localizer_of(flag.split())) == plain | {name: value}


def test_every_parameter_has_a_flag_or_a_reason():
    named = {name for name, _ in FLAGS.values()} | TESTED_BELOW
    assert named | WITHOUT_FLAG == set(params_of(InpaintLocalizer()))
    assert not named & WITHOUT_FLAG


def test_without_flags_parameters_are_the_localisers(unbuilt):
    ours, usual = params_of(localizer_of([])), params_of(InpaintLocalizer())
    assert {n for n in usual if ours[n] != usual[n]} == {"n_jobs", "random_state"}


def test_a_size_is_one_of_its_architecture():
    assert localizer_of(["--architecture", "nixnet", "--size", "2m"]).size == "2m"


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_genotype_is_read_from_json(tmp_path, wrapped):
    cells = [list(cell) for cell in PUBLISHED]
    file = tmp_path / "genotype.json"
    file.write_text(json.dumps({"genotype": cells, "score": 1} if wrapped else cells))
    made = localizer_of(["--architecture", "iidnet", "--genotype", str(file)])
    assert made.genotype == cells


def test_weights_may_be_a_file_or_none(unbuilt):
    assert localizer_of(["--weights", "none"]).weights is None
    assert localizer_of(["--weights", "net.safetensors"]).weights == "net.safetensors"


@pytest.mark.parametrize(
    "flag",
    [
        "--loss hinge",
        "--mask-policy most",
        "--crop-size 8",
        "--tile-overlap 600",
        "--threshold 2",
        "--architecture unet",
        "--architecture iidnet --size 2m",
        "--architecture nixnet --preprocessing residual",
    ],
)
def test_a_wrong_value_is_refused_before_anything_starts(flag):
    *_, name, value = flag.split()
    with pytest.raises(ValueError, match=rf"{name[2:].replace('-', '_')}.*{value}"):
        localizer_of(flag.split())


def test_a_genotype_that_is_no_json_is_told(tmp_path):
    (tmp_path / "g.json").write_text("nothing")
    with pytest.raises(ValueError, match="not JSON"):
        localizer_of(["--genotype", str(tmp_path / "g.json")])
