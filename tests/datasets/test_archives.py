import os
import stat
import zipfile
from types import SimpleNamespace

import pytest

from cnnsvm.datasets import DatasetError, archives, unpack_zip


def write_zip(path, entries=(("a/b.txt", b"b"), ("c.txt", b"c"))):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries:
            opened.writestr(name, content)
    return path


def leftovers(workdir):
    return sorted(path.name for path in workdir.iterdir()) if workdir.exists() else []


def test_the_content_is_unpacked(tmp_path):
    folder = unpack_zip(write_zip(tmp_path / "data.zip"), tmp_path / "work")
    assert folder.parent == tmp_path / "work"
    assert (folder / "a/b.txt").read_bytes() == b"b"
    assert leftovers(tmp_path / "work") == [folder.name]


def test_the_same_zip_is_unpacked_once_and_a_changed_one_again(tmp_path):
    archive = write_zip(tmp_path / "data.zip")
    folder = unpack_zip(archive, tmp_path / "work")
    (folder / "c.txt").write_text("mark")
    assert unpack_zip(archive, tmp_path / "work") == folder
    assert (folder / "c.txt").read_text() == "mark"
    write_zip(archive, [("c.txt", b"new")])
    again = unpack_zip(archive, tmp_path / "work")
    assert again != folder
    assert (again / "c.txt").read_bytes() == b"new"


def test_same_name_size_and_time_in_another_folder_is_another_zip(tmp_path):
    folders = []
    for content in (b"1", b"2"):
        (tmp_path / content.decode()).mkdir()
        archive = write_zip(tmp_path / content.decode() / "data.zip", [("c.txt", content)])
        os.utime(archive, (1, 1))
        folders.append(unpack_zip(archive, tmp_path / "work"))
    assert [(folder / "c.txt").read_bytes() for folder in folders] == [b"1", b"2"]


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "a/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt", "a\\..\\..\\b"],
)
def test_entries_that_leave_the_folder_are_refused(tmp_path, name):
    archive = write_zip(tmp_path / "data.zip", [("good.txt", b""), (name, b"x")])
    with pytest.raises(DatasetError, match=r"leaves the folder; nothing was unpacked"):
        unpack_zip(archive, tmp_path / "work")
    assert leftovers(tmp_path / "work") == []
    assert not (tmp_path / "out.txt").exists()


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = write_zip(tmp_path / "data.zip", [(link, "/etc")])
    with pytest.raises(DatasetError, match="the entry 'link' is a link"):
        unpack_zip(archive, tmp_path / "work")
    assert leftovers(tmp_path / "work") == []


def test_more_than_the_cap_is_refused(tmp_path):
    archive = write_zip(tmp_path / "data.zip", [("a", bytes(600)), ("b", bytes(500))])
    with pytest.raises(DatasetError, match="holds 1,100 bytes, more than the cap of 1,000"):
        unpack_zip(archive, tmp_path / "work", max_bytes=1000)
    assert leftovers(tmp_path / "work") == []
    assert unpack_zip(archive, tmp_path / "work", max_bytes=1100).is_dir()


def test_absurd_expansion_is_refused(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "data.zip", [("a", bytes(2_000_000))])
    assert unpack_zip(archive, tmp_path / "small").is_dir()  # too small to hurt
    monkeypatch.setattr(archives, "_SMALL", 1_000_000)
    with pytest.raises(DatasetError, match="holds 2,000,000 bytes, more than 100 times the"):
        unpack_zip(archive, tmp_path / "work")


def test_a_full_disk_is_noticed_before(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(DatasetError, match=r"more than the 1 free in the working folder"):
        unpack_zip(write_zip(tmp_path / "data.zip"), tmp_path / "work")


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_a_damaged_zip_leaves_nothing(tmp_path, damage):
    archive = write_zip(tmp_path / "data.zip", [("a", os.urandom(5000)), ("b", b"b")])
    data = bytearray(archive.read_bytes())
    data[1000] ^= 1
    new = {"text": b"text", "cut": bytes(data[:3000]), "flipped": bytes(data)}[damage]
    archive.write_bytes(new)
    with pytest.raises(DatasetError, match=r"cannot be unpacked \(.*Download it again"):
        unpack_zip(archive, tmp_path / "work")
    assert leftovers(tmp_path / "work") == []


def test_an_interrupted_run_is_no_finished_one(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "data.zip")

    def interrupt(self, path):
        (path / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack_zip(archive, tmp_path / "work")
    folder = unpack_zip(archive, tmp_path / "work")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c.txt"]
