import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from tiny_detector import detector

from baselines import designs
from baselines.designs import SeedEmbedder, SquareEmbedder, resize_to_square
from baselines.small_cnn import build_small_cnn
from cnnsvm.features.backbones import build_backbone
from cnnsvm.features.cache import network_arrays
from cnnsvm.features.trainer import DivergedError

NAIVE = SquareEmbedder("squeezenet1_1", weights=None, random_state=0, precision="float32")
SEED = SeedEmbedder(size=32, epochs=12, random_state=0, precision="float32")
BOTH = pytest.mark.parametrize("embedder", [NAIVE, SEED], ids=["naive", "seed"])


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
    return {e: clone(e).fit(images[:40], y[:40], groups=groups[:40]) for e in (NAIVE, SEED)}


@BOTH
def test_in_a_detector_it_learns_what_is_easy(embedder, easy):
    images, y, groups = easy
    model = detector(embedder).fit(images[:40], y[:40], groups=groups[:40])
    assert roc_auc_score(y[40:], model.decision_function(images[40:])) > 0.8


@BOTH
def test_parameters_come_back_and_a_clone_fits_alike(embedder, fitted, easy):
    images, y, groups = easy
    assert type(embedder)(**embedder.get_params()).get_params() == embedder.get_params()
    again = clone(embedder).fit(images[:40], y[:40], groups=groups[:40])
    rows = fitted[embedder].transform(images[40:])
    np.testing.assert_array_equal(again.transform(images[40:]), rows)
    with pytest.raises(NotFittedError):
        clone(embedder).transform(images)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
def test_images_are_resized_as_pillow_does(resample):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((40, 40), resample))
    np.testing.assert_array_equal(resize_to_square(pixels, 40, resample), expected)


@pytest.mark.parametrize(
    ("embedder", "size", "resample"),
    [
        (NAIVE, 224, Image.Resampling.BILINEAR),
        (SeedEmbedder(epochs=1), 256, Image.Resampling.LANCZOS),
    ],
    ids=["naive", "seed"],
)
def test_each_design_resizes_as_it_is_named(embedder, size, resample, easy, monkeypatch):
    seen, embed = [], designs.embed_crops

    def watch(network, crops, **options):
        listed = list(crops)
        seen.append(listed[0][0])
        return embed(network, listed, **options)

    monkeypatch.setattr(designs, "embed_crops", watch)
    images, y, groups = (part[:8] for part in easy)
    clone(embedder).fit(images, y, groups).transform(images)
    assert seen[0].shape == (size, size, 3)
    np.testing.assert_array_equal(seen[0], resize_to_square(images[0], size, resample))


def test_the_naive_backbone_is_frozen(fitted, easy):
    model, image = fitted[NAIVE], easy[0][50]
    untouched = build_backbone("squeezenet1_1", None, random_state=0)
    for name, value in network_arrays(model.network_).items():
        np.testing.assert_array_equal(value, network_arrays(untouched)[name])
    assert model.history_ == []
    pixels = resize_to_square(image, 224, Image.Resampling.BILINEAR).copy()
    with torch.inference_mode():
        expected = model.network_(torch.from_numpy(pixels).permute(2, 0, 1)[None]).numpy()
    np.testing.assert_allclose(model.transform([image]), expected, rtol=1e-4, atol=1e-5)


def test_the_seed_designs_network_learns(fitted):
    model = fitted[SEED]
    before = network_arrays(build_small_cnn(32, 2, 0))
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

    def forbidden(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(designs, "train_small_cnn", forbidden)
    again = clone(first).fit(images, y, groups=groups)
    np.testing.assert_array_equal(again.transform(images), fitted[SEED].transform(images))
    assert again.history_ == first.history_
    with pytest.raises(AssertionError, match="trained again"):
        clone(first).set_params(epochs=11).fit(images, y, groups=groups)


def test_a_diverging_training_says_so(easy):
    images, y, groups = (part[:8] for part in easy)
    with pytest.raises(DivergedError, match="learning_rate"):
        SeedEmbedder(size=32, learning_rate=1e20, random_state=0).fit(images, y, groups=groups)


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        (SquareEmbedder(size=16), "'size'.*16"),
        (SquareEmbedder("resnet19"), "'resnet19' is not known"),
        (SquareEmbedder(weights="nowhere.pth"), "no such file"),
        (SeedEmbedder(epochs=0), "'epochs'.*0"),
        (SeedEmbedder(learning_rate=0), "'learning_rate'.*0"),
        (SeedEmbedder(batch_size=0), "'batch_size'.*0"),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_trained(
    embedder, message, easy, monkeypatch
):
    monkeypatch.setattr(designs, "train_small_cnn", None)
    images, y, groups = (part[:8] for part in easy)
    with pytest.raises(ValueError, match=message):
        embedder.fit(images, y, groups=groups)
