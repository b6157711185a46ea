import argparse

import numpy as np
import pytest

from cnnsvm import InpaintDetector
from cnnsvm.cli.flags import (
    add_data_flags,
    add_detector_flags,
    make_detector,
)
from cnnsvm.detection import saved_networks as reuse
from cnnsvm.features.weights import WeightsError
from cnnsvm.io.bundle import BundleError

#: Flag and value on the command line -> parameter and value of the detector.
FLAGS = {
    "--backbone resnet34": ("backbone", "resnet34"),
    "--weights imagenet": ("weights", "imagenet"),
    "--stem nodown": ("stem", "nodown"),
    "--truncate-at layer2": ("truncate_at", "layer2"),
    "--preprocessing residual_bank": ("preprocessing", "residual_bank"),
    "--finetune head": ("finetune", "head"),
    "--augmentation robust": ("augmentation", "robust"),
    "--pairs-per-source 2": ("pairs_per_source", 2),
    "--epochs 3": ("epochs", 3),
    "--learning-rate 0.01": ("learning_rate", 0.01),
    "--crop-size 64": ("crop_size", 64),
    "--crops 9": ("n_crops", 9),
    "--mirror": ("mirror", True),
    "--pooling mean_std_top": ("pooling", "mean_std_top"),
    "--statistics": ("statistics", True),
    "--fusion scores": ("fusion", "scores"),
    "--ensemble cifake": ("ensemble", ("cifake",)),
    "--views 1": ("n_views", 1),
    "--batch-size 8": ("batch_size", 8),
    "--kernel rbf,linear": ("kernel", ("rbf", "linear")),
    "--soft-vote": ("voting", "soft"),
    "--trials 5": ("n_trials", 5),
    "--inner-folds 4": ("cv", 4),
    "--nystroem 500": ("nystroem", 500),
    "--threshold 0.7": ("threshold", 0.7),
    "--max-error 0.05": ("max_error", 0.05),
    "--seed 3": ("random_state", 3),
    "--device cpu": ("device", "cpu"),
    "--precision float32": ("precision", "float32"),
    "--gpu-memory-fraction 0.5": ("gpu_memory_fraction", 0.5),
    "--jobs 1": ("n_jobs", 1),
}
#: Parameters that a command line has no use for, or sets itself.
WITHOUT_FLAG = {"patience", "weight_decay", "validation_fraction", "calibrate"}
WITHOUT_FLAG |= {"cache_dir", "verbose"}


def detector_of(arguments):
    parser = argparse.ArgumentParser()
    add_detector_flags(parser)
    return make_detector(parser.parse_args(arguments))


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_sets_its_parameter_and_no_other(flag):
    name, value = FLAGS[flag]
    plain = detector_of([]).get_params()
    assert plain[name] != value
    assert detector_of(flag.split()).get_params() == plain | {name: value}


def test_every_parameter_has_a_flag_or_a_reason():
    named = {name for name, _ in FLAGS.values()}
    assert named | WITHOUT_FLAG == set(InpaintDetector().get_params())
    assert not named & WITHOUT_FLAG


def test_without_flags_parameters_that_are_not_about_speed_are_the_detectors():
    ours, usual = detector_of([]).get_params(), InpaintDetector().get_params()
    own = {"weights", "augmentation", "epochs", "crop_size", "n_crops", "n_trials", "threshold"}
    own |= {"n_jobs", "random_state"}
    assert {name for name in usual if ours[name] != usual[name]} == own


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--stem wide", "stem must be one of"),
        ("--pooling median", "pooling must be one of"),
        ("--views 0", "n_views must be"),
        ("--views 3", "makes copies: it degrades nothing"),
        ("--max-error 2", "max_error"),
        ("--finetune none --pooling mean_top", "ranks crops"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_starts(flag, message):
    with pytest.raises(ValueError, match=message):
        detector_of(flag.split())


def test_making_fakes_can_be_left_out():
    for generate in (True, False):
        parser = argparse.ArgumentParser()
        add_data_flags(parser, generate=generate)
        names = vars(parser.parse_args([]))
        assert ("generate" in names) == ("variants" in names) == generate
        assert {"codec", "groups", "skip_bad"} <= set(names)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A detector that ships, of other settings than the flags' own."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(8)]
    detector = InpaintDetector(
        "statistics",
        weights=None,
        augmentation="geometric",
        crop_size=32,
        n_crops=5,
        pooling="mean_top",
        epochs=1,
        kernel="linear",
        n_trials=1,
        cv=2,
        random_state=0,
    )
    detector.fit(images, np.arange(8) % 2, groups=np.arange(8) // 2)
    monkeypatch.setitem(reuse.SHIPPED, "cnnsvm", detector.save(tmp_path / "weights"))


def parse_shipped(*argv, shipped=True):
    parser = argparse.ArgumentParser()
    add_detector_flags(parser)
    return make_detector(parser.parse_args(list(argv)), shipped=shipped).get_params()


def test_without_a_network_of_ones_own_the_shipped_one_embeds(shipped):
    params = parse_shipped("--trials", "3", "--crops", "2")
    wanted = {"backbone": "statistics", "weights": "cnnsvm", "finetune": "none", "crop_size": 32}
    wanted |= {"pooling": "mean_top", "n_trials": 3, "n_crops": 2}
    assert {name: params[name] for name in wanted} == wanted
    assert parse_shipped()["n_crops"] == 5


@pytest.mark.parametrize(
    "given",
    [
        ("--backbone", "resnet34"),
        ("--weights", "none"),
        ("--finetune=full",),
        ("--epochs", "3"),
        ("--statistics",),
        ("--stem", "nopool"),
    ],
)
def test_a_network_of_ones_own_has_the_usual_flags(shipped, given):
    params = parse_shipped(*given)
    assert params["weights"] is None
    assert params["crop_size"] == 96
    assert params["finetune"] == "full"


def test_where_none_ships_the_usual_flags_hold(tmp_path, monkeypatch):
    monkeypatch.setitem(reuse.SHIPPED, "cnnsvm", tmp_path / "none")
    assert parse_shipped()["backbone"] == "resnet18"


def test_the_shipped_network_can_be_asked_for(shipped):
    asked = parse_shipped("--weights", "cnnsvm", shipped=False)
    assert (asked["backbone"], asked["finetune"]) == ("statistics", "none")
    assert parse_shipped(shipped=False)["backbone"] == "resnet18"
    with pytest.raises(WeightsError, match="backbone='statistics', not 'resnet18'"):
        parse_shipped("--weights", "cnnsvm", "--backbone", "resnet18")


def test_a_damaged_shipped_detector_is_told(shipped):
    config = reuse.SHIPPED["cnnsvm"] / "config.json"
    config.write_text(config.read_text().replace("mean_top", "mean_std"))
    with pytest.raises(BundleError, match="has changed since it was saved"):
        parse_shipped()


def test_the_shipped_network_can_be_trained_on(shipped):
    params = parse_shipped("--weights", "cnnsvm", "--finetune", "full", "--epochs", "2")
    assert (params["backbone"], params["finetune"], params["epochs"]) == ("statistics", "full", 2)


def test_help_names_the_values_that_hold_without_a_flag(capsys):
    parser = argparse.ArgumentParser()
    add_detector_flags(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "a torchvision name or statistics [resnet18]" in text
    assert "[96]" in text
    assert "object" not in text
    assert "[None]" not in text
