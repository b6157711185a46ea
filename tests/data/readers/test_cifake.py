import hashlib
import os
import tarfile
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from dataset_files import CIFAKE_FOLDERS, cifake_files, jpeg, pack

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.readers import DatasetError, MissingDataError, read_cifake
from cnnsvm.data.readers import cifake as module
from cnnsvm.data.readers.cifake import is_large_cifake

REAL_ARCHIVE = Path(__file__).parents[3] / "../shared/data/cifake_train.tar.xz"
KINDS = ("folder", "zip", "tar", "tar.gz", "tar.xz")


def read(files, tmp_path, kind="tar.xz", splits=None):
    return read_cifake(pack(files, tmp_path / ("x" if kind == "folder" else f"x.{kind}")), splits)


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_gives_the_same(tmp_path, kind):
    files = cifake_files()
    found = read(dict(reversed(files.items())), tmp_path, kind)
    assert found.names.tolist() == sorted(files)
    for k, name in enumerate(found.names):
        assert (found.images[k] == load_image(files[name])).all()
        assert found.sha256[k] == hashlib.sha256(files[name]).hexdigest()
        assert found.split[k] == name.split("/")[0]
        assert found.labels[k] == ("FAKE" in name)
    assert found.images.dtype == np.uint8
    assert found.labels.dtype == found.groups.dtype == np.int64
    assert found.groups.tolist() == list(range(len(files)))
    with pytest.raises(FrozenInstanceError):
        found.labels = None


@pytest.mark.parametrize("prefix", ["", "cifake/", "./a/b/"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_wrapping_folders_and_any_case(tmp_path, prefix, case, kind):
    files = {prefix + case(name): data for name, data in cifake_files().items()}
    found = read(files, tmp_path, kind)
    assert len(found.names) == len(files)
    assert set(zip(found.split, found.labels, strict=True)) == {
        ("train", 0), ("train", 1), ("test", 0), ("test", 1)
    }  # fmt: skip
    assert set(np.char.rpartition(found.names, "/")[:, 0]) == set(CIFAKE_FOLDERS)


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_split_alone(tmp_path, split):
    files = cifake_files()
    own = {name: data for name, data in files.items() if name.startswith(split)}
    alone = read(own, tmp_path)
    chosen = read(files, tmp_path, "zip", splits=split)
    below = read_cifake(pack(files, tmp_path / "folder") / split)
    for found in (alone, chosen, below):
        assert found.names.tolist() == sorted(own)
        assert set(found.split) == {split}


def test_a_split_that_is_not_wanted_is_not_decoded(tmp_path):
    files = cifake_files() | {"test/REAL/bad.jpg": b"no image"}
    assert set(read(files, tmp_path, splits=["train"]).split) == {"train"}


def test_the_manifest(tmp_path):
    files = cifake_files()
    files["test/FAKE/again.jpg"] = files["test/FAKE/0001 (1).jpg"]
    table = read(files, tmp_path).manifest
    twins = table[table["sha256"].duplicated(keep=False)]
    assert twins["path"].tolist() == ["test/FAKE/0001 (1).jpg", "test/FAKE/again.jpg"]
    assert set(twins["source_id"]) == {"test/FAKE/0001 (1).jpg"}
    others = table.drop(twins.index)
    assert (others["source_id"] == others["path"]).all()


def test_same_pixels_share_a_group_whatever_the_file(tmp_path):
    files = cifake_files()
    name = "train/REAL/0000 (0).jpg"
    files["train/REAL/copy.png"] = jpeg(0, format="PNG")
    files["train/REAL/same.bmp"] = jpeg(0, format="BMP")
    files["test/REAL/bytes.jpg"] = files[name]  # across splits too
    found = read(files, tmp_path)
    group = dict(zip(found.names, found.groups, strict=True))
    assert group["train/REAL/copy.png"] == group["train/REAL/same.bmp"] != group[name]
    assert group["test/REAL/bytes.jpg"] == group[name]
    assert len(set(found.groups)) == len(files) - 2


def test_strays_are_ignored_and_images_elsewhere_reported(tmp_path, caplog):
    files = cifake_files(n=1)
    strays = {"README.txt": b"x", "train/REAL/Thumbs.db": b"x", "train/REAL/.hidden.jpg": b"x"}
    strays |= {"__MACOSX/train/REAL/._0000 (0).jpg": b"x", "train/cover.jpg": jpeg(1, (99, 50))}
    found = read(files | strays, tmp_path)
    assert found.names.tolist() == sorted(files)
    assert "left out 2 file(s), such as" in caplog.text  # the cover, and what is no image


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.xz"])
@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_file_that_is_no_image(tmp_path, kind, damage):
    bad = {"text": b"hello", "empty": b"", "cut": jpeg(0)[:-200]}[damage]
    with pytest.raises(
        ImageError, match=r"x.*: .*train/REAL/bad\.jpg: .* Download the data again, or remove it"
    ):
        read(cifake_files(n=1) | {"train/REAL/bad.jpg": bad}, tmp_path, kind)


def test_other_sizes_are_refused(tmp_path):
    for size in ((33, 32), (32, 33), (64, 64)):
        files = cifake_files(n=1) | {"train/REAL/big.jpg": jpeg(0, size)}
        message = rf"big\.jpg: {size[0]}x{size[1]} pixels; images of CIFAKE are 32x32.*read_folder"
        with pytest.raises(DatasetError, match=message):
            read(files, tmp_path)
    with pytest.raises(DatasetError, match=r"big\.jpg has 65,537 bytes, but an image of 32x32"):
        read(cifake_files(n=1) | {"train/REAL/big.jpg": bytes(65_537)}, tmp_path)


@pytest.mark.parametrize("missing", CIFAKE_FOLDERS)
def test_a_missing_class(tmp_path, missing):
    folders = [folder for folder in CIFAKE_FOLDERS if folder != missing]
    with pytest.raises(DatasetError, match=f"no images in {missing}; both classes are needed"):
        read(cifake_files(folders, n=1), tmp_path)


def test_nothing_recognised(tmp_path):
    with pytest.raises(DatasetError, match=r"no images in train\|test/REAL\|FAKE\. Give the fol"):
        read({"a.txt": b"x"}, tmp_path)
    with pytest.raises(DatasetError, match=r"but 2 elsewhere, such as cats/1\.jpg"):
        read({"cats/1.jpg": b"x", "dogs/1.jpg": b"x"}, tmp_path)
    with pytest.raises(DatasetError, match=r"no images in test/REAL\|FAKE"):
        read(cifake_files(["train/REAL", "train/FAKE"], n=1), tmp_path, splits="test")


@pytest.mark.parametrize("second", ["Train/real/0000 (0).jpg", "more/train/REAL/0000 (0).jpg"])
def test_two_files_of_one_name(tmp_path, second):
    files = cifake_files(n=1) | {second: jpeg(9)}
    for kind in ("zip", "tar.xz"):
        with pytest.raises(DatasetError, match=r"is a second train/REAL/0000 \(0\)\.jpg"):
            read(files, tmp_path, kind)


def test_splits_must_be_known(tmp_path):
    for splits in ("valid", ["train", "Test"], ()):
        with pytest.raises(DatasetError, match="splits must be None or of train, test, got"):
            read(cifake_files(n=1), tmp_path, splits=splits)


def test_what_is_no_archive(tmp_path):
    with pytest.raises(MissingDataError, match="no such file or folder"):
        read_cifake(tmp_path / "none.zip")
    (tmp_path / "x.jpg").write_bytes(jpeg(0))
    with pytest.raises(DatasetError, match="neither a folder nor an archive"):
        read_cifake(tmp_path / "x.jpg")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_truncated_archive(tmp_path, kind):
    path = pack(cifake_files(), tmp_path / f"x.{kind}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"cannot be unpacked \(.*Download it again"):
        read_cifake(path)


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_unsafe_archives(tmp_path, kind, monkeypatch):
    with pytest.raises(DatasetError, match="leaves the folder"):
        read(cifake_files(n=1) | {"../train/REAL/x.jpg": jpeg(9)}, tmp_path, kind)
    monkeypatch.setattr(module, "MAX_BYTES", 3_000)
    with pytest.raises(DatasetError, match=r"more than the cap of 3,000"):
        read(cifake_files(), tmp_path, kind)


def test_a_link_in_an_archive_is_refused(tmp_path):
    path = pack(cifake_files(n=1), tmp_path / "x.tar")
    with tarfile.open(path, "a") as opened:
        link = tarfile.TarInfo("train/REAL/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    with pytest.raises(DatasetError, match=r"'train/REAL/link\.jpg' is a link"):
        read_cifake(path)


def test_large_archives_of_small_images_are_recognised(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MANY", 8)
    path = tmp_path / "x.tar.xz"
    assert is_large_cifake(pack({"notes.txt": b"x"} | cifake_files(n=3), path))
    assert not is_large_cifake(pack(cifake_files(n=2), path))
    assert not is_large_cifake(pack({"train/REAL/z.jpg": bytes(70_000)} | cifake_files(n=3), path))
    assert not is_large_cifake(pack({"other/z.jpg": b"x"} | cifake_files(n=3), path))


@pytest.mark.skipif(not REAL_ARCHIVE.is_file(), reason="needs ../shared/data")
def test_the_real_archive_is_recognised():
    assert is_large_cifake(REAL_ARCHIVE)


@pytest.mark.skipif(
    not REAL_ARCHIVE.is_file() or "CNNSVM_TEST_CIFAKE" not in os.environ,
    reason="needs ../shared/data and CNNSVM_TEST_CIFAKE=1: a minute",
)
def test_the_whole_real_archive():
    found = read_cifake(REAL_ARCHIVE)
    assert found.images.shape == (100_000, 32, 32, 3)
    assert np.bincount(found.labels).tolist() == [50_000, 50_000]
    assert len(set(found.sha256)) == len(set(found.groups)) == 99_080
    assert np.bincount(np.bincount(found.groups)).tolist() == [0, 98_160, 920]
