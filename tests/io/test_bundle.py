import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from cnnsvm import InpaintDetector
from cnnsvm.detection import bundle as bundle_module
from cnnsvm.features.backbones import build_backbone
from cnnsvm.io.bundle import (
    SCHEMA_VERSION,
    BundleError,
    _hash_of_values,
    _sealed,
    read_bundle,
    write_bundle,
)

ARRAYS = {"svm": {"a": np.arange(6.0).reshape(2, 3)}, "network": {"b": np.ones(3, np.float32)}}


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "model", {"kind": "test", "value": 1.5}, ARRAYS)


@pytest.fixture(scope="module")
def detectors(pictures):
    images, y, groups = pictures
    common = {"weights": None, "crop_size": 48, "n_trials": 2, "cv": 2, "random_state": 0}
    names = np.where(y == 1, "fake", "original")
    many = names.astype(object)
    many[2::3] = "spliced"
    voting = {"finetune": "head", "kernel": ("rbf", "linear"), "voting": "soft"}
    frozen = {"finetune": "full", "threshold": "balanced_accuracy"}

    def fit(labels, **changes):
        settings = common | {"epochs": 1} | changes
        return InpaintDetector("squeezenet1_1", **settings).fit(images, labels, groups)

    return {
        "plain": fit(y, finetune="none"),
        "head": fit(names, **voting),
        "classes": fit(many.astype(str), **frozen),
    }


def test_round_trip(bundle):
    config, arrays = read_bundle(bundle)
    assert (config["kind"], config["value"]) == ("test", 1.5)
    assert config["schema_version"] == SCHEMA_VERSION
    assert {"python", "torch", "scikit-learn"} <= set(config["versions"])
    for name, tensors in ARRAYS.items():
        for key, value in tensors.items():
            np.testing.assert_array_equal(arrays[name][key], value)


def test_a_bundle_holds_no_pickle(bundle):
    assert {path.suffix for path in bundle.iterdir()} == {".json", ".safetensors"}


def test_a_bundle_is_replaced_but_nothing_else_is(bundle, tmp_path):
    write_bundle(bundle, {"kind": "second"}, {})
    assert read_bundle(bundle)[0]["kind"] == "second"
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="holds no saved model; it is not overwritten"):
        write_bundle(other, {}, {})
    assert (other / "me.jpg").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}


def edit(bundle, **changes):
    """Change the description and its hash, as somebody with a purpose would."""
    file = bundle / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_bytes(_sealed(config))


def test_a_changed_description_is_refused(bundle):
    file = bundle / "config.json"
    file.write_text(file.read_text().replace("1.5", "1.6"))
    with pytest.raises(BundleError, match=r"config\.json has changed since it was saved"):
        read_bundle(bundle)


def test_a_newer_schema_is_refused(bundle):
    edit(bundle, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=r"schema version 3; this cnnsvm reads up to 2"):
        read_bundle(bundle)


def test_a_bundle_of_the_first_schema_is_read(bundle):
    file = bundle / "config.json"
    config = json.loads(file.read_text()) | {"schema_version": 1}
    file.write_text(json.dumps(config | {"sha256": _hash_of_values(config)}, indent=4))
    assert read_bundle(bundle)[0]["kind"] == "test"
    file.write_text(file.read_text().replace("1.5", "1.6"))
    with pytest.raises(BundleError, match="has changed"):
        read_bundle(bundle)


@pytest.mark.parametrize("mask", [0x01, 0x2A, 0x80])  # 0x2A makes a line break of a space
def test_every_byte_of_the_description_counts(bundle, mask):
    file = bundle / "config.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= mask
        file.write_bytes(changed)
        with pytest.raises(BundleError):
            read_bundle(bundle)
    for changed in (whole[:-1], whole + b"\n", whole.replace(b"\n", b"\r\n")):
        file.write_bytes(changed)
        with pytest.raises(BundleError):
            read_bundle(bundle)
    file.write_bytes(whole)
    read_bundle(bundle)


def test_a_hash_elsewhere_in_the_description_does_no_harm(tmp_path):
    config = {"kind": "test", "zeros": "0" * 70}
    folder = write_bundle(tmp_path / "model", config, {})
    assert read_bundle(folder)[0]["zeros"] == "0" * 70
    again = write_bundle(tmp_path / "again", read_bundle(folder)[0], {})
    assert read_bundle(again)[0]["zeros"] == "0" * 70


def test_a_text_is_protected_and_other_files_are_nobodys_business(tmp_path):
    texts = {"README.md": "# Grüße\n"}
    folder = write_bundle(tmp_path / "model", {"kind": "test"}, ARRAYS, texts)
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    config, arrays = read_bundle(folder)
    assert set(config["files"]) == {"README.md", "svm.safetensors", "network.safetensors"}
    assert set(arrays) == set(ARRAYS)
    (folder / "README.md").write_text("# Grüsse\n")
    with pytest.raises(BundleError, match=r"README\.md has changed since it was saved"):
        read_bundle(folder)


def test_a_changed_file_is_refused(bundle):
    file = bundle / "svm.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"svm\.safetensors has changed since it was saved"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors"])
def test_a_path_that_leaves_the_folder_is_refused(bundle, name):
    edit(bundle, files={name: "0"})
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(bundle)


def test_a_link_out_of_the_folder_is_refused(bundle, tmp_path):
    outside = tmp_path / "outside.safetensors"
    shutil.move(bundle / "svm.safetensors", outside)
    (bundle / "svm.safetensors").symlink_to(outside)
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(bundle)


def test_links_of_the_hubs_cache_are_followed(bundle, tmp_path):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--owner--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in bundle.iterdir():
        shutil.move(file, blobs / f"hash of {file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash of {file.name}")
    assert read_bundle(snapshot)[0]["kind"] == "test"
    moved = shutil.move(blobs / "hash of svm.safetensors", tmp_path)
    (snapshot / "svm.safetensors").unlink()
    (snapshot / "svm.safetensors").symlink_to(moved)
    with pytest.raises(BundleError, match="leaves the folder"):
        read_bundle(snapshot)


def test_missing_parts_are_named(bundle, tmp_path):
    (bundle / "svm.safetensors").unlink()
    with pytest.raises(BundleError, match=r"svm\.safetensors is missing"):
        read_bundle(bundle)
    with pytest.raises(BundleError, match=r"config\.json is missing"):
        read_bundle(tmp_path / "nowhere")
    (bundle / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="not a model's description"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", ["plain", "head", "classes"])
def test_a_loaded_detector_judges_alike(detectors, pictures, tmp_path, name):
    detector, images = detectors[name], pictures[0]
    again = InpaintDetector.load(detector.save(tmp_path / "detector"))
    np.testing.assert_array_equal(again.predict_proba(images), detector.predict_proba(images))
    np.testing.assert_array_equal(again.predict(images), detector.predict(images))
    np.testing.assert_array_equal(again.classes_, detector.classes_)
    assert again.threshold_ == detector.threshold_
    assert again.get_params() == detector.get_params() | {"device": "auto", "precision": "auto"}


@pytest.mark.parametrize("name", ["plain", "head", "classes"])
def test_half_precision_halves_the_files_and_hardly_changes_a_decision(
    detectors, pictures, tmp_path, name
):
    detector, images = detectors[name], pictures[0]
    whole = bundle_module.save(detector, tmp_path / "whole")
    half = bundle_module.save(detector, tmp_path / "half", half=True)
    assert json.loads((half / "config.json").read_text())["half"] is True
    assert size_of(half) < 0.55 * size_of(whole)
    before, after = (  # bfloat16 would round more than the weights were rounded
        InpaintDetector.load(folder).set_params(precision="float32") for folder in (whole, half)
    )
    stated = before.predict_proba(images)
    np.testing.assert_allclose(after.predict_proba(images), stated, atol=5e-3)
    sure = np.ptp(np.sort(stated)[:, -2:], axis=1) > 1e-2
    if stated.shape[1] == 2:
        sure &= np.abs(stated[:, 1] - before.threshold_) > 5e-3
    assert sure.sum() > len(images) / 2
    np.testing.assert_array_equal(after.predict(images)[sure], before.predict(images)[sure])


def size_of(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_half_precision_spares_what_it_would_harm(detectors, tmp_path):
    detector = detectors["head"]
    half = bundle_module.save(detector, tmp_path / "half", half=True)
    arrays = read_bundle(half)[1]
    for name, value in detector.network_.state_dict().items():
        stored = arrays["network"][name]
        if value.ndim > 1:
            assert stored.dtype == np.float16
        else:
            np.testing.assert_array_equal(stored, value.numpy())
            assert stored.dtype == value.numpy().dtype
    halved = {name for name, array in arrays["svm"].items() if array.dtype == np.float16}
    assert halved == {"model.0.machine.0.vectors"}  # the second machine is linear
    for name, array in detector.svm_.to_state()[1].items():
        if name not in halved:
            np.testing.assert_array_equal(arrays["svm"][name], array)
            assert arrays["svm"][name].dtype == array.dtype


def test_running_statistics_are_spared(tmp_path):
    network = build_backbone("resnet18", truncate_at="layer1")
    statistics = {name for name, _ in network.named_buffers()}
    learnt = {name for name, value in network.named_parameters() if value.ndim > 1}
    assert any(name.endswith("running_var") for name in statistics)
    assert not statistics & learnt


def test_half_precision_is_loaded_in_full_and_saved_alike(detectors, tmp_path):
    half = bundle_module.save(detectors["classes"], tmp_path / "half", half=True)
    again = InpaintDetector.load(half)
    assert {value.dtype for value in again.network_.parameters()} == {torch.float32}
    machines = [machine for model in again.svm_.models_ for machine in model.machines]
    assert {machine.vectors.dtype for machine in machines} == {np.dtype(float)}
    second = bundle_module.save(again, tmp_path / "second", half=True)
    assert (second / "config.json").read_bytes() == (half / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[1.0, -3.1], [0.0, 0.0]]), np.float16),
        (np.array([[1.0, 1e-9], [1e3, 6e-8]]), np.float16),  # small beside what counts
        (np.array([[1.0, 2.0], [1e5, 1.0]]), np.float64),  # above the largest
        (np.array([[1.0, 2.0], [1e-7, 2e-7]]), np.float64),  # a row of nothing but subnormals
        (np.array([[1.0, np.nan]]), np.float64),
        (np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), np.float16),
    ],
)
def test_an_array_is_rounded_only_if_every_row_survives(array, expected):
    rounded = bundle_module._round(array)
    assert rounded.dtype == expected
    assert rounded.shape == array.shape


def test_what_a_detector_has_seen_is_saved_with_it(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 2
    detector = InpaintDetector("precomputed", n_trials=1).fit(X, y)
    folder = detector.save(tmp_path / "svm")
    assert not hasattr(InpaintDetector.load(folder), "trained_on_")
    detector.trained_on_ = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    again = InpaintDetector.load(detector.save(folder))
    np.testing.assert_array_equal(again.trained_on_, detector.trained_on_)
    assert again.trained_on_.dtype == np.uint64
    once_more = InpaintDetector.load(again.save(tmp_path / "copy"))
    np.testing.assert_array_equal(once_more.trained_on_, detector.trained_on_)


def test_precomputed_embeddings_keep_their_column_names(tmp_path):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(30, 3)), columns=["a", "b", "c"])
    detector = InpaintDetector("precomputed", n_trials=1).fit(X, np.arange(30) % 2)
    again = InpaintDetector.load(detector.save(tmp_path / "svm"))
    np.testing.assert_array_equal(again.predict_proba(X), detector.predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        again.predict(X[["b", "a", "c"]])


def test_a_bundle_of_something_else_is_refused(bundle):
    with pytest.raises(BundleError, match="holds a 'test', not an InpaintDetector"):
        InpaintDetector.load(bundle)
    edit(bundle, kind="InpaintDetector")
    with pytest.raises(BundleError, match="does not describe a detector"):
        InpaintDetector.load(bundle)


def test_what_belongs_to_one_machine_is_not_saved(pictures, tmp_path):
    images, y, groups = pictures
    detector = InpaintDetector(
        "squeezenet1_1",
        weights=None,
        finetune="none",
        crop_size=48,
        n_trials=1,
        cv=2,
        cache_dir=tmp_path / "cache",
        device="cpu",
        precision="float32",
        batch_size=np.int64(8),
        random_state=np.random.RandomState(0),
    ).fit(images, y, groups)
    folder = detector.save(tmp_path / "m")
    assert str(tmp_path) not in (folder / "config.json").read_text()
    again = InpaintDetector.load(folder).get_params()
    assert (again["device"], again["precision"], again["batch_size"]) == ("auto", "auto", 8)
