import json
import shutil

import numpy as np
import pandas as pd
import pytest

from cnnsvm import InpaintDetector
from cnnsvm.persistence import (
    SCHEMA_VERSION,
    BundleError,
    _config_hash,
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
    file.write_text(json.dumps(config | {"sha256": _config_hash(config)}))


def test_a_changed_description_is_refused(bundle):
    file = bundle / "config.json"
    file.write_text(file.read_text().replace("1.5", "1.6"))
    with pytest.raises(BundleError, match=r"config\.json has changed since it was saved"):
        read_bundle(bundle)


def test_a_newer_schema_is_refused(bundle):
    edit(bundle, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=r"schema version 2; this cnnsvm reads up to 1"):
        read_bundle(bundle)


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
