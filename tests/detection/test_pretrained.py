import copy
import json
import logging
import re
import shutil
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hub_server import COMMIT, hide_hub, hub_server
from tiny_detector import MACHINE, cnn, detector, on_this_machine, statistics, tuning

from cnnsvm import InpaintDetector, TunedSVC
from cnnsvm.data.images import load_image
from cnnsvm.data.readers import write_samples
from cnnsvm.detection import pretrained
from cnnsvm.detection.model_card import CardFacts
from cnnsvm.detection.training_overlap import find_training_images, training_hashes
from cnnsvm.features.state import plain_params
from cnnsvm.io import hub as hub_module
from cnnsvm.io.bundle import SHIPPED, BundleError, halve, read_bundle, write_bundle

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("recorded_scores.json")
FILES = {
    *("config.json", "README.md"),
    *("classifier.safetensors", "embedder_0.safetensors", "trained_on.safetensors"),
}


@pytest.fixture(scope="module")
def small(labelled_images):
    """A detector whose network is residual statistics as they are: small files."""
    return detector(statistics(pooling="mean")).fit(*labelled_images)


@pytest.fixture
def folder(small, tmp_path):
    return small.save_pretrained(tmp_path / "detector", card=CardFacts(name="A small one"))


@pytest.fixture
def rows(labelled_images):
    return labelled_images[0][::7]


def load(*args, **options):
    return InpaintDetector.from_pretrained(*args, device="cpu", **options)


@pytest.fixture
def judges_like(rows):
    def check(one, other):
        found, expected = one.predict_proba(rows), other.predict_proba(rows)
        np.testing.assert_allclose(found, expected, atol=2e-3)

    return check


def refused(message, *args, **options):
    with pytest.raises(BundleError, match=message) as caught:
        load(*args, **options)
    return str(caught.value)


# folders


def test_what_was_saved_is_loaded(judges_like, small, folder):
    assert {file.name for file in folder.iterdir()} == FILES
    again = load(folder)
    judges_like(again, small)
    assert load(str(folder)).threshold_ == small.threshold_
    np.testing.assert_array_equal(again.trained_on_, small.trained_on_)
    assert again.trained_on_.dtype == np.uint64
    assert "# A small one" in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["bits"] == 16


def test_a_loaded_detector_is_saved_again_with_another_card(judges_like, small, folder):
    before = (folder / "classifier.safetensors").read_bytes()
    load(folder).save_pretrained(folder, card=CardFacts(name="A better name"))
    assert "# A better name" in (folder / "README.md").read_text()
    assert (folder / "classifier.safetensors").read_bytes() == before
    judges_like(load(folder), small)


def trained_cnn(**more):
    return cnn(**{"finetune": tuning(epochs=1), "crop_size": 48} | more)


@pytest.fixture(scope="module")
def detectors(labelled_images):
    images, y, groups = labelled_images
    many = np.array(["fake", "original", "spliced"])[(y + (np.arange(len(y)) % 3 == 2)) % 3]
    voting = TunedSVC(kernel=("rbf", "linear"), voting="soft", n_trials=2, cv=2)
    return {
        "frozen": detector(cnn("squeezenet1_1", crop_size=48)).fit(images, y, groups),
        "head": detector(
            trained_cnn(finetune=tuning("head", epochs=1)), statistics(), classifier=voting
        ).fit(images, np.where(y == 1, "fake", "original"), groups),
        "full": detector(
            trained_cnn(), statistics(finetune=tuning(epochs=1)), threshold="balanced_accuracy"
        ).fit(images, y.astype(bool), groups),
        "classes": detector(trained_cnn(batch_size=np.int64(8)), max_error=0.4, n_views=2).fit(
            images, many, groups
        ),
    }


EVERY = pytest.mark.parametrize("name", ["frozen", "head", "full", "classes"])


@EVERY
def test_in_full_precision_every_bit_comes_back(detectors, labelled_images, tmp_path, name):
    model, images = detectors[name], labelled_images[0]
    folder = model.save_pretrained(tmp_path / "m", bits=32)
    again = on_this_machine(InpaintDetector.from_pretrained(folder))
    np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))
    for method in ("predict", "verdict", "decision_function", "transform"):
        np.testing.assert_array_equal(
            getattr(again, method)(images), getattr(model, method)(images)
        )
    if name != "frozen":
        np.testing.assert_array_equal(again.explain(images[1]), model.explain(images[1]))
    for attribute in (
        *("classes_", "threshold_", "rejection_threshold_", "min_side_", "max_side_"),
        *("history_", "trained_on_"),
    ):
        np.testing.assert_array_equal(getattr(again, attribute), getattr(model, attribute))
    assert pretrained.fingerprint(again) == pretrained.fingerprint(model)
    second = again.save_pretrained(tmp_path / "second", bits=32)
    for file in folder.iterdir():
        assert (second / file.name).read_bytes() == file.read_bytes()


@EVERY
def test_half_precision_halves_the_files_and_hardly_changes_a_decision(
    detectors, labelled_images, tmp_path, name
):
    model, images = detectors[name], labelled_images[0]
    whole = model.save_pretrained(tmp_path / "whole", bits=32)
    half = model.save_pretrained(tmp_path / "half")
    assert size_of(half) < 0.6 * size_of(whole)
    again = on_this_machine(InpaintDetector.from_pretrained(half))
    for embedder in again.embedder_:
        assert {value.dtype for value in embedder.network_.state_dict().values()} <= {
            *(torch.float32, torch.int64)
        }
    machines = [machine for part in again.classifier_.models_ for machine in part.machines]
    assert {machine.vectors.dtype for machine in machines} == {np.dtype(float)}
    stated = model.predict_proba(images)
    np.testing.assert_allclose(again.predict_proba(images), stated, atol=1e-2)
    sure = np.ptp(np.sort(stated)[:, -2:], axis=1) > 2e-2
    if stated.shape[1] == 2:
        sure &= np.abs(stated[:, 1] - model.threshold_) > 1e-2
    assert sure.sum() > len(images) / 2
    np.testing.assert_array_equal(again.predict(images)[sure], model.predict(images)[sure])
    second = again.save_pretrained(tmp_path / "second")
    assert (second / "config.json").read_bytes() == (half / "config.json").read_bytes()


def size_of(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_half_precision_spares_what_it_would_harm(detectors, tmp_path):
    model = detectors["head"]
    arrays = read_bundle(model.save_pretrained(tmp_path / "half"))[1]
    for number, embedder in enumerate(model.embedder_):
        for name, value in embedder.network_.state_dict().items():
            stored = arrays[f"embedder_{number}"][name]
            if value.ndim > 1:
                assert stored.dtype == np.float16
            else:  # biases and running statistics
                np.testing.assert_array_equal(stored, value.numpy())
                assert stored.dtype == value.numpy().dtype
    stored = arrays["classifier"]
    halved = {name for name, array in stored.items() if array.dtype == np.float16}
    assert halved == {"model.0.machine.0.vectors"}  # the second machine is linear
    for name, array in model.classifier_.to_state()[1].items():
        if name not in halved:
            np.testing.assert_array_equal(stored[name], array)
            assert stored[name].dtype == array.dtype


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
    rounded = halve(array)
    assert rounded.dtype == expected
    assert rounded.shape == array.shape


def test_what_belongs_to_one_machine_is_not_saved(labelled_images, tmp_path):
    embedder = cnn(cache_dir=tmp_path / "cache", n_jobs=1, batch_size=np.int64(8))
    model = detector(
        embedder, cache_dir=tmp_path / "cache", random_state=np.random.RandomState(0)
    ).fit(*labelled_images)
    folder = model.save_pretrained(tmp_path / "m")
    assert str(tmp_path) not in (folder / "config.json").read_text()
    again = InpaintDetector.from_pretrained(folder)
    for one in (again.embedder[0], again.embedder_[0]):
        assert (one.batch_size, one.cache_dir, one.n_jobs) == (8, None, None)
        assert one.precision == "float32"  # what was fitted on its embeddings fits no other
    assert again.embedder_[0].device == "auto"
    assert load(folder).embedder_[0].device == "cpu"
    assert (again.cache_dir, again.random_state) == (None, None)


@EVERY
def test_parameters_come_back(detectors, tmp_path, name):
    model = detectors[name]
    again = load(model.save_pretrained(tmp_path / "m"))
    for attribute in ("n_views", "augmentation", "threshold", "max_error", "cv", "random_state"):
        assert getattr(again, attribute) == getattr(model, attribute)
    for embedder, unfitted, fitted in zip(
        again.embedder_, again.embedder, model.embedder_, strict=True
    ):
        assert type(embedder) is type(unfitted) is type(fitted)
        wanted = plain_params(fitted)
        assert plain_params(embedder) == plain_params(unfitted) == wanted
    svm = model.classifier_.get_params() | {"storage": None}
    assert again.classifier_.get_params() == again.classifier.get_params() == svm


def test_frozen_embedders_see_images_as_the_saved_ones_do(detectors, labelled_images, tmp_path):
    model, images = detectors["full"], labelled_images[0][:4]
    folder = model.save_pretrained(tmp_path / "m", bits=32)
    frozen = pretrained.frozen_embedders(folder)
    assert [embedder.finetune for embedder in frozen] == ["none", "none"]
    fitted = [e.set_params(**MACHINE).fit(images) for e in frozen]
    rows = np.hstack([embedder.transform(images) for embedder in fitted])
    np.testing.assert_allclose(rows, model.transform(images), rtol=1e-2, atol=1e-2)


def test_a_fingerprint_is_of_what_decides(detectors):
    prints = {pretrained.fingerprint(model) for model in detectors.values()}
    assert len(prints) == len(detectors)
    model = copy.copy(detectors["full"])
    same = pretrained.fingerprint(model)
    model.trained_on_ = model.trained_on_[:3]
    assert pretrained.fingerprint(model) == same
    model.threshold_ = 0.123
    assert pretrained.fingerprint(model) != same


def test_a_bundle_of_something_else_is_refused(folder, tmp_path):
    config, arrays = read_bundle(folder)
    other = write_bundle(tmp_path / "other", {"kind": "test"}, {})
    refused("holds a 'test' and no InpaintDetector", other)
    less = write_bundle(tmp_path / "less", {"kind": "InpaintDetector"}, {})
    refused("holds no InpaintDetector of this cnnsvm", less)
    del arrays["classifier"]["mean"]
    plain = {key: config[key] for key in config if key not in ("files", "sha256")}
    broken = write_bundle(tmp_path / "broken", plain, arrays)
    refused("holds no InpaintDetector of this cnnsvm", broken)


def test_a_flipped_byte_in_any_file_is_refused(folder):
    for file in sorted(folder.iterdir()):
        whole = file.read_bytes()
        for place in np.linspace(0, len(whole) - 1, 25).astype(int):
            for mask in (0x01, 0x20, 0x80):
                changed = bytearray(whole)
                changed[place] ^= mask
                file.write_bytes(changed)
                refused(file.name, folder)
        file.write_bytes(whole)
    load(folder)


def test_a_missing_file_is_named(folder):
    for name in sorted(FILES):
        aside = shutil.move(folder / name, folder.with_name("aside"))
        refused(rf"{name} is missing", folder)
        shutil.move(aside, folder / name)


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "a/b/c", "word", "", "./owner/name", Path("owner/name")]
)
def test_a_name_that_is_nothing_is_refused_without_asking_anybody(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(rf"'{re.escape(str(name)) if name else '.*'}' is no folder.*owner/name", name)


def test_what_is_no_folder_of_a_detector_is_refused(folder, tmp_path):
    refused(r"config\.json' is a file", folder / "config.json")
    refused(r"no revisions, got revision='main'", folder, revision="main")
    refused(r"config\.json is missing", tmp_path)


# the one that ships


def test_the_shipped_detector_needs_no_name(judges_like, small, folder, monkeypatch):
    monkeypatch.setitem(SHIPPED, "cnnsvm", folder)
    judges_like(load(), small)
    refused("no revisions, got revision='main'", revision="main")


def test_others_that_ship_have_names_and_folders_of_that_name_have_paths(
    judges_like, small, folder, monkeypatch, tmp_path
):
    monkeypatch.setitem(SHIPPED, "cifake", folder)
    (tmp_path / "cifake").mkdir()
    monkeypatch.chdir(tmp_path)
    judges_like(load("cifake"), small)
    refused("no revisions, got revision='main'", "cifake", revision="main")
    refused(r"config\.json is missing", "./cifake")
    refused("'cifar' is no folder.*cnnsvm and cifake", "cifar")


def test_without_a_shipped_detector_the_remedies_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(SHIPPED, "cnnsvm", tmp_path / "weights")
    message = refused("no pretrained detector 'cnnsvm'")
    for part in (str(tmp_path / "weights" / "config.json"), "owner/name", "cnnsvm fit"):
        assert part in message


def test_what_ships_is_small_and_tells_what_it_is():
    model = load()
    assert model.classes_.tolist() == ["original", "regenerated", "spliced"]
    assert len(training_hashes(model)) > 500
    card = (SHIPPED["cnnsvm"] / "README.md").read_text(encoding="utf-8")
    source = json.loads((ROOT / "experiments" / "bundle_card.json").read_text(encoding="utf-8"))
    for row in source["tested_on"]:
        line = next(line for line in card.splitlines() if line.startswith(f"| {row['data']} |"))
        for value, _, _ in row["numbers"].values():
            assert f"{value:.3f} [" in line
    for text in (*source["limits"], *source["steps"]):
        assert text in card


def test_what_ships_tells_a_photograph_from_its_repainting(tmp_path):
    tiles = write_samples(tmp_path)
    paths = [p for p in tiles["path"] if re.search("astronaut|chelsea|coffee", Path(p).name)]
    photos = [load_image(path) for path in paths]
    mask = np.zeros((256, 256), np.uint8)
    mask[64:192, 64:192] = 255
    fakes = [cv2.inpaint(photo, mask, 5, cv2.INPAINT_TELEA) for photo in photos]
    model = load()
    assert find_training_images(model, photos) == []
    assert set(model.verdict(photos)) <= {"original", "unsure"}
    assert (model.verdict(fakes) == "spliced").mean() > 0.5
    half = np.zeros((256, 256), np.uint8)
    half[:, 128:] = 255
    heats = [model.explain(cv2.inpaint(photo, half, 5, cv2.INPAINT_TELEA)) for photo in photos]
    gaps = [heat[:, 192:].mean() - heat[:, :64].mean() for heat in heats]
    assert np.mean(gaps) > 0.2
    assert model.verdict([photos[0][:100]]).tolist() == ["unsure"]  # smaller than a crop


def test_the_detector_of_small_images_ships_too():
    model = load("cifake")
    assert model.classes_.tolist() == [0, 1]
    assert len(training_hashes("cifake")) > 80_000
    rng = np.random.default_rng(0)
    small, larger = (rng.integers(0, 256, (3, n, n, 3), dtype=np.uint8) for n in (32, 64))
    chances = model.predict_proba(small)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose(model.predict_proba(small[:, :, ::-1]), chances, atol=0.02)
    assert model.verdict(larger).tolist() == ["unsure"] * 3


def recorded_images(folder):
    """Tiles that ship with libraries, and those with a smoothed left half."""
    tiles = [load_image(path) for path in write_samples(folder)["path"].tolist()[::7]]
    return tiles + [smooth(tile) for tile in tiles]


def smooth(tile):
    wide = np.pad(tile.astype(np.int64), ((2, 2), (2, 2), (0, 0)), mode="edge")
    height, width = tile.shape[:2]
    total = sum(wide[y : y + height, x : x + width] for y in range(5) for x in range(5))
    half = width // 2
    return np.hstack([((total + 12) // 25).astype(np.uint8)[:, :half], tile[:, half:]])


@pytest.mark.parametrize("name", ["cnnsvm", "cifake"])
def test_what_ships_judges_as_recorded(tmp_path, name):
    images = recorded_images(tmp_path)
    recorded = json.loads(RECORDED.read_text())
    model = on_this_machine(load(name))
    if name == "cnnsvm":
        heat = model.explain(images[0])[::32, ::32]
        np.testing.assert_allclose(heat, recorded["heatmap"], atol=1e-5)
    else:
        images = [image[40:72, 60:92].copy() for image in images]
    expected = recorded[name]
    np.testing.assert_allclose(model.predict_proba(images), expected["probability"], atol=1e-6)
    assert model.verdict(images).tolist() == expected["verdict"]
    norms = np.linalg.norm(model.transform(images), axis=1)
    np.testing.assert_allclose(norms, expected["embedding_norm"], rtol=1e-5)


# the hub


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache of the hub, with no connection to it."""
    hide_hub(tmp_path / "cache", monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def hub(offline, folder, tmp_path, monkeypatch):
    """A hub on this machine, and nothing in the cache."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (other / "weights.safetensors").write_bytes(b"many gigabytes")
    for unwanted in ("weights.bin", "script.py"):
        (folder / unwanted).write_text("unwanted")
    with hub_server({"owner/small": folder, "owner/other": other}, monkeypatch) as served:
        yield served


def test_a_detector_comes_from_the_hub_and_then_from_its_cache(
    judges_like, hub, small, monkeypatch, caplog
):
    from huggingface_hub import constants

    judges_like(load("owner/small", revision=COMMIT, token="secret"), small)
    assert hub.fetched() == FILES
    assert {token for path, token in hub.seen if "owner/small" in path} == {"Bearer secret"}
    assert "secret" not in caplog.text
    assert "no revision" not in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    judges_like(load("owner/small", revision=COMMIT), small)
    assert "owner/small is taken from its cache" in caplog.text


def test_an_unpinned_revision_is_logged_once_with_its_commit(hub, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        load("owner/small")
    assert "Fetching" not in capsys.readouterr().err  # no bars where there is no terminal
    lines = [record.message for record in caplog.records if "no revision" in record.message]
    assert len(lines) == 1
    assert f"revision='{COMMIT}'" in lines[0]


def test_a_cached_snapshot_may_be_named_by_its_path(judges_like, hub, offline, small):
    """That is what 'hf download' prints; its files are links."""
    load("owner/small", revision="main")
    [config] = offline.rglob("config.json")
    assert config.is_symlink()
    judges_like(load(config.parent), small)


def test_a_changed_file_on_the_hub_is_refused(hub, folder):
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("small", "smell"))
    refused("has changed since it was saved", "owner/small", revision="main")


def test_another_kind_of_model_is_refused_before_its_weights_come(hub):
    refused("'owner/other' on the hub is no detector", "owner/other")
    assert hub.fetched() == {"config.json"}


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("owner/missing", None, "no such model"),
        ("owner/gated", None, "gated.*hf auth login"),
        ("owner/small", "v9", "no revision 'v9'"),
    ],
)
def test_what_the_hub_answers_is_told(hub, name, revision, message):
    text = refused(message, name, revision=revision)
    assert f"'{name}' cannot be fetched" in text


def test_a_hub_that_does_not_answer_is_not_waited_for(hub, monkeypatch):
    monkeypatch.setattr(hub_module, "TIMEOUT", 0.2)
    start = time.monotonic()
    refused("the hub cannot be reached", "owner/silent")
    assert time.monotonic() - start < 2


def test_offline_says_what_to_do(offline):
    text = refused("the hub cannot be reached", "owner/unknown")
    assert "hf download owner/unknown --local-dir FOLDER" in text


def test_a_folder_outranks_an_id(judges_like, folder, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    shutil.copytree(folder, tmp_path / "owner" / "small")
    monkeypatch.chdir(tmp_path)
    judges_like(load("owner/small"), small)
