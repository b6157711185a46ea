"""Embeddings that a cache holds are not computed again, and are those that were computed."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_detector import cnn

from cnnsvm.data.images import ImageError
from cnnsvm.features import embedding_store
from cnnsvm.features.embedding_store import embed_stored


@pytest.fixture
def images():
    return list(np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8))


@pytest.fixture
def embedder(monkeypatch):
    """An embedder that notes how many images it was asked for, four a part."""
    monkeypatch.setattr(embedding_store, "PART", 4)
    fitted = cnn(weights=None, finetune="none", random_state=0).fit(None)
    monkeypatch.setattr(type(fitted), "transform", noting(type(fitted).transform))
    fitted.asked = []
    return fitted


def noting(transform):
    def noted(self, images):
        self.asked.append(len(images))
        return transform(self, images)

    return noted


def keys_of(images):
    return [str(i) for i in range(len(images))]


def test_a_second_run_embeds_nothing_and_gives_the_same(embedder, images, tmp_path):
    expected = embedder.transform(images)
    first = embed_stored(embedder, images, keys_of(images), tmp_path)
    np.testing.assert_allclose(first, expected, atol=1e-6)
    np.testing.assert_array_equal(
        embed_stored(embedder, images, keys_of(images), tmp_path), first, strict=True
    )
    assert embedder.asked == [10, 4, 4, 2]


def test_equal_images_are_embedded_once_and_new_ones_alone(embedder, images, tmp_path):
    twice = embed_stored(embedder, [*images[:3], images[0]], ["a", "b", "c", "a"], tmp_path)
    np.testing.assert_array_equal(twice[0], twice[3])
    embed_stored(embedder, images[2:5], ["c", "d", "e"], tmp_path)
    assert embedder.asked == [3, 2]


def test_an_interruption_loses_a_part_at_most(embedder, images, tmp_path):
    broken = [*images[:6], "no-such-file.png", *images[7:]]
    with pytest.raises(ImageError, match="no-such-file"):
        embed_stored(embedder, broken, keys_of(images), tmp_path)
    embedder.asked.clear()
    embed_stored(embedder, images, keys_of(images), tmp_path)
    assert embedder.asked == [4, 2]


@pytest.mark.parametrize("spoil", ["array", "keys", "sidecar", "no array"])
def test_a_damaged_part_is_computed_again(embedder, images, tmp_path, caplog, spoil):
    first = embed_stored(embedder, images, keys_of(images), tmp_path)
    array = sorted(tmp_path.rglob("*.npy"))[1]
    sidecar = array.with_suffix(".json")
    if spoil == "array":
        data = bytearray(array.read_bytes())
        data[-1] ^= 1
        array.write_bytes(data)
    elif spoil == "keys":
        description = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps(description | {"keys": description["keys"][:-1]}))
    elif spoil == "sidecar":
        sidecar.write_text("[1, 2")
    else:
        array.unlink()
    embedder.asked.clear()
    np.testing.assert_allclose(
        embed_stored(embedder, images, keys_of(images), tmp_path), first, atol=1e-6
    )
    assert embedder.asked == [4]
    assert "computed again" in caplog.text


@pytest.mark.parametrize("change", [{"crop_size": 24}, {"mirror": True}, {"random_state": 1}])
def test_another_way_of_embedding_shares_nothing(embedder, images, tmp_path, change):
    embed_stored(embedder, images, keys_of(images), tmp_path)
    other = cnn(**{"weights": None, "finetune": "none", "random_state": 0} | change).fit(None)
    other.asked = []
    embed_stored(other, images, keys_of(images), tmp_path)
    assert sum(other.asked) == len(images)


def test_two_at_once_embed_each_image_once(embedder, images, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(embed_stored, embedder, images, keys_of(images), tmp_path) for _ in range(2)
        ]
        first, second = (job.result() for job in jobs)
    np.testing.assert_array_equal(first, second)
    assert sum(embedder.asked) == len(images)


def test_images_may_be_made_when_they_are_asked_for(embedder, images, tmp_path):
    lazy = embedding_store._Some(images, [3, 1])
    found = embed_stored(embedder, lazy, ["3", "1"], tmp_path)
    np.testing.assert_allclose(found, embedder.transform([images[3], images[1]]), atol=1e-6)


def test_the_parts_that_were_not_used_for_longest_go_first(embedder, images, tmp_path, monkeypatch):
    embed_stored(embedder, images, keys_of(images), tmp_path)
    parts = sorted(tmp_path.rglob("*.npy"))
    for age, part in zip((1, 2, 3), parts, strict=True):
        os.utime(part, (10**9 - age, 10**9 - age))
    embedding_store._prune(tmp_path / "embeddings", sum(p.stat().st_size for p in parts[:2]))
    assert sorted(tmp_path.rglob("*.npy")) == parts[:2]
    embedder.asked.clear()
    embed_stored(embedder, images[:8], keys_of(images[:8]), tmp_path)  # reading is use
    assert embedder.asked == []
    assert min(part.stat().st_mtime for part in parts[:2]) > 10**9
    monkeypatch.setattr(embedding_store, "MOST_BYTES", 0)
    found = embed_stored(embedder, images, keys_of(images), tmp_path)
    np.testing.assert_allclose(found, embedder.transform(images), atol=1e-6)
    assert list(tmp_path.rglob("*.npy")) == []
