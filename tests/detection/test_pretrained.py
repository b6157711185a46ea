import json
import logging
import re
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm import InpaintDetector
from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.near_duplicates import perceptual_hash
from cnnsvm.data.readers import write_samples
from cnnsvm.detection import pretrained
from cnnsvm.detection.model_card import ModelCard
from cnnsvm.detection.pretrained import (
    find_oversized,
    find_training_images,
    hash_images,
    load_pretrained,
    save_pretrained,
    training_hashes,
)
from cnnsvm.io.bundle import BundleError

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = np.random.default_rng(1).normal(size=(20, 3))


@pytest.fixture(scope="module")
def small():
    """A detector of three features, which has no network."""
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    detector = InpaintDetector("precomputed", n_trials=1, random_state=0).fit(X, y)
    detector.trained_on_ = np.array([7, 8], dtype=np.uint64)
    return detector


@pytest.fixture
def folder(small, tmp_path):
    return save_pretrained(small, tmp_path / "detector", card=ModelCard(name="A small one"))


def load(*args, **options):
    return load_pretrained(InpaintDetector, *args, **options)


def judges_like(detector, other):
    np.testing.assert_allclose(detector.predict_proba(ROWS), other.predict_proba(ROWS), atol=2e-3)
    return True


def refused(message, *args, **options):
    with pytest.raises(BundleError, match=message) as caught:
        load(*args, **options)
    return str(caught.value)


# folders


def test_what_was_saved_is_loaded(small, folder):
    assert {file.name for file in folder.iterdir()} == {
        *("config.json", "svm.safetensors", "trained_on.safetensors", "README.md")
    }
    again = load(folder)
    assert judges_like(again, small)
    assert load(str(folder)).threshold_ == small.threshold_
    np.testing.assert_array_equal(again.trained_on_, small.trained_on_)
    assert "# A small one" in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["half"] is True


def test_a_loaded_detector_is_saved_again_with_another_card(small, folder):
    before = (folder / "svm.safetensors").read_bytes()
    save_pretrained(load(folder), folder, card=ModelCard(name="A better name"))
    assert "# A better name" in (folder / "README.md").read_text()
    assert (folder / "svm.safetensors").read_bytes() == before
    assert judges_like(load(folder), small)


def test_a_network_comes_back_too(pictures, tmp_path):
    images, y, groups = pictures
    detector = InpaintDetector(
        "squeezenet1_1",
        weights=None,
        finetune="head",
        epochs=1,
        crop_size=48,
        n_crops=2,
        n_trials=1,
        cv=2,
        precision="float32",
        random_state=0,
    ).fit(images, y, groups)
    again = load(save_pretrained(detector, tmp_path / "m")).set_params(precision="float32")
    np.testing.assert_allclose(
        again.predict_proba(images), detector.predict_proba(images), atol=2e-2
    )
    np.testing.assert_allclose(again.explain(images[0]), detector.explain(images[0]), atol=5e-3)
    card = (tmp_path / "m" / "README.md").read_text()
    n_weights = sum(value.numel() for value in detector.network_.parameters())
    assert f"`squeezenet1_1`, stem `native`, {n_weights:,} weights" in card


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
    for name in ("README.md", "trained_on.safetensors", "svm.safetensors", "config.json"):
        aside = shutil.move(folder / name, folder.with_name("aside"))
        refused(rf"{name} is missing", folder)
        shutil.move(aside, folder / name)


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "word", "", "./owner/name"])
def test_a_name_that_is_nothing_is_refused_without_asking_anybody(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("no folder of this machine, and not an id of the Hugging Face hub", name)


def test_a_file_is_no_detector(folder):
    refused("is a file, and not an id", folder / "config.json")


def test_a_path_object_is_never_taken_for_an_id(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("no folder of this machine", tmp_path.relative_to("/") / "name")


def test_a_folder_has_no_revisions(folder):
    refused(r"is a folder, which has no revisions, got revision='main'", folder, revision="main")


def test_a_folder_of_something_else_says_what_is_missing(tmp_path):
    refused(r"holds no saved model: config\.json is missing", tmp_path)


# the one that ships


def test_the_shipped_detector_needs_no_name(small, folder, monkeypatch):
    monkeypatch.setitem(pretrained.SHIPPED, "cnnsvm", folder)
    assert judges_like(load(), small)
    refused("ships with cnnsvm has no revisions", revision="main")


def test_others_that_ship_have_names_and_folders_of_that_name_have_paths(
    small, folder, monkeypatch, tmp_path
):
    monkeypatch.setitem(pretrained.SHIPPED, "cifake", folder)
    (tmp_path / "cifake").mkdir()
    monkeypatch.chdir(tmp_path)
    assert judges_like(load("cifake"), small)
    refused("ships with cnnsvm has no revisions", "cifake", revision="main")
    refused(r"holds no saved model", "./cifake")
    refused("no folder of this machine.*cnnsvm and cifake ship", "cifar")


def test_without_a_shipped_detector_the_remedies_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(pretrained.SHIPPED, "cnnsvm", tmp_path / "weights")
    message = refused("no pretrained detector 'cnnsvm' ships with this cnnsvm")
    for part in (str(tmp_path / "weights" / "config.json"), "owner/name", "cnnsvm fit"):
        assert part in message


def test_what_ships_is_small_and_tells_what_it_is():
    assert find_oversized(pretrained.SHIPPED["cnnsvm"]) == []
    detector = load()
    assert detector.classes_.tolist() == ["original", "regenerated", "spliced"]
    known, is_all = training_hashes(detector)
    assert is_all
    assert len(known) > 500
    card = (pretrained.SHIPPED["cnnsvm"] / "README.md").read_text(encoding="utf-8")
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
    detector = load().set_params(device="cpu")
    assert find_training_images(detector, photos) == []
    assert set(detector.verdict(photos)) <= {"original", "unsure"}
    assert (detector.verdict(fakes) == "spliced").mean() > 0.5
    half = np.zeros((256, 256), np.uint8)
    half[:, 128:] = 255
    heats = [detector.explain(cv2.inpaint(photo, half, 5, cv2.INPAINT_TELEA)) for photo in photos]
    gaps = [heat[:, 192:].mean() - heat[:, :64].mean() for heat in heats]
    assert np.mean(gaps) > 0.2
    assert detector.verdict([photos[0][:100]]).tolist() == ["unsure"]  # smaller than a crop


def test_the_detector_of_small_pictures_ships_too():
    folder = pretrained.SHIPPED["cifake"]
    assert find_oversized(folder) == []
    detector = load("cifake").set_params(device="cpu")
    assert detector.classes_.tolist() == [0, 1]
    known, is_all = training_hashes(detector)
    assert is_all
    assert len(known) > 80_000
    rng = np.random.default_rng(0)
    small, larger = (rng.integers(0, 256, (3, n, n, 3), dtype=np.uint8) for n in (32, 64))
    chances = detector.predict_proba(small)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose(detector.predict_proba(small[:, :, ::-1]), chances, atol=0.02)
    assert detector.verdict(larger).tolist() == ["unsure"] * 3
    card = (folder / "README.md").read_text(encoding="utf-8")
    measured = next(line for line in card.splitlines() if "held out by near-duplicate" in line)
    accuracy = measured.split(" | ")[2]
    told = accuracy.replace("0.", ".")
    assert told in (ROOT / "README.md").read_text(encoding="utf-8")


def test_large_files_are_found_and_logged(small, folder, monkeypatch, caplog):
    assert find_oversized(folder) == []
    assert caplog.text == ""
    (folder / "more.safetensors").write_bytes(bytes(1_000_001))
    assert find_oversized(folder, 1_000_001) == []
    assert find_oversized(folder, 1_000_000) == [folder / "more.safetensors"]
    monkeypatch.setattr(pretrained, "MAX_FILE_BYTES", 500)
    save_pretrained(small, folder)
    assert "svm.safetensors has 0.0 MB, more than the" in caplog.text


# the hub


class Hub(BaseHTTPRequestHandler):
    """A model hub with owner/small and owner/other, and owner/silent, which never answers."""

    folders: dict = {}  # noqa: RUF012
    seen: list = []  # noqa: RUF012

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if name == "owner/silent":
            time.sleep(2)
        elif name == "owner/gated":
            self.answer("", 403, {"X-Error-Code": "GatedRepo"})
        elif name not in self.folders:
            self.answer("", 404, {"X-Error-Code": "RepoNotFound"})
        elif "/revision/" in path and not path.endswith(("main", COMMIT)):
            self.answer("", 404, {"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            self.answer(json.dumps([self.entry(name, file) for file in self.files(name)]))
        elif path.startswith("/api/"):
            siblings = [{"rfilename": file} for file in self.files(name)]
            self.answer(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}))
        else:
            content = (self.folders[name] / path.rsplit("/", 1)[1]).read_bytes()
            self.answer(content, headers={"ETag": f'"{len(content)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def files(self, name):
        return sorted(file.name for file in self.folders[name].iterdir())

    def entry(self, name, file):
        size = (self.folders[name] / file).stat().st_size
        return {"type": "file", "path": file, "size": size, "oid": str(size)}

    def answer(self, content, status=200, headers=None):
        body = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass

    @classmethod
    def fetched(cls):
        return {path.rsplit("/", 1)[1] for path, _ in cls.seen if "/resolve/" in path}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache of the hub, with no connection to it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def hub(offline, folder, tmp_path, monkeypatch):
    """A hub on this machine, and nothing in the cache."""
    from huggingface_hub import constants, hf_api

    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    (other / "weights.safetensors").write_bytes(b"many gigabytes")
    for unwanted in ("weights.bin", "script.py"):
        (folder / unwanted).write_text("unwanted")
    served = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(hf_api.api, "endpoint", address)
    monkeypatch.setattr(Hub, "folders", {"owner/small": folder, "owner/other": other})
    monkeypatch.setattr(Hub, "seen", [])
    yield Hub
    served.shutdown()
    served.server_close()


def test_a_detector_comes_from_the_hub_and_then_from_its_cache(hub, small, monkeypatch, caplog):
    from huggingface_hub import constants

    assert judges_like(load("owner/small", revision=COMMIT, token="secret"), small)
    assert hub.fetched() == {
        *("config.json", "README.md", "svm.safetensors", "trained_on.safetensors")
    }
    assert {token for path, token in hub.seen if "owner/small" in path} == {"Bearer secret"}
    assert "secret" not in caplog.text
    assert "no revision" not in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert judges_like(load("owner/small", revision=COMMIT), small)
    assert "owner/small is taken from its cache" in caplog.text


def test_an_unpinned_revision_is_logged_once_with_its_commit(hub, caplog, capsys):
    with caplog.at_level(logging.WARNING):
        load("owner/small")
    assert "Fetching" not in capsys.readouterr().err  # no bars where there is no terminal
    lines = [record.message for record in caplog.records if "no revision" in record.message]
    assert len(lines) == 1
    assert f"revision='{COMMIT}'" in lines[0]


def test_a_cached_snapshot_may_be_named_by_its_path(hub, offline, small):
    """That is what 'hf download' prints; its files are links."""
    load("owner/small", revision="main")
    [config] = offline.rglob("config.json")
    assert config.is_symlink()
    assert judges_like(load(config.parent), small)


def test_a_changed_file_on_the_hub_is_refused(hub, folder):
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace("small", "smell"))
    refused("has changed since it was saved", "owner/small", revision="main")


def test_another_kind_of_model_is_refused_before_its_weights_come(hub):
    refused("'owner/other' on the hub is no detector of this cnnsvm", "owner/other")
    assert hub.fetched() == {"config.json"}


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("owner/missing", None, "the hub has no such model, or it is private, and no folder"),
        ("owner/gated", None, "it is gated: .*hf auth login"),
        ("owner/small", "v9", "it has no revision 'v9'"),
    ],
)
def test_what_the_hub_answers_is_told(hub, name, revision, message):
    text = refused(message, name, revision=revision)
    assert f"'{name}' cannot be had" in text


def test_a_hub_that_does_not_answer_is_not_waited_for(hub, monkeypatch):
    monkeypatch.setattr(pretrained, "_TIMEOUT", 0.2)
    start = time.monotonic()
    refused("the hub cannot be reached", "owner/silent")
    assert time.monotonic() - start < 2


def test_offline_says_what_to_do(offline):
    text = refused("the hub cannot be reached", "owner/unknown")
    assert "hf download owner/unknown --local-dir FOLDER" in text


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(r"pip install 'cnnsvm\[generate\]'", "owner/small")


def test_a_folder_outranks_an_id(folder, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    shutil.copytree(folder, tmp_path / "owner" / "small")
    monkeypatch.chdir(tmp_path)
    assert judges_like(load("owner/small"), small)


# what it was trained on


def photo(seed, size=160):
    """A picture with content at low frequencies, which is what the hash sees."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    paths = []
    for seed in range(12):
        paths.append(str(place / f"{seed}.png"))
        photo(seed).save(paths[-1])
    return paths


@pytest.fixture
def trained(small, photos, tmp_path):
    detector = load(save_pretrained(small, tmp_path / "trained"))
    detector.trained_on_ = hash_images(photos[:6])
    return detector


def test_seen_images_are_found_and_others_are_not(trained, photos):
    assert find_training_images(trained, photos) == [(i, 0) for i in range(6)]
    assert find_training_images(trained, photos[6:]) == []
    assert find_training_images(trained, []) == []
    table = pd.DataFrame({"path": photos[5:7]})
    assert find_training_images(trained, table) == [(0, 0)]


def test_copies_of_seen_images_are_found(trained, tmp_path):
    photo(3).save(tmp_path / "copy.jpg", quality=50)
    half = photo(3).resize((80, 80))
    found = find_training_images(trained, [photo(9), tmp_path / "copy.jpg", half])
    assert [index for index, _ in found] == [1, 2]
    assert all(distance <= 6 for _, distance in found)


def test_distances_are_those_of_a_plain_loop(trained, photos):
    expected = []
    for i, path in enumerate(photos):
        value = perceptual_hash(path)[0]
        bits = min((value ^ int(known)).bit_count() for known in trained.trained_on_)
        if bits <= 30:
            expected.append((i, bits))
    assert len(expected) > 6
    assert find_training_images(trained, photos, 30) == expected


def test_blocks_do_not_change_the_distances(monkeypatch):
    rng = np.random.default_rng(0)
    hashes, known = rng.integers(0, 2**64, (2, 500), dtype=np.uint64)
    whole = pretrained._nearest(hashes, known)
    monkeypatch.setattr(pretrained, "_BLOCK", 7)
    np.testing.assert_array_equal(pretrained._nearest(hashes, known), whole)


def test_what_was_seen_goes_with_the_folder(trained, photos, tmp_path):
    folder = save_pretrained(trained, tmp_path / "again")
    assert find_training_images(folder, photos) == [(i, 0) for i in range(6)]
    assert find_training_images(str(folder), photos[4:8]) == [(0, 0), (1, 0)]


def test_images_without_contrast_are_like_nothing(trained):
    black = Image.new("RGB", (50, 50))
    assert len(hash_images([black, black])) == 0
    trained.trained_on_ = np.array([0, perceptual_hash(black)[0]], dtype=np.uint64)
    assert find_training_images(trained, [black]) == []


def test_a_detector_that_does_not_tell_is_refused(trained, photos, tmp_path):
    del trained.trained_on_
    with pytest.raises(BundleError, match="this detector does not say what it was trained on"):
        find_training_images(trained, photos)
    folder = trained.save(tmp_path / "silent")
    with pytest.raises(BundleError, match=r"silent does not say.*hash_images"):
        find_training_images(folder, photos)


def test_bad_input_is_refused(trained, photos, tmp_path):
    with pytest.raises(ValueError, match="between 0 and 64 bits, got 65"):
        find_training_images(trained, photos, 65)
    with pytest.raises(ImageError, match="no such file"):
        find_training_images(trained, [tmp_path / "none.png"])
