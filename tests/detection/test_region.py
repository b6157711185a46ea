import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import CLIPVisionConfig, CLIPVisionModel

from cnnsvm import CNNEmbedder
from cnnsvm.data.images import ImageError
from cnnsvm.detection import patches
from cnnsvm.detection.region import RegionDetector
from cnnsvm.io.bundle import BundleError

SIZE, PATCH = 32, 8
N_SOURCES = 10


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """A tower of random weights, whose patches of 8 pixels still see texture."""
    folder = tmp_path_factory.mktemp("tower")
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
    )
    torch.manual_seed(0)
    CLIPVisionModel(config).save_pretrained(folder)
    return CNNEmbedder(
        f"hf:{folder}",
        finetune="none",
        crop_size=SIZE,
        n_crops=1,
        pooling="mean",
        device="cpu",
        precision="float32",
    )


def noisy(seed, side=64):
    return np.random.default_rng(seed).normal(128, 40, (side, side, 3)).clip(0, 255).astype("u1")


def spliced(seed, engine):
    """Noise with a smooth or a striped rectangle, and the mask of that."""
    rng, image = np.random.default_rng([seed, 1]), noisy(seed)
    mask = np.zeros(image.shape[:2], dtype=bool)
    top, left = rng.integers(0, 32, size=2)
    mask[top : top + 30, left : left + 30] = True
    image[mask] = 128 if engine == "smooth" else 100
    return image, mask


@pytest.fixture(scope="module")
def data():
    images, masks, groups, engines = [], [], [], []
    for source in range(N_SOURCES):
        for engine in ("none", "smooth", "dark"):
            image, mask = (noisy(source), None) if engine == "none" else spliced(source, engine)
            images.append(image)
            masks.append(mask)
            groups.append(source)
            engines.append(engine)
    return images, masks, groups, engines


@pytest.fixture(scope="module")
def fitted(embedder, data):
    detector = RegionDetector(embedder, layer=1, side=64, C=0.1, max_error=0.2, random_state=0)
    return detector.fit(*data)


def test_images_never_seen_are_told_apart(fitted):
    untouched = [noisy(seed) for seed in range(100, 110)]
    fakes = [spliced(seed, "smooth")[0] for seed in range(100, 110)]
    scores = fitted.decision_function(untouched + fakes)
    assert roc_auc_score(np.repeat([0, 1], 10), scores) > 0.85
    probabilities = fitted.predict_proba(untouched + fakes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (fitted.predict(fakes) == "spliced").mean() > 0.8
    assert set(fitted.verdict(untouched)) <= {"original", "unsure"}


def test_the_map_points_at_the_region(fitted):
    for seed in range(200, 204):
        image, mask = spliced(seed, "smooth")
        heat = fitted.explain(image)
        assert heat.shape == mask.shape
        assert heat.dtype == np.float32
        assert heat[mask].mean() > heat[~mask].mean() + 0.1


def test_scores_that_calibrate_are_of_machines_that_saw_neither_source_nor_engine(
    embedder, data, monkeypatch
):
    seen = []
    original = patches.fit_machine

    def watch(C, learnt):
        seen.append(len(learnt))
        return original(C, learnt)

    monkeypatch.setattr(patches, "fit_machine", watch)
    RegionDetector(embedder, layer=1, side=64, random_state=0).fit(*data)
    # of each engine and half of the sources: the other half, its originals and the other engine
    assert seen == [N_SOURCES] * 4


def test_the_class_token_is_no_patch(embedder):
    detector = RegionDetector(embedder, layer=1, side=64)
    grid = detector.patches(noisy(0))
    assert grid.shape == (64 // PATCH, 64 // PATCH, 32)


def test_tiles_lie_where_they_were_cut(embedder):
    detector = RegionDetector(embedder, layer=1, side=64)
    image = noisy(1)
    one = RegionDetector(embedder, layer=1, side=32).patches(image[:32, 32:])
    np.testing.assert_allclose(detector.patches(image)[:4, 4:], one, atol=1e-5)


def test_saved_and_loaded_it_judges_alike(fitted, embedder, tmp_path):
    folder = fitted.save_pretrained(tmp_path / "region")
    loaded = RegionDetector.from_pretrained(embedder, folder)
    images = [noisy(300), spliced(301, "dark")[0]]
    np.testing.assert_array_equal(loaded.predict_proba(images), fitted.predict_proba(images))
    assert loaded.verdict(images).tolist() == fitted.verdict(images).tolist()


def test_another_kind_of_model_is_refused(embedder, tmp_path):
    from cnnsvm.io.bundle import write_bundle

    folder = write_bundle(tmp_path / "other", {"kind": "InpaintDetector"}, {})
    with pytest.raises(BundleError, match="InpaintDetector"):
        RegionDetector.from_pretrained(embedder, folder)


def test_calibration_needs_two_engines(embedder, data):
    images, masks, groups, _ = data
    with pytest.raises(ValueError, match="two of each"):
        RegionDetector(embedder, layer=1, side=64).fit(images, masks, groups, ["one"] * len(images))


def test_an_image_that_cannot_be_read_is_named(fitted):
    with pytest.raises(ImageError, match=r"gone\.png"):
        fitted.predict(["gone.png"])


@pytest.mark.parametrize("side", [SIZE - 1, SIZE + 8])
def test_a_side_that_tiles_do_not_fill_is_refused(embedder, side):
    with pytest.raises(ValueError, match=f"side={side} must be a multiple"):
        RegionDetector(embedder, layer=1, side=side).patches(noisy(0))
