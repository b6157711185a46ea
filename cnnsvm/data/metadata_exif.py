"""The texts of an EXIF directory, which is that of a TIFF file too.

Pillow reads all entries, each as long as it is (of a TIFF file, up to the whole file), and warns of
each that is broken; here those that are wanted are read, once and up to a limit.
"""

from collections.abc import Callable, Iterator
from typing import IO

from cnnsvm.data.metadata_blocks import MAX_BLOCK

#: Number of an entry -> what it is, of a TIFF file and of EXIF.
EXIF_TEXTS = {
    0x000B: "ProcessingSoftware",
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x013B: "Artist",
    0x9286: "UserComment",
    0x9C9C: "XPComment",
}
_TIFF_BLOCKS = {0x02BC: "xmp", 0x83BB: "iptc", 0x8649: "photoshop", 0xCD41: "c2pa"}
_EXIF_DIRECTORY = 0x8769
_ONE_BYTE = (1, 2, 7)  # types of entries: bytes, text, undefined
_MAX_ENTRIES = 512
_MAX_EXIF_TEXT = 2**16
#: How a user comment begins -> its characters; UTF-16 may have either order of bytes.
_UTF_16 = "utf-16"
_CHARACTERS = {
    b"UNICODE\0": _UTF_16,
    b"JIS\0\0\0\0\0": "shift_jis",
    b"ASCII\0\0\0": "utf-8",
    bytes(8): "utf-8",
}


def exif_entries(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the texts of a TIFF directory and of the EXIF one that it names.

    ``stream`` begins at the TIFF header. Names are those of `EXIF_TEXTS`; of blocks, the kind. A
    ValueError is raised if there is no directory.
    """
    stream.seek(0)
    head = stream.read(8)
    if len(head) < 8 or head[:2] not in (b"II", b"MM"):
        raise ValueError("no TIFF header")

    def number(data: bytes) -> int:
        return int.from_bytes(data, "little" if head[:2] == b"II" else "big")

    yield from _directory(stream, number, number(head[4:]))


def _directory(
    stream: IO[bytes], number: Callable[[bytes], int], place: int, nested: bool = False
) -> Iterator[tuple[str, bytes]]:
    stream.seek(place)
    head = stream.read(2)
    if len(head) < 2:
        raise ValueError("a directory that is not there")
    entries = stream.read(12 * min(number(head), _MAX_ENTRIES))
    seen: set[str] = set()
    for start in range(0, len(entries) - 11, 12):
        entry = entries[start : start + 12]
        tag, kind, count = number(entry[:2]), number(entry[2:4]), number(entry[4:8])
        if tag == _EXIF_DIRECTORY and not nested:
            yield from _directory(stream, number, number(entry[8:]), nested=True)
        name = EXIF_TEXTS.get(tag) or ("" if nested else _TIFF_BLOCKS.get(tag, ""))
        if not name or name in seen or (kind not in _ONE_BYTE and tag not in _TIFF_BLOCKS):
            continue
        seen.add(name)
        most = MAX_BLOCK if tag in _TIFF_BLOCKS else _MAX_EXIF_TEXT
        size = min(count * (1 if kind in _ONE_BYTE else 4), most)
        if size > 4:
            stream.seek(number(entry[8:]))
        yield name, stream.read(size) if size > 4 else entry[8 : 8 + size]


def exif_text(name: str, data: bytes) -> str:
    """Decode the bytes of an entry; a user comment says its characters itself."""
    if name == "XPComment":
        return data.decode("utf-16-le", "replace")
    if name != "UserComment":
        return data.partition(b"\0")[0].decode("utf-8", "replace")
    coding = _CHARACTERS.get(data[:8])
    data = data if coding is None else data[8:]
    if coding == _UTF_16:  # UTF-16, whose order of bytes is not written: text is mostly Latin
        is_big = data[::2].count(0) >= data[1::2].count(0)
        coding = "utf-16-be" if is_big else "utf-16-le"
    return data.decode(coding or "utf-8", "replace")
