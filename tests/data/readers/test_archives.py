import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from cnnsvm.data.readers import DatasetError, archives, unpack_archive
from cnnsvm.data.readers.archives import data_name, is_archive, open_archive

CONTENT = (("a/b.txt", b"b"), ("c.txt", b"c"))
SUFFIXES = ("zip", "tar", "tar.gz", "tar.xz", "tar.bz2")
PACKED = ("zip", "tar.gz", "tar.xz", "tar.bz2")
NOISE = random.Random(0).randbytes(40_000)


def write(path, entries=CONTENT):
    """Write an archive of the kind that the name says; names may be TarInfo or ZipInfo too."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, content in entries:
                opened.writestr(name, content)
        return path
    mode = path.suffix.lstrip(".").replace("tar", "")
    with tarfile.open(path, f"w:{mode}") as opened:
        for name, content in entries:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def leftovers(workdir):
    return sorted(path.name for path in workdir.iterdir()) if workdir.exists() else []


def refused(archive, workdir, message, **caps):
    with pytest.raises(DatasetError, match=message):
        unpack_archive(archive, workdir, **caps)
    assert leftovers(workdir) == []


@pytest.fixture
def work(tmp_path):
    return tmp_path / "work"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_content_is_unpacked(tmp_path, work, suffix):
    folder = unpack_archive(write(tmp_path / f"my.data.{suffix}"), work)
    assert folder.parent == work
    assert folder.name.startswith("my.data-")
    assert (folder / "a/b.txt").read_bytes() == b"b"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c.txt"]
    assert leftovers(work) == [folder.name]


def test_tars_of_all_formats_with_long_names_and_folders(tmp_path, work):
    long = "x" * 90 + "/" + "y" * 120 + ".jpg"
    for fmt in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = long if fmt != tarfile.USTAR_FORMAT else "x/y.jpg"
        path = tmp_path / f"{fmt}.tar.xz"
        with tarfile.open(path, "w:xz", format=fmt) as opened:
            (tmp_path / "some").mkdir(exist_ok=True)
            opened.add(tmp_path / "some", "./some")
            info = tarfile.TarInfo(f"./some/{name}")
            info.size = len(NOISE)
            opened.addfile(info, io.BytesIO(NOISE))
        assert (unpack_archive(path, work) / "some" / name).read_bytes() == NOISE


@pytest.mark.parametrize("suffix", ["zip", "tar.xz"])
def test_the_same_archive_is_unpacked_once_and_a_changed_one_again(tmp_path, work, suffix):
    archive = write(tmp_path / f"data.{suffix}")
    folder = unpack_archive(archive, work)
    (folder / "c.txt").write_text("mark")
    assert unpack_archive(archive, work) == folder
    assert (folder / "c.txt").read_text() == "mark"
    write(archive, [("c.txt", b"new")])
    again = unpack_archive(archive, work)
    assert again != folder
    assert (again / "c.txt").read_bytes() == b"new"


def test_same_name_size_and_time_in_another_folder_is_another_archive(tmp_path, work):
    folders = []
    for content in (b"1", b"2"):
        (tmp_path / content.decode()).mkdir()
        archive = write(tmp_path / content.decode() / "data.zip", [("c.txt", content)])
        os.utime(archive, (1, 1))
        folders.append(unpack_archive(archive, work))
    assert [(folder / "c.txt").read_bytes() for folder in folders] == [b"1", b"2"]


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize(
    "name",
    ["../out.txt", "a/../../out.txt", "/out.txt", "..\\out.txt", "C:\\out.txt", "a\\..\\..\\b"],
)
def test_entries_that_leave_the_folder_are_refused(tmp_path, work, name, suffix):
    archive = write(tmp_path / f"data.{suffix}", [("good.txt", b""), (name, b"x")])
    refused(archive, work, r"leaves the folder; nothing was unpacked")
    assert not (tmp_path / "out.txt").exists()


def test_links_and_devices_in_a_zip_are_refused(tmp_path, work):
    for kind, rule in ((stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "is no plain file")):
        entry = zipfile.ZipInfo("entry")
        entry.external_attr = (kind | 0o777) << 16
        archive = write(tmp_path / f"{kind}.zip", [(entry, "/etc")])
        refused(archive, work, f"the entry 'entry' {rule}")


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.FIFOTYPE, "is no plain file"),
        (tarfile.CHRTYPE, "is no plain file"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, work, kind, rule):
    entry = tarfile.TarInfo("entry")
    entry.type, entry.linkname = kind, "good.txt"
    archive = write(tmp_path / "data.tar.gz", [("good.txt", b"x"), (entry, b"")])
    refused(archive, work, f"the entry 'entry' {rule}; nothing was unpacked")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(tmp_path, work, suffix):
    archive = write(tmp_path / f"data.{suffix}", [("a/b", b"1"), ("./a//b", b"2")])
    refused(archive, work, r"the entry './a//b' is there twice")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_file_where_a_folder_should_be_is_refused(tmp_path, work, suffix):
    archive = write(tmp_path / f"data.{suffix}", [("a", b"1"), ("a/b", b"2")])
    refused(archive, work, r"'a/b' is in the way of another")


def test_an_encrypted_zip_is_refused(tmp_path, work):
    data = bytearray(write(tmp_path / "data.zip", [("a", b"x")]).read_bytes())
    data[6] |= 1  # the flags of the file's header and of its entry in the table of contents
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "data.zip").write_bytes(data)
    refused(tmp_path / "data.zip", work, "the entry 'a' is encrypted; .*unpack it yourself")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_than_the_cap_is_refused(tmp_path, work, suffix):
    archive = write(tmp_path / f"data.{suffix}", [("a", bytes(600)), ("b", bytes(500))])
    refused(archive, work, "holds .*1,100 bytes, more than the cap of 1,000", max_bytes=1000)
    assert unpack_archive(archive, work, max_bytes=1100).is_dir()


@pytest.mark.parametrize("suffix", PACKED)
def test_absurd_expansion_is_refused(tmp_path, work, monkeypatch, suffix):
    archive = write(tmp_path / f"data.{suffix}", [("a", bytes(4_000_000))])
    assert unpack_archive(archive, tmp_path / "small").is_dir()  # too small to hurt
    monkeypatch.setattr(archives, "_SMALL", 1_000_000)
    refused(archive, work, r"4,000,000 bytes, more than 100 times the")


def test_a_bomb_among_the_headers_of_a_tar_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 1_000_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 10)
    path = tmp_path / "many.tar.gz"
    write(path, [(f"{i}", b"") for i in range(4_000)])
    with pytest.raises(DatasetError, match="more than 10 times"), open_archive(path) as members:
        list(members)
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**33
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)))
    with pytest.raises(DatasetError, match="a header of 8,589,934,592 bytes"):
        unpack_archive(path, tmp_path / "work")


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_full_disk_is_noticed(tmp_path, work, monkeypatch, suffix):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    refused(write(tmp_path / f"d.{suffix}", [("a", b"12")]), work, r"more than the 1 free in the")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["text", "empty", "cut", "flipped"])
def test_a_damaged_archive_leaves_nothing(tmp_path, work, suffix, damage):
    archive = write(tmp_path / f"data.{suffix}", [("a", NOISE), ("b", b"b"), ("c", b"c")])
    data = bytearray(archive.read_bytes())
    position = 512 * 80 if suffix == "tar" else 10_000  # of a plain tar only headers are checked
    data[position] ^= 1
    new = {"text": b"text", "empty": b"", "cut": data[:30_000], "flipped": data}[damage]
    archive.write_bytes(bytes(new))
    refused(archive, work, r"cannot be unpacked \(.*Download it again")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_a_tar_cut_between_two_files_is_noticed(tmp_path, work, pack):
    plain = write(tmp_path / "plain.tar", [("a", NOISE), ("b", b"b")]).read_bytes()
    for n_blocks in (80, 81, 82):  # before, in and behind the second file
        (tmp_path / "data.tar").write_bytes(pack(plain[: 512 * n_blocks]))
        refused(tmp_path / "data.tar", work, r"cannot be unpacked \(.*Download it again")


def test_a_compressed_tar_of_several_streams(tmp_path, work):
    plain = write(tmp_path / "plain.tar", [("a", NOISE)]).read_bytes()
    for pack in (gzip.compress, lzma.compress, bz2.compress):
        parts = pack(plain[:7_000]) + pack(plain[7_000:])
        archive = tmp_path / f"{pack.__module__.strip('_')}.tar.xz"  # the content counts
        archive.write_bytes(parts)
        assert (unpack_archive(archive, work) / "a").read_bytes() == NOISE


def test_an_interrupted_run_is_no_finished_one(tmp_path, work, monkeypatch):
    archive = write(tmp_path / "data.zip")

    def interrupt(source, sink, _):
        sink.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack_archive(archive, work)
    assert leftovers(work) == []
    folder = unpack_archive(archive, work)
    assert (folder / "a/b.txt").read_bytes() == b"b"


def test_an_archive_is_walked_without_being_unpacked(tmp_path):
    for suffix in SUFFIXES:
        path = write(tmp_path / f"x.{suffix}")
        with open_archive(path) as members:
            found = []
            for member in members:
                with member.open() as opened:
                    found.append((member.name, member.size, opened.read()))
        assert found == [(name, len(content), content) for name, content in CONTENT]
        path.unlink()
    assert leftovers(tmp_path) == []


def test_members_may_be_passed_over_and_walking_may_stop(tmp_path):
    entries = [(str(i), NOISE[: 512 * i + i]) for i in range(9)]
    for suffix in SUFFIXES:
        with open_archive(write(tmp_path / f"x.{suffix}", entries)) as members:
            for member in members:
                if member.name in "36":
                    with member.open() as opened:
                        assert opened.read() == entries[int(member.name)][1]
                if member.name == "7":
                    break


def test_archives_are_told_by_their_names():
    assert all(is_archive(f"X.{suffix}") for suffix in (*SUFFIXES, "TAR.XZ", "Zip", "tgz", "txz"))
    assert not any(is_archive(name) for name in ("a.gz", "a.xz", "zip", "a.zip.csv", "tar.csv"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.zip", "a"),
        ("b.c.tar.XZ", "b.c"),
        ("folder", "folder"),
        ("x.csv", "x.csv"),
        (".zip", ".zip"),
    ],
)
def test_name_of_a_data_set_is_without_the_ending_of_an_archive(name, expected, tmp_path):
    assert data_name(tmp_path / name) == expected
