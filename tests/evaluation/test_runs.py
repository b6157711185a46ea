"""The contract of a run directory: resumed part by part, never mixed with another run."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from tiny_detector import cnn, detector, statistics

from cnnsvm import CNNEmbedder
from cnnsvm.evaluation.detectors import detector_settings
from cnnsvm.evaluation.runs import RunDirectory, RunMismatchError, fingerprint_of
from cnnsvm.features.cache import hash_settings
from cnnsvm.io.files import write_text

TABLE = pd.DataFrame({"score": [0.1, 1 / 3, -np.pi], "verdict": ["fake", "unsure", "original"]})
PARTS = {
    "a.json": {"auc": 1 / 3, "epochs": [1, 2], "name": "x", "undefined": None},
    "deep/er/b.parquet": TABLE,
    "c.txt": "text",
}
TEXT = {
    "load": lambda path: path.read_text(),
    "save": lambda text, path: write_text(path, text),
}


def take(run, name, calls, value=None):
    def compute():
        calls.append(name)
        return PARTS[name] if value is None else value

    return run.part(name, compute, **(TEXT if name.endswith(".txt") else {}))


def same(found, expected):
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_computed_once_and_then_read(tmp_path, name):
    calls = []
    for _ in range(2):
        same(take(RunDirectory(tmp_path / "run", "me"), name, calls), PARTS[name])
    assert calls == [name]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("name", PARTS)
def test_without_a_folder_every_part_is_computed(name):
    calls = []
    run = RunDirectory(None, "me")
    for _ in range(2):
        same(take(run, name, calls), PARTS[name])
    assert len(calls) == 2
    assert run.cache(name) is None
    assert run.subfolder("inner") is None


def test_an_interrupted_run_goes_on_with_the_missing_parts(tmp_path):
    calls = []
    take(RunDirectory(tmp_path, "me"), "a.json", calls)
    with pytest.raises(KeyboardInterrupt):
        RunDirectory(tmp_path, "me").part("c.txt", _interrupt, **TEXT)
    run = RunDirectory(tmp_path, "me")
    for name in PARTS:
        take(run, name, calls)
    assert calls == list(PARTS)


def _interrupt():
    raise KeyboardInterrupt


def test_a_damaged_write_leaves_no_part(tmp_path):
    with pytest.raises(TypeError):
        RunDirectory(tmp_path, "me").part("a.json", object)
    assert take(RunDirectory(tmp_path, "me"), "a.json", []) == PARTS["a.json"]


@pytest.mark.parametrize("name", PARTS)
def test_another_run_is_refused_and_changes_nothing(tmp_path, name):
    take(RunDirectory(tmp_path, "me"), name, [])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunMismatchError, match="Choose another output folder") as caught:
        RunDirectory(tmp_path, "you")
    assert str(tmp_path) in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_without_results_is_free(tmp_path):
    run = RunDirectory(tmp_path, "me")
    cache = run.cache("fold_0/a.json")
    (cache / "deep").mkdir(parents=True)
    (cache / "deep" / "state").write_text("half")
    (tmp_path / ".a.json.123.partial").write_text("half")
    take(RunDirectory(tmp_path, "you"), "a.json", [])
    with pytest.raises(RunMismatchError):
        RunDirectory(tmp_path, "me")


def test_results_may_be_named_by_a_pattern(tmp_path):
    (tmp_path / "holiday.txt").write_text("not of a run")
    RunDirectory(tmp_path, "me", results="*.csv")
    (tmp_path / "table.csv").write_text("1")
    RunDirectory(tmp_path, "me", results="*.csv")
    with pytest.raises(RunMismatchError):
        RunDirectory(tmp_path, "you", results="*.csv")


def test_the_cache_of_a_part_goes_when_the_part_is_stored(tmp_path):
    run = RunDirectory(tmp_path, "me")
    caches = [run.cache(f"fold_{k}/a.json") for k in (0, 1)]
    for cache in caches:
        cache.mkdir(parents=True)
    run.part("fold_0/a.json", dict)
    assert [cache.exists() for cache in caches] == [False, True]


def test_the_time_of_a_part_is_that_of_its_computation(tmp_path):
    run = RunDirectory(tmp_path, "me")
    take(run, "a.json", [])
    assert run.seconds["a.json"] >= 0
    again = RunDirectory(tmp_path, "me")
    take(again, "a.json", [])
    assert again.seconds == run.seconds
    (tmp_path / "seconds.json").unlink()
    assert RunDirectory(tmp_path, "me").seconds == {}


def manifest(n=3):
    columns = ("path", "source_id", "label", "variant", "engine", "mask_schema", "sha256")
    return pd.DataFrame([{name: f"{name}{i}" for name in columns} for i in range(n)])


def test_a_fingerprint_depends_on_model_settings_images_and_facts():
    known = {fingerprint_of(b"model", (1, "a"), manifest())}
    assert fingerprint_of(b"model", (1, "a"), manifest()) in known
    changed = [manifest().assign(**{name: "other"}) for name in manifest()]
    known |= {fingerprint_of(b"model", (1, "a"), table) for table in (*changed, manifest(2))}
    known |= {fingerprint_of(b"other", (1, "a"), manifest())}
    known |= {fingerprint_of(b"model", (2, "a"), manifest())}
    assert len(known) == len(changed) + 4
    without = manifest().assign(sha256=None)
    assert fingerprint_of(b"", (), without) == fingerprint_of(b"", (), without.copy())


def test_settings_are_those_that_results_depend_on():
    model = detector(cnn("squeezenet1_1"))
    before = detector_settings(model)
    assert len(before) == 32
    model.set_params(cache_dir="elsewhere", classifier__verbose=True, classifier__storage="here")
    model.embedder[0].set_params(n_jobs=3, gpu_memory_fraction=0.5, cache_dir="elsewhere")
    assert detector_settings(model) == before
    known = {before}
    for change in ({"classifier__n_trials": 9}, {"n_views": 2}, {"embedder": [statistics()]}):
        known.add(detector_settings(clone(model).set_params(**change)))
    model.embedder[0].set_params(n_crops=3)
    known.add(detector_settings(model))
    model.set_params(classifier=LogisticRegression())
    known.add(detector_settings(model))
    assert len(known) == 6


def test_changed_weights_are_other_settings(tmp_path):
    file = tmp_path / "weights.pth"
    model, found = detector(cnn("squeezenet1_1", weights=str(file))), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
        found.append(detector_settings(model))
    assert found[0] == found[1] != found[2]


def test_other_weights_of_a_module_and_other_arrays_are_other_settings():
    def module(seed):
        torch.manual_seed(seed)
        return torch.nn.Conv2d(3, 4, 3)

    found = [detector_settings(detector(CNNEmbedder(module(seed)))) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    middle = np.zeros(5000)
    middle[2500] = 1  # where a printed array has dots
    assert hash_settings({"prior": middle}) != hash_settings({"prior": np.zeros(5000)})


def test_settings_without_content_are_refused():
    with pytest.raises(ValueError, match="lambda"):
        detector_settings(detector(FunctionTransformer(lambda images: images)))


def test_a_changed_saved_detector_is_other_settings(tmp_path):
    (tmp_path / "model").mkdir()
    model, found = detector(cnn(), statistics(weights=tmp_path / "model")), []
    for threshold in (0.5, 0.6):
        (tmp_path / "model" / "config.json").write_text(json.dumps({"threshold": threshold}))
        found.append(detector_settings(model))
    assert found[0] != found[1]
