import io
import logging
import shutil

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.data.near_duplicates import _near_pairs, join_pairs, perceptual_hash
from cnnsvm.data.readers import merge_near_duplicates


def draw_image(seed, size=(160, 120)):
    """Return a random scene: smooth shapes with enough structure to tell scenes apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def crop(image, share):
    x, y = int(image.width * share), int(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


def save(folder, images, labels=None, sources=None):
    rows = []
    for k, image in enumerate(images):
        path = folder / f"{k}.png"
        image.save(path)
        source = sources[k] if sources else f"s{k}"
        rows.append(make_row(path, labels[k] if labels else 0, source))
    return make_manifest(rows)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 50),
        lambda image: image.resize((80, 60)),
        lambda image: image.resize((128, 128)),
        lambda image: crop(image, 0.01),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.point(lambda value: value * 0.8 + 20),
    ],
)
def test_copies_are_merged_and_other_images_are_not(tmp_path, change):
    images = [draw_image(seed) for seed in range(6)]
    manifest = save(tmp_path, [*images, change(images[2])])
    merged = merge_near_duplicates(manifest, n_jobs=1)
    assert merged["source_id"].tolist() == ["s0", "s1", "s2", "s3", "s4", "s5", "s2"]


def test_every_row_of_a_source_moves_with_its_original_which_is_what_counts(tmp_path):
    a, b, fake = draw_image(1), draw_image(2), draw_image(3)
    images = [fake, a, jpeg(fake, 90), jpeg(a, 60), b]
    labels, sources = [1, 0, 1, 0, 0], ["x", "x", "y", "z", "y"]
    merged = merge_near_duplicates(save(tmp_path, images, labels, sources), n_jobs=1)
    assert merged["source_id"].tolist() == ["x", "x", "y", "x", "y"]  # fakes alike do not join


def test_a_source_without_an_original_is_known_by_its_first_row(tmp_path):
    images = [draw_image(1), draw_image(2), jpeg(draw_image(1), 60)]
    manifest = save(tmp_path, images, [1, 1, 0], ["x", "x", "y"])
    assert set(merge_near_duplicates(manifest, n_jobs=1)["source_id"]) == {"x"}


def test_joining_is_transitive():
    hashes = np.array([0b0, 0b1111, 0b11111111, 2**63], np.uint64)
    found = set(_near_pairs(hashes, np.ones(4, bool), 4))
    assert found == {(0, 1, 4), (0, 3, 1), (1, 2, 4)}
    pairs = np.array(sorted(found))[:, :2]  # 0 and 2 are 8 bits apart, and yet one group
    for part, n_groups in ((pairs, 1), (pairs[:1], 3), (pairs[:0], 4)):
        assert len(set(join_pairs(4, part))) == n_groups


def test_distances_in_blocks_agree_with_the_plain_way():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 1300, dtype=np.uint64)
    hashes[700:] = hashes[:600] ^ (np.uint64(1) << rng.integers(0, 63, 600).astype(np.uint64))
    usable = rng.random(1300) < 0.9
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(int)
    distance = bits @ (1 - bits.T) + (1 - bits) @ bits.T
    near = np.triu(distance <= 20, 1) & usable[:, None] & usable[None]
    assert sorted(_near_pairs(hashes, usable, 20)) == [
        (i, j, distance[i, j]) for i, j in np.argwhere(near)
    ]
    assert near.sum() > 400


@pytest.mark.parametrize("level", [0, 255])
def test_flat_images_are_merged_only_when_identical(tmp_path, level):
    rng = np.random.default_rng(0)
    fog = [
        Image.fromarray(rng.normal(120, 6, (120, 160)).clip(0, 255).astype(np.uint8))
        for _ in range(3)
    ]
    flat = [Image.new("L", (64, 64), value) for value in (level, 130, level)]
    merged = merge_near_duplicates(save(tmp_path, [*flat, *fog]), n_jobs=1)
    assert merged["source_id"].tolist() == ["s0", "s1", "s0", "s3", "s4", "s5"]


def test_identical_files_are_merged_whatever_their_label(tmp_path):
    manifest = save(
        tmp_path, [draw_image(1), draw_image(2), draw_image(3)], [0, 0, 1], ["a", "b", "a"]
    )
    shutil.copy(manifest.path[2], tmp_path / "copy.png")
    more = make_row(tmp_path / "copy.png", 1, "b")
    both = make_manifest([*manifest.to_dict("records"), more])
    assert set(merge_near_duplicates(both, n_jobs=1)["source_id"]) == {"a"}


def test_the_input_is_not_changed_and_merging_again_changes_nothing(tmp_path):
    manifest = save(tmp_path, [draw_image(1), jpeg(draw_image(1), 70), draw_image(4)])
    before = manifest.copy()
    merged = merge_near_duplicates(manifest, n_jobs=1)
    pd.testing.assert_frame_equal(manifest, before)
    pd.testing.assert_frame_equal(merge_near_duplicates(merged, n_jobs=1), merged)
    pd.testing.assert_frame_equal(
        merged.drop(columns="source_id"), manifest.drop(columns="source_id")
    )


def test_any_index_and_no_rows_at_all(tmp_path):
    manifest = save(tmp_path, [draw_image(1), draw_image(4), jpeg(draw_image(1), 70)]).iloc[
        [2, 1, 0]
    ]
    merged = merge_near_duplicates(manifest, n_jobs=1)
    assert merged["source_id"].tolist() == ["s2", "s1", "s2"]
    assert merged.index.tolist() == [2, 1, 0]
    assert merge_near_duplicates(manifest.iloc[:0]).empty


def test_the_log_names_what_was_merged(tmp_path, caplog):
    manifest = save(tmp_path, [draw_image(1), draw_image(4), jpeg(draw_image(1), 70)])
    with caplog.at_level(logging.INFO):
        merge_near_duplicates(manifest, n_jobs=1)
    assert "merged 2 near-duplicate sources into 1: s0, s2" in caplog.text


def test_distance_zero_and_impossible_distances(tmp_path):
    manifest = save(tmp_path, [draw_image(1), crop(draw_image(1), 0.03)])
    assert merge_near_duplicates(manifest, 0, n_jobs=1)["source_id"].nunique() == 2
    for distance in (-1, 65):
        with pytest.raises(ValueError, match=f"between 0 and 64 bits, got {distance}"):
            merge_near_duplicates(manifest, distance)


def test_the_hash_is_that_of_imagehash(tmp_path):
    draw_image(5).save(tmp_path / "a.png")
    assert f"{perceptual_hash(tmp_path / 'a.png')[0]:016x}" == str(imagehash.phash(draw_image(5)))
