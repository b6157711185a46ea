"""Saved models that were made to harm: each is refused with one kind of error, or harmless."""

import copy
import json
import math
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_detector import cnn, detector

from cnnsvm import CombinedDetector, InpaintDetector, RegionDetector
from cnnsvm.io import bundle
from cnnsvm.io.bundle import MAX_CONFIG, SHIPPED_REGION, BundleError, _sealed
from cnnsvm.io.files import file_hash


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    fitted = detector(cnn(finetune="none")).fit(images, [0, 1] * 6)
    return fitted.save_pretrained(tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def model(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "model")


def edit(folder, change):
    """Change the description, and make its hash anew."""
    config = json.loads((folder / "config.json").read_text())
    del config["sha256"]
    change(config)
    (folder / "config.json").write_bytes(_sealed(config))


def edit_arrays(folder, file, change):
    """Change arrays, and make all hashes anew."""
    arrays = load_file(folder / file)
    change(arrays)
    save_file(arrays, folder / file)
    edit(folder, lambda config: config["files"].update({file: file_hash(folder / file)}))


def set_in(*path, value):
    def change(config):
        place = config
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize("file", ["classifier.safetensors", "embedder_0.safetensors"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_becomes_no_verdict(model, file, value):
    def spoil(arrays):
        name = next(k for k in sorted(arrays) if arrays[k].dtype.kind == "f" and "cv_" not in k)
        arrays[name].flat[0] = value

    edit_arrays(model, file, spoil)
    with pytest.raises(BundleError, match="no finite number"):
        InpaintDetector.from_pretrained(model)


EMBEDDER = ("embedders", 0, "params")
WRONG = {
    "n_crops": set_in(*EMBEDDER, "n_crops", value=10**9),
    "crop_size": set_in(*EMBEDDER, "crop_size", value=10**6),
    "batch_size": set_in(*EMBEDDER, "batch_size", value=10**9),
    "a parameter that is none": set_in(*EMBEDDER, "colour", value=1),
    "params of another kind": set_in("embedders", 0, "params", value=[]),
    "no embedder": set_in("embedders", value=[]),
    "embedders as null": set_in("embedders", value=None),
    "many embedders": lambda config: config.update(embedders=config["embedders"] * 1000),
    "class": set_in("embedders", 0, "class", value="os.system"),
    "dtype": set_in("classifier", "classes_dtype", value="<U500000000"),
    "a class that is a list": set_in("classifier", "classes", value=[[], 1]),
    "threshold": set_in("threshold", value="high"),
    "classifier": set_in("classifier", value=None),
    "models": set_in("classifier", "models", value=[[]]),
    "max_error": set_in("params", "max_error", value=7),
    "schema as text": set_in("schema_version", value="3"),
    "schema as true": set_in("schema_version", value=True),
    "old schema": set_in("schema_version", value=0),
    "schema below nothing": set_in("schema_version", value=-5),
    "no files": set_in("files", value=None),
    "files as a list": set_in("files", value=["a"]),
    "a name with NUL": lambda config: config["files"].update({"a\0b": "0" * 64}),
    "a name with a surrogate": lambda config: config["files"].update({"\udcff": "0" * 64}),
    "a hash that is none": lambda config: config["files"].update({"README.md": 1}),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_description_that_is_out_of_range_is_refused(model, change):
    edit(model, change)
    with pytest.raises(BundleError):
        InpaintDetector.from_pretrained(model)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"schema_version": 1e999, "files": {}}',
        '{"schema_version": 3, "files": {}, "value": NaN}',
        "null",
        "",
        "\ud800",
    ],
)
def test_text_that_is_no_description_is_refused(model, text):
    (model / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(BundleError, match="is not a model's description"):
        InpaintDetector.from_pretrained(model)


def test_a_huge_description_is_not_read(model):
    with open(model / "config.json", "r+b") as stream:
        stream.truncate(MAX_CONFIG + 1)
    with pytest.raises(BundleError, match="16,000,001 bytes"):
        InpaintDetector.from_pretrained(model)


def test_settings_of_a_machine_are_not_taken_from_a_model(model):
    def spoil(config):
        config["embedders"][0]["params"] |= {"n_jobs": 5000, "cache_dir": "/", "device": "cuda:9"}

    edit(model, spoil)
    (embedder,) = InpaintDetector.from_pretrained(model).embedder_
    assert (embedder.n_jobs, embedder.cache_dir, embedder.device) == (None, None, "auto")


def test_an_image_that_shows_nothing_gets_no_verdict(sound):
    model = InpaintDetector.from_pretrained(sound)
    empty = np.full((64, 64, 3), 128, np.uint8)
    np.testing.assert_array_equal(model.predict_proba([empty]), [[0.5, 0.5]])
    assert model.verdict([empty]).tolist() == ["unsure"]


def test_embeddings_that_do_not_vary_are_warned_of():
    images = [np.full((64, 64, 3), 9, np.uint8)] * 12
    with pytest.warns(UserWarning, match="same embedding"):
        detector(cnn(finetune="none")).fit(images, [0, 1] * 6)


@pytest.mark.parametrize("name", ["slope_", "offset_", "intercept_", "rejection_threshold_"])
@pytest.mark.parametrize(
    "value", [None, "nan", math.inf, math.nan, 10**400, 1e308, [1.0], {}, True]
)
def test_no_number_of_a_region_detector_is_taken_on_trust(name, value, tmp_path, monkeypatch):
    config, arrays = bundle.read_bundle(SHIPPED_REGION)
    RegionDetector.from_pretrained(cnn())
    spoilt = config | {name: value}
    monkeypatch.setattr(bundle, "read_bundle", lambda folder: (spoilt, arrays))
    with pytest.raises(BundleError, match="RegionDetector"):
        RegionDetector.from_pretrained(cnn(), tmp_path)


@pytest.fixture(scope="module")
def region():
    return CombinedDetector.from_pretrained("cpu").region


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"layer": 10**9}, "layer 1000000000 of 768 features; this model has layers 0 to"),
        ({"layer": 11}, "layer 11 of 768 features"),
        ({"side": 2**70}, "'side' parameter of RegionDetector must be an int in the range"),
        ({"side": 224 * 10**6}, "'side' parameter"),
        ({"side": 300}, "must be a multiple of the embedder's crop_size=224"),
        ({"coef_": np.zeros(1534, np.float32)}, "layer 8 of 767 features"),
    ],
)
def test_a_region_detector_of_impossible_patches_is_refused(params, reason, region, tmp_path):
    changed = copy.copy(region)
    vars(changed).update(params)
    folder = changed.save_pretrained(tmp_path / "region")
    with pytest.raises(BundleError, match=reason):
        RegionDetector.from_pretrained(region.embedder, folder)
