from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from tiny_detector import cnn, detector, statistics, tuning

from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.evaluation.detectors import StoredEmbeddings, embed_frozen
from cnnsvm.evaluation.protocol import cross_validate_detector, run_study
from cnnsvm.features import embedder

N_SOURCES = 8


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
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
def frozen(tmp_path_factory):
    """A detector that starts from the frozen network of one of other images."""
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(8)]
    first = detector(statistics(finetune=tuning(epochs=1)))
    first.fit(images, np.arange(8) % 2, groups=np.arange(8) // 2)
    weights = first.save_pretrained(tmp_path_factory.mktemp("saved") / "model", bits=32)
    return detector(statistics(weights=weights, pooling="mean_top"))


def test_folds_on_embeddings_are_the_folds_on_images(frozen, manifest):
    stored = embed_frozen(frozen, manifest["path"].tolist())
    assert isinstance(stored.embedder, StoredEmbeddings)
    assert stored.embedder.embeddings.shape == (len(manifest), 512)
    once = cross_validate_detector(stored, manifest, n_splits=2)
    each = cross_validate_detector(frozen, manifest, n_splits=2)
    np.testing.assert_allclose(once.predictions["score"], each.predictions["score"], rtol=1e-4)
    assert once.predictions["fold"].tolist() == each.predictions["fold"].tolist()


def test_a_study_embeds_once_and_not_again(frozen, manifest, tmp_path, monkeypatch):
    calls = []
    embed = embedder.embed_crops

    def counted(network, crops, **options):
        found = embed(network, crops, **options)
        calls.append(len(found))
        return found

    monkeypatch.setattr(embedder, "embed_crops", counted)
    result, _ = run_study(frozen, manifest, n_splits=2, folder=tmp_path)
    assert calls == [2 * N_SOURCES]
    assert "ResidualStatistics" in result["settings"]["embedder"]
    assert "shuffled_labels" in result["controls"]
    again, _ = run_study(frozen, manifest, n_splits=2, folder=tmp_path)
    assert calls == [2 * N_SOURCES]
    assert again["metrics"] == result["metrics"]


def test_changed_images_alone_are_embedded_again(frozen, manifest, tmp_path, monkeypatch):
    paths = manifest["path"].tolist()
    first = embed_frozen(frozen, paths, tmp_path).embedder
    monkeypatch.setattr(embedder, "embed_crops", calls := Mock(wraps=embedder.embed_crops))
    second = embed_frozen(frozen, [*paths[1:], paths[0]], tmp_path).embedder
    assert not calls.called
    np.testing.assert_array_equal(second.transform(paths), first.transform(paths))
    changed = tmp_path / "changed.png"
    Image.open(paths[0]).transpose(Image.Transpose.ROTATE_90).save(changed)
    third = embed_frozen(frozen, [str(changed), *paths[1:]], tmp_path).embedder
    assert calls.call_count == 1
    assert not np.allclose(third.transform([str(changed)]), first.transform(paths[:1]))


@pytest.mark.parametrize("change", [{"finetune": tuning()}, {"weights": None, "pooling": "mean"}])
def test_what_a_fold_trains_is_not_embedded_beforehand(frozen, manifest, change):
    paths = manifest["path"].tolist()
    other = clone(frozen)
    other.embedder[0].set_params(**change)
    assert embed_frozen(other, paths) is other
    views = clone(frozen).set_params(n_views=1)
    assert embed_frozen(views, paths) is views
    mixed = detector(cnn(), frozen.embedder[0])
    assert embed_frozen(mixed, paths) is mixed
