import argparse

import numpy as np
import pytest
from tiny_detector import detector, statistics, tuning

from cnnsvm import CNNEmbedder, FineTuning, InpaintDetector, ResidualStatistics, TunedSVC
from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector
from cnnsvm.io.bundle import SHIPPED, BundleError

#: Flag and value on the command line -> nested parameter of a detector and its value.
FLAGS = {
    "--backbone resnet34": ("embedder__backbone", "resnet34"),
    "--weights imagenet": ("embedder__weights", "imagenet"),
    "--stem nodown": ("embedder__stem", "nodown"),
    "--truncate-at layer2": ("embedder__truncate_at", "layer2"),
    "--preprocessing residual_bank": ("embedder__preprocessing", "residual_bank"),
    "--finetune head": ("embedder__finetune__mode", "head"),
    "--augmentation full": ("embedder__finetune__augmentation", "full"),
    "--pairs-per-source 2": ("embedder__finetune__pairs_per_source", 2),
    "--epochs 3": ("embedder__finetune__epochs", 3),
    "--learning-rate 0.01": ("embedder__finetune__learning_rate", 0.01),
    "--crop-size 64": ("embedder__crop_size", 64),
    "--n-crops 9": ("embedder__n_crops", 9),
    "--mirror": ("embedder__mirror", True),
    "--pooling mean_std_top": ("embedder__pooling", "mean_std_top"),
    "--output scores": ("embedder__output", "scores"),
    "--resize 256": ("embedder__resize", 256),
    "--batch-size 8": ("embedder__batch_size", 8),
    "--device cpu": ("embedder__device", "cpu"),
    "--precision float32": ("embedder__precision", "float32"),
    "--backend auto": ("embedder__backend", "auto"),
    "--gpu-memory-fraction 0.5": ("embedder__gpu_memory_fraction", 0.5),
    "--jobs 2": ("embedder__n_jobs", 2),
    "--kernel rbf,linear": ("classifier__kernel", ("rbf", "linear")),
    "--soft-vote": ("classifier__voting", "soft"),
    "--trials 5": ("classifier__n_trials", 5),
    "--inner-folds 4": ("classifier__cv", 4),
    "--landmarks 500": ("classifier__n_landmarks", 500),
    "--views 2": ("n_views", 2),
    "--threshold 0.7": ("threshold", 0.7),
    "--max-error 0.1": ("max_error", 0.1),
    "--seed 3": ("random_state", 3),
}
#: Parameters that a command line has no use for, sets itself, or sets by another flag.
WITHOUT_FLAG = {
    *("embedder", "embedder__finetune", "embedder__cache_dir", "embedder__random_state"),
    *("embedder__finetune__patience", "embedder__finetune__weight_decay"),
    *("embedder__finetune__validation_fraction", "classifier", "classifier__calibrate"),
    *("classifier__scale", "classifier__cache_size", "classifier__storage"),
    "classifier__study",
    *(
        "classifier__verbose",
        "classifier__random_state",
        "augmentation",
        "cv",
        "cache_dir",
        "max_pixels",
        "classifier__callbacks",
        "embedder__finetune__callbacks",
    ),
}


def parse(*argv, shipped=False):
    parser = argparse.ArgumentParser()
    add_detector_flags(parser)
    return make_detector(parser.parse_args(argv), shipped=shipped)


def params_of(*argv):
    """Return the nested parameters of a detector with one embedder."""
    model = parse(*argv)
    (embedder,) = model.embedder
    params = model.set_params(embedder=embedder).get_params()
    return {k: v for k, v in params.items() if not hasattr(v, "get_params")}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_sets_its_parameter_and_no_other(flag):
    name, value = FLAGS[flag]
    plain, changed = params_of(), params_of(*flag.split())
    assert plain[name] != value
    assert changed == plain | {name: value} | ({"augmentation": "full"} if "full" in flag else {})


def test_every_parameter_has_a_flag_or_a_reason():
    whole = InpaintDetector(CNNEmbedder(finetune=FineTuning()), TunedSVC())
    named = {name for name, _ in FLAGS.values()}
    assert named | WITHOUT_FLAG == set(whole.get_params())
    assert not named & WITHOUT_FLAG


def test_statistics_stand_beside_the_network_or_alone():
    both = parse("--statistics", "--crop-size", "64").embedder
    assert [type(embedder) for embedder in both] == [CNNEmbedder, ResidualStatistics]
    assert {embedder.crop_size for embedder in both} == {64}
    (alone,) = parse("--backbone", "statistics", "--epochs", "3").embedder
    assert isinstance(alone, ResidualStatistics)
    assert alone.finetune.epochs == 3


def test_embedders_of_saved_detectors_stand_beside_frozen():
    own, first, second = parse("--beside", "cifake", "--output", "scores").embedder
    assert own.finetune.mode == "full"
    assert [e.backbone for e in (first, second)] == ["resnet18", "plain_cnn_7"]
    assert {(e.weights, e.finetune, e.output) for e in (first, second)} == {
        ("cifake", "none", "scores")
    }


def test_layers_of_other_libraries_are_numbers():
    (embedder,) = parse("--backbone", "timm:resnet18", "--truncate-at", "2").embedder
    assert embedder.truncate_at == 2


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--stem wide", "'stem'.*'wide'"),
        ("--pooling median", "'pooling'.*'median'"),
        ("--views 0", "'n_views'.*0"),
        ("--max-error 2", "'max_error'.*2"),
        ("--finetune none --pooling mean_top", "pooling='mean_top'"),
        ("--finetune some", "'mode'.*'some'"),
        ("--kernel cubic", "cubic"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_starts(flag, message):
    with pytest.raises(ValueError, match=message):
        parse(*flag.split())


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
    model = detector(statistics(finetune=tuning(epochs=1), n_crops=5, pooling="mean_top"))
    model.fit(images, np.arange(8) % 2, groups=np.arange(8) // 2)
    monkeypatch.setitem(SHIPPED, "cnnsvm", model.save_pretrained(tmp_path / "weights"))


def test_without_an_embedder_of_ones_own_the_shipped_one_embeds(shipped):
    model = parse("--trials", "3", "--n-crops", "2", shipped=True)
    (embedder,) = model.embedder
    assert isinstance(embedder, ResidualStatistics)
    assert (embedder.weights, embedder.finetune, embedder.crop_size) == ("cnnsvm", "none", 32)
    assert (embedder.pooling, embedder.n_crops) == ("mean_top", 2)
    assert model.classifier.n_trials == 3
    assert parse(shipped=True).embedder[0].n_crops == 5


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
def test_an_embedder_of_ones_own_has_the_usual_flags(shipped, given):
    embedder = parse(*given, shipped=True).embedder[0]
    assert isinstance(embedder, CNNEmbedder)
    assert embedder.weights is None
    assert embedder.crop_size == 96
    assert embedder.finetune.mode == "full"


def test_where_none_ships_the_usual_flags_hold(tmp_path, monkeypatch):
    monkeypatch.setitem(SHIPPED, "cnnsvm", tmp_path / "none")
    assert parse(shipped=True).embedder[0].backbone == "resnet18"


def test_the_shipped_embedder_can_be_asked_for_and_trained_on(shipped):
    (asked,) = parse("--weights", "cnnsvm").embedder
    assert (asked.weights, asked.finetune) == ("cnnsvm", "none")
    (further,) = parse("--weights", "cnnsvm", "--finetune", "full", "--epochs", "2").embedder
    assert (further.weights, further.finetune.epochs) == ("cnnsvm", 2)
    (other,) = parse("--weights", "cnnsvm", "--backbone", "resnet18").embedder
    assert isinstance(other, CNNEmbedder)  # whose fit says that the weights do not fit


def test_a_damaged_shipped_detector_is_told(shipped):
    config = SHIPPED["cnnsvm"] / "config.json"
    config.write_text(config.read_text().replace("mean_top", "mean_std"))
    with pytest.raises(BundleError, match="has changed"):
        parse(shipped=True)


def test_help_names_the_values_that_hold_without_a_flag(capsys):
    parser = argparse.ArgumentParser()
    add_detector_flags(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "or statistics for none [resnet18]" in text
    assert "[96]" in text
    assert "object" not in text
    assert "[None]" not in text
