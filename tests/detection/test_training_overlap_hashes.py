import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_detector import cnn, detector, statistics

from cnnsvm.data.images import ImageError
from cnnsvm.data.near_duplicates import perceptual_hash
from cnnsvm.detection import training_overlap
from cnnsvm.detection.training_overlap import (
    find_near,
    find_training_images,
    hash_images,
    hash_training_images,
    training_hashes,
)


def photo(seed, size=160):
    """An image with content at low frequencies, which is what the hash sees."""
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


@pytest.fixture(scope="module")
def trained(photos):
    return detector(statistics()).fit(photos[:6], [0, 1] * 3)


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
    whole = training_overlap._nearest(hashes, known)
    monkeypatch.setattr(training_overlap, "_BLOCK", 7)
    np.testing.assert_array_equal(training_overlap._nearest(hashes, known), whole)


def test_what_was_seen_goes_with_the_folder(trained, photos, tmp_path):
    folder = trained.save_pretrained(tmp_path / "again")
    assert find_training_images(folder, photos) == [(i, 0) for i in range(6)]
    assert find_training_images(str(folder), photos[4:8]) == [(0, 0), (1, 0)]
    for named in (folder, trained):
        np.testing.assert_array_equal(training_hashes(named), hash_images(photos[:6]))


def test_what_the_initial_weights_have_seen_counts_too(trained, photos, tmp_path):
    folder = trained.save_pretrained(tmp_path / "again")
    second = detector(cnn(), statistics(weights=folder)).fit(photos[4:8], [0, 1] * 2)
    np.testing.assert_array_equal(second.trained_on_, hash_images(photos[:8]))
    hashes = hash_training_images(photos[8:9], second.embedder_)
    np.testing.assert_array_equal(hashes, hash_images([*photos[:6], photos[8]]))


def test_images_without_contrast_are_like_nothing(trained):
    black = Image.new("RGB", (50, 50))
    assert len(hash_images([black, black])) == 0
    assert find_near(np.array([0, perceptual_hash(black)[0]], dtype=np.uint64), [black]) == []


def test_bad_input_is_refused(trained, photos, tmp_path):
    with pytest.raises(ValueError, match=r"max_distance.*0 and 64.*65"):
        find_training_images(trained, photos, 65)
    with pytest.raises(ImageError, match=r"none\.png"):
        find_training_images(trained, [tmp_path / "none.png"])
