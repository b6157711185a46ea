import json

import numpy as np
import pytest
from PIL import Image
from tiny_detector import cnn, detector, statistics, tuning

from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.detection.training_overlap import hash_images, training_hashes
from cnnsvm.evaluation.preparation import Prepared, leave_out_seen, leave_out_seen_by
from cnnsvm.io.bundle import SHIPPED, BundleError

N_SOURCES = 6


def draw_image(seed):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((96, 80), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for i in range(N_SOURCES):
        for label in (0, 1):
            path = folder / f"{i}_{label}.png"
            draw_image(i + 100 * label).save(path)
            rows.append(make_row(path, label, f"source{i}", variant=("original", "spliced")[label]))
    return Prepared(make_manifest(rows), [], ["an earlier warning"])


def noise(seed):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(8)]


def fit(*embedders, seed=0):
    return detector(*embedders).fit(noise(seed), np.arange(8) % 2, groups=np.arange(8) // 2)


@pytest.fixture(scope="module")
def model():
    return fit(statistics(finetune=tuning(epochs=1)))


@pytest.fixture
def trained_on(model, tmp_path):
    """Save the detector as one that was trained on some of the images."""

    def save(images, name="model"):
        model.trained_on_ = hash_images(images)
        return model.save_pretrained(tmp_path / name)

    return save


def test_sources_whose_original_was_seen_are_left_out(prepared, trained_on):
    folder = trained_on([draw_image(1).resize((192, 160)), draw_image(4)])
    left = leave_out_seen(prepared, folder)
    assert set(left.manifest["source_id"]) == {"source0", "source2", "source3", "source5"}
    assert len(left.manifest) == 8
    assert [entry["path"].rpartition("/")[2] for entry in left.skipped] == ["1_0.png", "4_0.png"]
    assert "trained on (0 bits of 64 differ)" in left.skipped[1]["reason"]
    assert left.warnings[0] == "an earlier warning"
    assert left.warnings[1].startswith(f"2 of 6 sources look like images that {folder} was")
    assert len(prepared.manifest) == 2 * N_SOURCES  # as it was


def test_a_seen_fake_alone_leaves_its_source_in(prepared, trained_on):
    left = leave_out_seen(prepared, trained_on([draw_image(102)]))
    assert left.manifest.equals(prepared.manifest)
    assert left.warnings == ["an earlier warning"]


def test_nothing_left_is_an_error(prepared, trained_on):
    folder = trained_on([draw_image(i) for i in range(N_SOURCES)])
    with pytest.raises(ValueError, match="6 of 6 sources of the data look like images that"):
        leave_out_seen(prepared, folder)


def test_what_is_no_saved_detector_leaves_all_in(prepared, tmp_path):
    for weights in (None, "imagenet", tmp_path / "weights.pt"):
        assert leave_out_seen(prepared, weights) is prepared


def test_a_changed_bundle_is_an_error(prepared, trained_on):
    folder = trained_on([draw_image(1)])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"threshold": 0.4}))
    with pytest.raises(BundleError, match="has changed"):
        leave_out_seen(prepared, folder)


def test_the_shipped_one_has_a_name(prepared, trained_on, monkeypatch):
    folder = trained_on([draw_image(3)])
    monkeypatch.setitem(SHIPPED, "cnnsvm", folder)
    left = leave_out_seen(prepared, "cnnsvm")
    assert "source3" not in set(left.manifest["source_id"])
    assert left.warnings[1].startswith("1 of 6 sources look like images that the detector cnnsvm")


def test_a_fake_stands_for_a_source_without_an_original(prepared, trained_on):
    apart = prepared.manifest.assign(source_id=[f"own{i}" for i in range(2 * N_SOURCES)])
    folder = trained_on([draw_image(102), draw_image(0)])
    left = leave_out_seen(Prepared(apart, [], []), folder)
    assert set(apart["source_id"]) - set(left.manifest["source_id"]) == {"own0", "own5"}


def test_a_class_that_is_gone_is_an_error(prepared, trained_on):
    apart = prepared.manifest.assign(source_id=[f"own{i}" for i in range(2 * N_SOURCES)])
    folder = trained_on([draw_image(i) for i in range(N_SOURCES)])
    with pytest.raises(ValueError, match="6 of 12 sources of others look"):
        leave_out_seen(Prepared(apart, [], []), folder, name="others")


def test_what_the_first_network_was_trained_on_is_left_out_a_generation_later(
    prepared, trained_on, tmp_path
):
    folder = trained_on([draw_image(2)])
    for generation in range(2):
        second = fit(statistics(weights=folder), seed=generation + 1)
        folder = second.save_pretrained(tmp_path / f"generation{generation}")
        expected = {*hash_images([draw_image(2)])}
        for seed in range(1, generation + 2):
            expected |= {*hash_images(noise(seed))}
        assert {*training_hashes(folder)} == expected
    left = leave_out_seen(prepared, folder)
    assert {"source2"} == {*prepared.manifest["source_id"]} - {*left.manifest["source_id"]}


def test_every_embedder_of_a_detector_counts(prepared, trained_on):
    first, second = trained_on([draw_image(1)], "first"), trained_on([draw_image(4)], "second")
    both = detector(cnn(), statistics(weights=first), statistics(weights=second))
    left = leave_out_seen_by(prepared, both)
    gone = {*prepared.manifest["source_id"]} - {*left.manifest["source_id"]}
    assert gone == {"source1", "source4"}
