import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from baselines import designs as baselines
from baselines import squashing
from baselines.designs import ResizedSVM, SeedDesign
from baselines.small_cnn import build_small_cnn
from baselines.squashing import squash
from cnnsvm.features.backbones import build_backbone
from cnnsvm.features.cache import network_arrays
from cnnsvm.features.trainer import DivergedError

QUICK = {"n_trials": 2, "cv": 2, "threshold": 0.3, "random_state": 0}
NAIVE = ResizedSVM("squeezenet1_1", weights=None, **QUICK)
SEED = SeedDesign(size=32, epochs=12, **QUICK)
BOTH = pytest.mark.parametrize("design", [NAIVE, SEED], ids=["naive", "seed"])


@pytest.fixture(scope="module")
def easy():
    """Thirty sources, each with a fake whose left half is lighter: (images, y, groups)."""
    images, y, groups = [], [], []
    for source in range(30):
        rng = np.random.default_rng(source)
        coarse = rng.integers(0, 200, (9, 8, 3), dtype=np.uint8)
        real = np.asarray(Image.fromarray(coarse).resize((64, 72), Image.Resampling.BICUBIC))
        fake = real.copy()
        fake[:, :32] = np.minimum(fake[:, :32].astype(int) + 45, 255)
        images += [real, fake]
        y += [0, 1]
        groups += [source, source]
    return images, np.array(y), np.array(groups)


@pytest.fixture(scope="module")
def fitted(easy):
    images, y, groups = easy
    return {d: clone(d).fit(images[:40], y[:40], groups=groups[:40]) for d in (NAIVE, SEED)}


@BOTH
def test_it_learns_what_is_easy(design, fitted, easy):
    images, y, _ = easy
    assert roc_auc_score(y[40:], fitted[design].decision_function(images[40:])) > 0.8


@BOTH
def test_it_answers_as_the_detector_does(design, fitted, easy):
    model, unseen = fitted[design], easy[0][40:]
    scores, probabilities = model.decision_function(unseen), model.predict_proba(unseen)
    odds = np.log(probabilities[:, 1] / probabilities[:, 0])
    threshold = np.log(model.threshold_ / (1 - model.threshold_))
    np.testing.assert_allclose(scores, odds - threshold, atol=1e-9)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(model.predict(unseen), model.classes_[(scores > 0).astype(int)])


@BOTH
def test_parameters_come_back_and_a_clone_fits_alike(design, fitted, easy):
    images, y, groups = easy
    assert clone(design).get_params() == design.get_params()
    assert type(design)(**design.get_params()).get_params() == design.get_params()
    again = clone(design).fit(images[:40], y[:40], groups=groups[:40])
    scores = again.decision_function(images[40:])
    np.testing.assert_array_equal(scores, fitted[design].decision_function(images[40:]))


@BOTH
def test_the_svm_knows_the_sources_and_the_training_images_alone(design, easy, monkeypatch):
    given, fit = [], squashing.TunedSVC.fit

    def watch(self, X, y, groups=None, calibration_rows=None):
        given.append((len(X), list(y), groups))
        return fit(self, X, y, groups, calibration_rows)

    monkeypatch.setattr(squashing.TunedSVC, "fit", watch)
    images, y, groups = (part[:8] for part in easy)
    clone(design).fit(images, y, groups=groups)
    assert given[0][:2] == (8, y.tolist())
    np.testing.assert_array_equal(given[0][2], groups)


@BOTH
def test_labels_may_have_any_two_names(design, fitted, easy):
    images, y, groups = easy
    names = np.array(["art", "fake"])
    model = clone(design).fit(images[:40], names[y[:40]], groups=groups[:40])
    expected = names[fitted[design].predict(images[40:])]
    np.testing.assert_array_equal(model.predict(images[40:]), expected)


@BOTH
def test_the_threshold_is_chosen_on_training_images(design, easy):
    images, y, groups = easy
    model = clone(design).set_params(threshold="balanced_accuracy")
    model.fit(images[:40], y[:40], groups=groups[:40])
    scores = model.svm_.cv_decision_ - np.log(model.threshold_ / (1 - model.threshold_))
    called = scores > 0
    best = max(
        np.mean([(model.svm_.cv_decision_ >= cut)[y[:40] == k].mean() == k for k in (0, 1)])
        for cut in model.svm_.cv_decision_
    )
    found = (called[y[:40] == 1].mean() + (~called)[y[:40] == 0].mean()) / 2
    assert found >= best


@pytest.mark.parametrize("resample", ["bilinear", "lanczos"])
def test_squashing_is_pillows_resize(resample):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    method = getattr(Image.Resampling, resample.upper())
    expected = np.asarray(Image.fromarray(pixels).resize((40, 40), method))
    np.testing.assert_array_equal(squash(pixels, 40, resample), expected)


@pytest.mark.parametrize(
    ("design", "size", "resample"),
    [(NAIVE, 224, "bilinear"), (SeedDesign(epochs=1, **QUICK), 256, "lanczos")],
    ids=["naive", "seed"],
)
def test_each_design_resizes_as_it_is_named(design, size, resample, easy, monkeypatch):
    seen, embed = [], squashing.embed_crops

    def watch(network, dataset, **options):
        seen.append((tuple(dataset[0].shape), dataset[0][0].permute(1, 2, 0).numpy()))
        return embed(network, dataset, **options)

    monkeypatch.setattr(squashing, "embed_crops", watch)
    images, y, groups = (part[:8] for part in easy)
    clone(design).fit(images, y, groups=groups)
    assert seen[0][0] == (1, 3, size, size)
    np.testing.assert_array_equal(seen[0][1], squash(images[0], size, resample))


def test_the_naive_backbone_is_frozen(fitted):
    model = fitted[NAIVE]
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    untouched = network_arrays(build_backbone("squeezenet1_1", None, random_state=seed))
    for name, value in network_arrays(model.network_).items():
        np.testing.assert_array_equal(value, untouched[name])
    assert model.history_ == []


def test_the_naive_embedding_is_the_networks(fitted, easy):
    model, image = fitted[NAIVE], easy[0][50]
    pixels = torch.from_numpy(squash(image, 224, "bilinear").copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model.network_(pixels).numpy()
    embedding = model.set_params(precision="float32").transform([image])
    model.set_params(precision="auto")
    np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)


def test_the_seed_designs_network_learns(fitted):
    model = fitted[SEED]
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    before = network_arrays(build_small_cnn(32, 2, seed))
    after = network_arrays(model.network_)
    assert all((before[name] != after[name]).any() for name in after if "weight" in name)
    losses = [entry["train_loss"] for entry in model.history_]
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2


def test_the_small_cnn_is_that_of_the_seed_project():
    network = build_small_cnn(256, 2, 0)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 64, 128, 256]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    with torch.inference_mode():
        embedding = network(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))
    assert embedding.shape == (1, 256)


def test_a_finished_training_is_taken_from_the_cache(fitted, easy, tmp_path, monkeypatch):
    images, y, groups = (part[:40] for part in easy)
    first = clone(SEED).set_params(cache_dir=tmp_path).fit(images, y, groups=groups)
    expected = first.decision_function(easy[0][40:])

    def forbidden(*args, **kwargs):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(baselines, "train_small_cnn", forbidden)
        again = clone(first).fit(images, y, groups=groups)
        np.testing.assert_array_equal(again.decision_function(easy[0][40:]), expected)
        assert again.history_ == first.history_
        with pytest.raises(AssertionError, match="trained again"):
            clone(first).set_params(epochs=11).fit(images, y, groups=groups)


def test_a_diverging_training_says_so(easy):
    images, y, groups = (part[:8] for part in easy)
    with pytest.raises(DivergedError, match="Lower learning_rate"):
        SeedDesign(size=32, learning_rate=1e20, **QUICK).fit(images, y, groups=groups)


@pytest.mark.parametrize(
    ("design", "message"),
    [
        (ResizedSVM(size=16), "size must be a whole number >= 32, got 16"),
        (ResizedSVM(threshold=1.5), r"threshold must be .* got 1\.5"),
        (ResizedSVM(threshold="best"), "threshold must be"),
        (ResizedSVM("resnet19"), "'resnet19' is not known"),
        (ResizedSVM(kernel="cubic"), "cubic"),
        (ResizedSVM(weights="nowhere.pth"), "no such file"),
        (SeedDesign(epochs=0), "epochs must be a whole number >= 1, got 0"),
        (SeedDesign(learning_rate=0), "learning_rate must be above 0, got 0"),
        (SeedDesign(batch_size=0), "batch_size must be"),
        (SeedDesign(cv=9), r"4 group\(s\) but 9 folds"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_trained(design, message, easy, monkeypatch):
    monkeypatch.setattr(baselines, "train_small_cnn", None)
    images, y, groups = (part[:8] for part in easy)
    with pytest.raises(ValueError, match=message):
        design.fit(images, y, groups=groups)


@BOTH
def test_three_classes_are_refused(design, easy):
    with pytest.raises(ValueError, match="Join the fakes into one class"):
        clone(design).fit(easy[0][:6], [0, 1, 2, 0, 1, 2])
