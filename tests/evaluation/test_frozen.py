import numpy as np
import pytest
from PIL import Image

from cnnsvm import InpaintDetector
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.evaluation import detectors as frozen
from cnnsvm.evaluation.detectors import embed_frozen
from cnnsvm.evaluation.protocol import cross_validate_detector, run_study
from cnnsvm.features.cache import Embedding

SETTINGS = {
    "crop_size": 32,
    "n_crops": 2,
    "pooling": "mean_top",
    "kernel": "linear",
    "n_trials": 1,
    "cv": 2,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}
N_SOURCES = 8


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(N_SOURCES):
        noisy = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        smooth = (noisy // 2 + np.roll(noisy, 1, axis=1) // 2).astype(np.uint8)
        for label, pixels in enumerate((noisy, smooth)):
            path = folder / f"{i}_{label}.png"
            Image.fromarray(pixels).save(path)
            variant = ("original", "regenerated")[label]
            rows.append(make_row(path, label, f"s{i}", variant=variant))
    return make_manifest(rows)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """One that starts from the frozen network of a detector of other pictures."""
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(8)]
    first = InpaintDetector(
        "statistics", weights=None, augmentation="geometric", epochs=1, **SETTINGS
    )
    first.fit(images, np.arange(8) % 2, groups=np.arange(8) // 2)
    weights = first.save(tmp_path_factory.mktemp("saved") / "model")
    return InpaintDetector("statistics", weights=weights, finetune="none", **SETTINGS)


def test_folds_on_embeddings_are_the_folds_on_images(detector, manifest):
    embeddings = embed_frozen(detector, manifest["path"].tolist())
    assert embeddings.shape == (2 * N_SOURCES, 512)
    once = cross_validate_detector(detector, manifest, n_splits=2, embeddings=embeddings)
    each = cross_validate_detector(detector, manifest, n_splits=2)
    np.testing.assert_allclose(once.predictions["score"], each.predictions["score"], rtol=1e-4)
    assert once.predictions["fold"].tolist() == each.predictions["fold"].tolist()


def test_a_study_embeds_once_and_not_again(detector, manifest, tmp_path, monkeypatch):
    calls = []
    embed = Embedding.__call__

    def counted(self, network, images):
        calls.append(len(images))
        return embed(self, network, images)

    monkeypatch.setattr(Embedding, "__call__", counted)
    result, _ = run_study(detector, manifest, n_splits=2, folder=tmp_path)
    assert calls == [2 * N_SOURCES]
    assert result["settings"]["backbone"] == "statistics"
    assert "shuffled_labels" in result["controls"]
    again, _ = run_study(detector, manifest, n_splits=2, folder=tmp_path)
    assert calls == [2 * N_SOURCES]
    assert again["metrics"] == result["metrics"]


def test_changed_images_are_embedded_again(detector, manifest, tmp_path):
    paths = manifest["path"].tolist()
    first = embed_frozen(detector, paths, tmp_path)
    second = embed_frozen(detector, [*paths[1:], paths[0]], tmp_path)
    np.testing.assert_allclose(second[-1], first[0], rtol=1e-4)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "change", [{"finetune": "full"}, {"n_views": 1}, {"weights": None, "pooling": "mean"}]
)
def test_what_a_fold_trains_is_not_embedded_beforehand(detector, manifest, monkeypatch, change):
    monkeypatch.setattr(frozen, "build_network", None)
    other = InpaintDetector(**detector.get_params() | change)
    assert embed_frozen(other, manifest["path"].tolist()) is None
    assert embed_frozen(object(), manifest["path"].tolist()) is None
