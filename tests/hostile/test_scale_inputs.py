"""Tar files and tables of paths that lie about what is in them."""

import io
import tarfile

import pytest

from cnnsvm.data.images import ImageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
contents = pytest.importorskip("cnnsvm.scale.contents")
sources = pytest.importorskip("cnnsvm.scale.sources")

WHOLE = b"GIF89a, or so it begins"


def head_of(name, size=0, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for place, value in fields.values():
        head[place : place + len(value)] = value
    head[148:156] = b" " * 8  # as it counts in its own checksum
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def behind_a_whole_image(tmp_path, *heads):
    file = tmp_path / "shard.tar"
    image = head_of("first.gif", len(WHOLE)) + WHOLE.ljust(512, b"\0")
    file.write_bytes(image + b"".join(heads) + bytes(1024))
    return str(file)


UNENDING = (124, b"\x80" + b"\x7f" * 11)


@pytest.mark.parametrize(
    "heads",
    [
        [head_of("a.png", length=UNENDING)],
        [head_of("more", kind=tarfile.XHDTYPE)] * 2000,
        [head_of("more", 2**33 - 1, kind=tarfile.GNUTYPE_LONGNAME)],
        [head_of("a.png", 2**33 - 1)],
    ],
    ids=["endless member", "heads of heads", "long name", "member beyond the end"],
)
def test_images_before_a_member_that_lies_are_still_read(tmp_path, heads):
    file = behind_a_whole_image(tmp_path, *heads)
    with contents.open_shard(file, None) as shard:
        assert shard.names[0] == f"{file}/first.gif"
        assert shard.read(0) == WHOLE
        for index in range(1, len(shard)):
            with pytest.raises(ImageError, match=r"a file of .* bytes|to its end"):
                shard.read(index)


def test_links_and_devices_of_a_shard_are_no_images(tmp_path):
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    file = behind_a_whole_image(tmp_path, *(head_of("a.png", kind=kind) for kind in kinds))
    with contents.open_shard(file, None) as shard:
        assert shard.names == [f"{file}/first.gif"]


def test_a_sparse_member_is_not_taken_for_what_is_stored_of_it(tmp_path):
    map_and_size = {"map": (386, b"%011o\0%011o\0" % (0, 512)), "whole": (483, b"%011o\0" % 1000)}
    head = head_of("a.png", 512, tarfile.GNUTYPE_SPARSE, **map_and_size)
    file = behind_a_whole_image(tmp_path, head, bytes(512))
    with contents.open_shard(file, None) as shard, pytest.raises(ImageError, match="--sparse"):
        shard.read(1)


@pytest.mark.parametrize("damage", [b"\xff", b"\0"])
def test_a_damaged_table_of_paths_is_named(tmp_path, damage):
    file = io.BytesIO()
    pq.write_table(pa.table({"path": [f"{i}.png" for i in range(100)]}), file)
    spoilt, messages = tmp_path / "spoilt.parquet", []
    for start in range(0, len(file.getvalue()), 40):
        content = file.getvalue()
        spoilt.write_bytes(content[:start] + damage * 40 + content[start + 40 :])
        try:
            sources.find_blocks([spoilt], 10)
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert all("spoilt.parquet" in message for message in messages)
