"""Detectors whose networks are taught finer labels, or stand beside those of others."""

import json

import numpy as np
import pytest
import torch

from cnnsvm import InpaintDetector
from cnnsvm.detection.fitting import set_aside
from cnnsvm.detection.pretrained import hash_images, training_hashes
from cnnsvm.evaluation.preparation import Prepared, leave_out_seen_by
from cnnsvm.evaluation.runs import settings_of
from cnnsvm.features.weights import WeightsError

SETTINGS = {
    "weights": None,
    "stem": "small",
    "preprocessing": "imagenet",
    "augmentation": "geometric",
    "crop_size": 32,
    "n_crops": 2,
    "pooling": "mean",
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "kernel": "linear",
    "n_trials": 1,
    "cv": 2,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}


def data(n_sources=8, seed=0):
    """Noisy pictures, every second of them dark, and smoothed fakes of them."""
    rng = np.random.default_rng(seed)
    images, fine = [], []
    for source in range(n_sources):
        noisy = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) // (1 + source % 2)
        smooth = (noisy // 2 + np.roll(noisy, 1, axis=1) // 2).astype(np.uint8)
        images += [noisy, smooth]
        fine += [f"{('bright', 'dark')[source % 2]} {kind}" for kind in ("real", "fake")]
    labels = np.tile([0, 1], n_sources)
    return images, labels, np.repeat(np.arange(n_sources), 2), np.array(fine)


def fit(backbone="plain_cnn", seed=0, fine=False, **more):
    images, labels, groups, auxiliary_labels = data(seed=seed)
    detector = InpaintDetector(backbone, **SETTINGS | more)
    return detector.fit(images, labels, groups, auxiliary_labels if fine else None)


def arrays(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two saved detectors: a plain one, and one that was taught finer labels."""
    folder = tmp_path_factory.mktemp("saved")
    plain, taught = fit(), fit("plain_cnn_7", fine=True, truncate_at="stage3")
    for detector, seed in ((plain, 0), (taught, 1)):
        detector.trained_on_ = hash_images(data(seed=seed)[0])
    return plain.save(folder / "plain"), taught.save(folder / "taught")


def together(saved, **more):
    """The second network beside the first, fitted on other pictures."""
    return fit(seed=7, weights=saved[0], finetune="none", ensemble=(saved[1],), **more)


def test_a_network_taught_finer_labels_predicts_the_classes(saved):
    detector = InpaintDetector.load(saved[1])
    assert detector.network_.classifier.out_features == 4
    assert detector.network_.parents == (1, 0, 1, 0)  # bright fake, bright real, dark fake, ...
    assert detector.classes_.tolist() == [0, 1]
    images, labels, *_ = data(seed=3)
    assert detector.predict_proba(images).shape == (len(images), 2)
    assert detector.explain(images[0]).shape == (40, 40)
    scores = [detector.explain(image).mean() for image in images]
    assert np.mean(np.array(scores)[labels == 1]) > np.mean(np.array(scores)[labels == 0])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"finetune": "none"}, "no network is trained"),
        ({"backbone": "statistics"}, "no network is trained"),
        ({"statistics": True}, "statistics are taught the classes alone"),
    ],
)
def test_fine_labels_need_a_network_to_teach(more, reason):
    with pytest.raises(ValueError, match=reason):
        fit(fine=True, **more)


def test_bad_fine_labels_are_refused():
    images, labels, groups, fine = data()
    detector = InpaintDetector("plain_cnn", **SETTINGS)
    with pytest.raises(ValueError, match="'picture' is in two classes of y"):
        detector.fit(images, labels, groups, np.full(len(labels), "picture"))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        detector.fit(images, labels, groups, fine[:-1])
    missing = fine.astype(object)
    missing[3] = None
    with pytest.raises(ValueError, match=r"auxiliary_labels\[3\] is missing"):
        detector.fit(images, labels, groups, missing)


def test_networks_stand_side_by_side_unchanged(saved):
    detector = together(saved)
    images = data(seed=5)[0]
    alone = [InpaintDetector.load(folder) for folder in saved]
    for one in alone:
        one.set_params(precision="float32", device="cpu")
    wanted = np.concatenate([one.transform(images) for one in alone], axis=1)
    np.testing.assert_allclose(detector.transform(images), wanted, rtol=1e-4, atol=1e-6)
    assert detector.svm_.n_features_in_ == wanted.shape[1]
    for network, one in zip((detector.network_, *detector.network_.members), alone, strict=True):
        for name, value in arrays(one.network_).items():
            np.testing.assert_array_equal(arrays(network)[name], value)


def test_an_ensemble_is_saved_whole_and_needs_the_others_no_more(saved, tmp_path):
    detector = together(saved)
    detector.save(tmp_path / "both")
    config = json.loads((tmp_path / "both" / "config.json").read_text())
    assert config["ensemble"][0]["params"]["backbone"] == "plain_cnn_7"
    loaded = InpaintDetector.load(tmp_path / "both")
    assert [type(m.body[0][0]) for m in loaded.network_.members]
    images = data(seed=5)[0]
    loaded.set_params(precision="float32", device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(images), detector.predict_proba(images))
    np.testing.assert_allclose(loaded.explain(images[0]), detector.explain(images[0]))
    again = fit(seed=9, weights=tmp_path / "both", finetune="none")  # as what another begins with
    np.testing.assert_allclose(again.transform(images), detector.transform(images), rtol=1e-5)


def test_an_ensemble_in_half_precision_judges_alike(saved, tmp_path):
    detector = together(saved)
    detector.save_pretrained(tmp_path / "half")
    loaded = InpaintDetector.from_pretrained(tmp_path / "half")
    loaded.set_params(precision="float32", device="cpu")
    images = data(seed=5)[0]
    assert np.abs(loaded.predict_proba(images) - detector.predict_proba(images)).max() < 0.02
    card = (tmp_path / "half" / "README.md").read_text()
    assert "beside it `plain_cnn_7`, cut after `stage3`" in card


def test_what_any_of_its_networks_has_seen_an_ensemble_has_seen(saved, tmp_path):
    known, is_all = training_hashes(together(saved))
    assert not is_all  # what the support vector machine learnt from is not told
    assert set(known) == {*hash_images(data(seed=0)[0]), *hash_images(data(seed=1)[0])}


def test_an_ensemble_stands_beside_a_network_in_training(saved):
    detector = fit(seed=7, ensemble=(saved[1],))
    member = InpaintDetector.load(saved[1]).network_
    for name, value in arrays(member).items():
        np.testing.assert_array_equal(arrays(detector.network_.members[0])[name], value)
    assert len(detector.history_) == 2
    assert detector.network_.classifier.in_features == 256
    assert detector.svm_.n_features_in_ == 256 + 384


def test_an_svm_can_be_fitted_on_what_each_network_says(saved, tmp_path):
    detector = together(saved, fusion="scores")
    images = data(seed=5)[0]
    found = detector.transform(images)
    assert found.shape == (len(images), 2)
    for k, folder in enumerate(saved):
        one = InpaintDetector.load(folder)
        one.set_params(precision="float32", device="cpu")
        embedding = torch.from_numpy(one.transform(images))  # the mean over crops
        assert np.corrcoef(one.network_.fake_score(embedding).numpy(), found[:, k])[0, 1] > 0.99
    detector.save(tmp_path / "scores")
    loaded = InpaintDetector.load(tmp_path / "scores").set_params(precision="float32", device="cpu")
    assert loaded.svm_.n_features_in_ == 2
    np.testing.assert_allclose(loaded.predict_proba(images), detector.predict_proba(images))


def test_scores_need_a_network_that_was_trained():
    with pytest.raises(ValueError, match="fusion='scores' takes what the layer says"):
        fit(finetune="none", fusion="scores")
    with pytest.raises(ValueError, match="fusion must be one of embeddings, scores, got 'votes'"):
        fit(fusion="votes")


@pytest.mark.parametrize(
    ("ensemble", "error", "message"),
    [
        ("cifake", ValueError, r"must be a tuple of saved detectors, got 'cifake'.*\('FOLDER',\)"),
        (("nowhere",), WeightsError, "'nowhere' is no saved detector. Give the folder of one"),
        ((3,), WeightsError, "3 is no saved detector"),
    ],
)
def test_an_ensemble_that_is_none_is_refused(ensemble, error, message):
    with pytest.raises(error, match=message):
        fit(ensemble=ensemble)


def test_a_network_that_was_never_fine_tuned_is_no_member(tmp_path):
    folder = fit(finetune="none").save(tmp_path / "raw")
    with pytest.raises(WeightsError, match="was never fine-tuned"):
        fit(ensemble=(folder,))


def test_another_ensemble_is_another_run(saved):
    base = InpaintDetector("plain_cnn", **SETTINGS)
    runs = [base.set_params(ensemble=e) and settings_of(base) for e in ((), saved[:1], saved)]
    assert len(set(runs)) == 3


def test_sources_that_a_member_has_seen_are_left_out(saved, tmp_path):
    import pandas as pd
    from PIL import Image

    rows = []
    for seed in (0, 1, 2):  # seen by the first, by the second, and by none
        for k, image in enumerate(data(seed=seed)[0][:4]):
            path = tmp_path / f"{seed}-{k}.png"
            Image.fromarray(image).save(path)
            rows.append({"path": str(path), "label": k % 2, "source_id": f"{seed}-{k // 2}"})
    manifest = pd.DataFrame(rows).assign(variant="original")
    detector = InpaintDetector("plain_cnn", ensemble=saved, **SETTINGS)
    kept = leave_out_seen_by(Prepared(manifest, [], []), detector)
    assert set(kept.manifest["source_id"]) == {"2-0", "2-1"}


def test_what_is_set_aside_is_what_a_fit_sets_aside(monkeypatch):
    from cnnsvm.detection import fitting

    images, labels, groups, _ = data(12)
    detector = InpaintDetector("plain_cnn", **SETTINGS)
    kept, real = [], fitting._trusted_rows
    monkeypatch.setattr(fitting, "_trusted_rows", lambda *a: kept.append(real(*a)) or kept[-1])
    monkeypatch.setattr(fitting, "MIN_HELD_OUT", 1)
    detector.fit(images, labels, groups)
    np.testing.assert_array_equal(set_aside(detector, labels, groups), np.flatnonzero(kept[0]))
