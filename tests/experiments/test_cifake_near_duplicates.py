import io
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_files import cifake_files, draw_image, pack
from PIL import Image

from cifake_study import near_duplicates
from cifake_study.near_duplicates import group_near_duplicates
from cnnsvm.data.images import load_image
from cnnsvm.data.readers import read_cifake

REAL_ARCHIVE = Path(__file__).parents[2] / "../shared/data/cifake_train.tar.xz"


def variants(seed):
    """An image and what a copy of it may look like."""
    image = np.asarray(draw_image(seed))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=75)
    brighter = np.clip(image.astype(int) + 15, 0, 255).astype(np.uint8)
    flatter = (image * 0.8 + 20).astype(np.uint8)
    return [image, brighter, flatter, load_image(buffer.getvalue())]


def test_near_duplicates_share_a_group_and_nothing_else_does():
    images = np.stack([image for seed in range(30) for image in variants(seed)])
    groups = group_near_duplicates(images)
    assert groups.tolist() == np.repeat(np.arange(30), 4).tolist()
    assert groups.dtype == np.int64


def test_mirror_images_are_near_duplicates():
    images = np.stack(
        [np.asarray(draw_image(0)), np.asarray(draw_image(1)), variants(0)[1][:, ::-1]]
    )
    assert group_near_duplicates(images).tolist() == [0, 1, 0]


def test_given_groups_are_widened_and_never_split():
    images = np.stack([variants(0)[0], variants(1)[0], variants(1)[1], variants(2)[0]])
    assert group_near_duplicates(images, np.array([5, 5, 7, 3])).tolist() == [0, 0, 0, 1]
    assert group_near_duplicates(images, np.array(list("abcb"))).tolist() == [0, 1, 1, 1]


def test_labels_keep_classes_apart_but_for_identical_images():
    one, brighter = variants(0)[:2]
    images, labels = np.stack([one, brighter, one, brighter]), np.array([0, 0, 1, 1])
    assert group_near_duplicates(images[:2], labels=np.array([0, 1])).tolist() == [0, 1]
    assert group_near_duplicates(images, labels=labels).tolist() == [0, 0, 0, 0]


def test_images_without_contrast_are_joined_only_when_identical():
    rng = np.random.default_rng(0)
    flat = [np.full((32, 32, 3), value, np.uint8) for value in (0, 0, 200, 255)]
    foggy = [rng.integers(100, 103, (1, 1, 3), dtype=np.uint8) + flat[0] for _ in range(2)]
    foggy[1] = foggy[1] + np.eye(32, dtype=np.uint8)[:, :, None]
    assert len(set(group_near_duplicates(np.stack(flat + foggy)).tolist())) == 5


def test_tiles_do_not_change_the_result(monkeypatch):
    images = np.stack([image for seed in range(9) for image in variants(seed)])[::-1]
    whole = group_near_duplicates(images)
    monkeypatch.setattr(near_duplicates, "_TILE", (5, 7))
    assert group_near_duplicates(images).tolist() == whole.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, r"shape \(N, 32, 32, 3\) with N"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8)}, "at least 1"),
        ({"images": np.zeros((2, 32, 32, 3))}, "got float64"),
        ({"groups": np.zeros(3)}, "groups must have one value an image"),
        ({"labels": np.zeros(3)}, "labels must have one value an image"),
    ],
)
def test_bad_arguments_of_the_grouping(arguments, message):
    arguments = {"images": np.zeros((2, 32, 32, 3), np.uint8)} | arguments
    with pytest.raises(ValueError, match=message):
        group_near_duplicates(**arguments)


def test_wider_groups_reach_the_manifest(tmp_path):
    files = cifake_files(n=1)
    buffer = io.BytesIO()
    Image.fromarray(variants(0)[1]).save(buffer, "PNG")
    files |= {"train/REAL/brighter.png": buffer.getvalue()}
    found = read_cifake(pack(files, tmp_path / "x.zip"))
    wider = replace(found, groups=group_near_duplicates(found.images, found.groups))
    sources = wider.manifest.set_index("path")["source_id"]
    assert sources["train/REAL/brighter.png"] == "train/REAL/0000 (0).jpg"


def test_nothing_is_shown_when_no_terminal_looks(tmp_path, capsys, caplog):
    with caplog.at_level(logging.INFO):
        group_near_duplicates(read_cifake(pack(cifake_files(n=1), tmp_path / "x.zip")).images)
    assert capsys.readouterr() == ("", "")
    assert "near-duplicate pairs" in caplog.text


@pytest.mark.skipif(
    not REAL_ARCHIVE.is_file() or "CNNSVM_TEST_CIFAKE" not in os.environ,
    reason="needs ../shared/data and CNNSVM_TEST_CIFAKE=1: two minutes on two cores",
)
def test_the_whole_real_archive():
    found = read_cifake(REAL_ARCHIVE)
    wider = group_near_duplicates(found.images, found.groups, labels=found.labels)
    assert 98_300 <= len(set(wider.tolist())) <= 98_400  # products differ in the last digit
