import json

import numpy as np
import pytest

from cnnsvm import InpaintDetector
from cnnsvm.detection import saved_networks as reuse
from cnnsvm.detection.bundle import load as load_bundle
from cnnsvm.detection.saved_networks import is_saved_network, real_class
from cnnsvm.features.weights import WeightsError

SETTINGS = {
    "weights": None,
    "augmentation": "geometric",
    "crop_size": 32,
    "n_crops": 2,
    "pooling": "mean_top",
    "epochs": 2,
    "batch_size": 4,
    "kernel": "linear",
    "n_trials": 1,
    "cv": 2,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}


def data(names=(0, 1), n_sources=6, seed=0):
    """Noisy pictures, and smoothed fakes of them."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(n_sources):
        noisy = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        smooth = (noisy // 2 + np.roll(noisy, 1, axis=1) // 2).astype(np.uint8)
        images += [noisy, smooth]
        labels += names
    return images, np.array(labels), np.repeat(np.arange(n_sources), 2)


def fit(backbone="statistics", **more):
    names = more.pop("names", (0, 1))
    return InpaintDetector(backbone, **{**SETTINGS, **more}).fit(*data(names))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A detector whose class of untouched images is the second by name, and its folder."""
    detector = fit(names=("untouched", "faked"))
    assert detector.network_.real_class == 1
    return detector, detector.save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def saved_cnn(tmp_path_factory):
    detector = fit("resnet18", truncate_at="layer1", stem="nopool", epochs=1)
    return detector, detector.save(tmp_path_factory.mktemp("saved") / "cnn")


def weights_of(detector):
    return {name: value.numpy() for name, value in detector.network_.state_dict().items()}


def test_a_frozen_saved_network_embeds_as_it_did(saved):
    first, folder = saved
    second = fit(weights=folder, finetune="none")
    assert second.history_ == []
    for name, value in weights_of(first).items():
        np.testing.assert_array_equal(weights_of(second)[name], value)
    assert second.network_.real_class == 1  # its classifier is the saved one's
    images = data(seed=5)[0]
    np.testing.assert_allclose(second.transform(images), first.transform(images), rtol=1e-5)


def test_what_reuses_a_network_is_saved_and_needs_the_other_no_more(saved, tmp_path):
    folder = saved[0].save(tmp_path / "first")
    detector = fit(weights=folder, finetune="none")
    detector.save(tmp_path / "second")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    again = InpaintDetector.load(tmp_path / "second")
    again.set_params(precision="float32")
    assert again.network_.real_class == 1
    images = data(seed=5)[0]
    np.testing.assert_allclose(again.predict_proba(images), detector.predict_proba(images))
    assert again.explain(images[0]).shape == (48, 48)


def test_fine_tuning_goes_on_from_a_saved_network(saved):
    first, folder = saved
    second = fit(weights=folder, finetune="full", learning_rate=1e-5)
    before, after = weights_of(first), weights_of(second)
    for name in ("branch.0.mean", "branch.0.scale"):
        np.testing.assert_array_equal(after[name], before[name])
    moved = np.abs(after["branch.1.weight"] - before["branch.1.weight"]).max()
    assert 0 < moved < 0.01
    assert second.network_.real_class == 0  # a new classifier, of the new classes


def test_a_saved_cnn_is_reused(saved_cnn):
    first, folder = saved_cnn
    shape = {"truncate_at": "layer1", "stem": "nopool"}
    second = fit("resnet18", weights=folder, finetune="none", **shape)
    for name, value in weights_of(first).items():
        np.testing.assert_array_equal(weights_of(second)[name], value)
    assert second.network_.preprocessing == first.network_.preprocessing


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"stem": "native"}, "stem='nopool', not 'native'"),
        ({"truncate_at": None}, "truncate_at='layer1', not None"),
        ({"statistics": True}, "statistics=False, not True"),
        ({"backbone": "statistics"}, "backbone='resnet18', not 'statistics'"),
        ({"preprocessing": "imagenet"}, "not 'imagenet'. Set the parameters as they were there"),
        ({"finetune": "head"}, "have no projection"),
    ],
)
def test_another_shape_is_refused(saved_cnn, more, message):
    shape = {"backbone": "resnet18", "truncate_at": "layer1", "stem": "nopool"}
    with pytest.raises(WeightsError, match=message):
        fit(weights=saved_cnn[1], **{**shape, **more})


def test_a_changed_byte_is_refused(saved, tmp_path):
    folder = saved[0].save(tmp_path / "model")
    file = next(path for path in folder.iterdir() if path.suffix == ".safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(WeightsError, match="cannot be read"):
        fit(weights=folder, finetune="none")


def test_a_detector_of_precomputed_embeddings_has_no_network(tmp_path):
    rng = np.random.default_rng(0)
    detector = InpaintDetector("precomputed", n_trials=1, cv=2, random_state=0)
    detector.fit(rng.normal(size=(20, 3)), np.arange(20) % 2).save(tmp_path / "model")
    with pytest.raises(WeightsError, match="that detector has no network"):
        fit(weights=tmp_path / "model")


def test_the_shipped_network_has_a_name(saved, monkeypatch, tmp_path):
    monkeypatch.setitem(reuse.SHIPPED, "cnnsvm", tmp_path / "none")
    with pytest.raises(WeightsError, match="none ships with this one"):
        fit(weights="cnnsvm", finetune="none")
    monkeypatch.setitem(reuse.SHIPPED, "cnnsvm", saved[1])
    detector = fit(weights="cnnsvm", finetune="none")
    np.testing.assert_array_equal(
        weights_of(detector)["branch.1.weight"], weights_of(saved[0])["branch.1.weight"]
    )


def test_bundles_of_before_that_do_not_name_their_real_class_still_load(saved):
    config = json.loads((saved[1] / "config.json").read_text())
    assert config["real_class"] == 1
    del config["real_class"]
    network = reuse.rebuild_network(config, weights_of(saved[0]))
    assert network.real_class == 1
    assert load_bundle(InpaintDetector, saved[1]).network_.real_class == 1


def test_what_names_a_saved_network(saved, tmp_path):
    assert is_saved_network("cnnsvm")
    assert is_saved_network("cifake")
    assert is_saved_network(saved[1])
    assert not any(map(is_saved_network, (None, "imagenet", tmp_path, tmp_path / "none.pt")))
    assert real_class(["fake", "real"]) == 1
    assert real_class([0, 1]) == 0


def test_a_saved_network_without_layers_to_train_is_refused(tmp_path):
    folder = fit(finetune="none", pooling="mean").save(tmp_path / "raw")
    again = fit(weights=folder, finetune="none", pooling="mean")
    assert again.transform(data()[0]).shape == (12, 627)
    with pytest.raises(WeightsError, match="nothing to train"):
        fit(weights=folder, finetune="full")


@pytest.mark.parametrize("finetune", ["none", "full"])
def test_a_folder_that_is_gone_is_told(tmp_path, finetune):
    with pytest.raises(WeightsError, match="must name the folder of a saved detector"):
        fit(weights=tmp_path / "lernt", finetune=finetune)


def test_a_head_of_statistics_goes_on(saved):
    assert fit(weights=saved[1], finetune="head", learning_rate=1e-5).history_


def test_bundles_of_before_stems_still_load(saved_cnn):
    first, folder = saved_cnn
    config = json.loads((folder / "config.json").read_text())
    for name in ("stem", "truncate_at", "statistics"):
        del config["params"][name]
    with pytest.raises(RuntimeError, match="state_dict"):  # a native, whole network is another
        reuse.rebuild_network(config, weights_of(first))
    config["params"] |= {"stem": "nopool", "truncate_at": "layer1"}
    assert reuse.rebuild_network(config, weights_of(first)).branch is None


def test_verdicts_on_tiny_pictures_are_unsure_also_after_loading(tmp_path):
    detector = fit(max_error=0.45)
    assert detector.min_side_ == 48
    detector.confidence_ = 0.0
    tiny, usual = np.zeros((31, 90, 3), np.uint8), data(seed=7)[0][0]
    again = InpaintDetector.load(detector.save(tmp_path / "model"))
    for each in (detector, again):
        said = each.verdict([tiny, usual]).tolist()
        assert said[0] == "unsure"
        assert said[1] != "unsure"
    assert again.min_side_ == 48
    assert detector.set_params(max_error=None).verdict([tiny])[0] != "unsure"
