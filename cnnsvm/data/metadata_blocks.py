"""Where formats keep their metadata: blocks of bytes, found without decoding a pixel.

Pillow reads most of them too, but stops at the first that is broken, skips those that it does not
know (a C2PA manifest in WebP) and reads what stands behind the pixels of a PNG only by decoding
them. Here a broken block costs itself alone, and what is read is bounded.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from PIL import UnidentifiedImageError

from cnnsvm.data.decoding import MAX_CHUNKS, open_image

#: Most bytes of a block, and of all blocks of a file, that are read; most bytes of a text.
MAX_BLOCK, MAX_READ, MAX_TEXT = 2**22, 2**24, 2**20
#: Most bytes of a HEIF or AVIF file whose items are read.
MAX_ITEMS = 2**27
#: Most blocks of a file with something to read.
MAX_BLOCKS = 1000

_PNG, _JPEG, _RIFF, _GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF", b"GIF8"
_TIFF = (b"II*\0", b"MM\0*")
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED_XMP, _PHOTOSHOP = b"http://ns.adobe.com/xmp/extension/\0", b"Photoshop 3.0\0"
_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")
#: Type of the box of a C2PA manifest store (JUMBF), and of the box that holds it in HEIF and AVIF.
_STORE = b"c2pa\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71"
_BMFF_C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_WEBP = {b"EXIF": "exif", b"XMP ": "xmp", b"C2PA": "c2pa"}
_MEDIA = {
    _JPEG: "image/jpeg",
    _PNG: "image/png",
    _RIFF: "image/webp",
    _GIF: "image/gif",
    _TIFF[0]: "image/tiff",
    _TIFF[1]: "image/tiff",
    b"\0\0\0\x0cJXL ": "image/jxl",
}
_STAND_ALONE = (0x00, 0x01, 0xFF, *range(0xD0, 0xDA))  # what has no length


@dataclass(frozen=True)
class Block:
    """A piece of metadata as it is stored.

    Attributes
    ----------
    kind : str
        "exif", "xmp", "iptc", "photoshop" (which holds IPTC), "text" of a PNG, "comment" and
        "tables" of a JPEG, "c2pa"; "tiff" is a file whose own directory is to be read, "broken"
        what could not be read, and its ``data`` say why.
    data : bytes
        At most `MAX_BLOCK`.
    name : str
        Keyword of a PNG text, or where the block was found.
    """

    kind: str
    data: bytes
    name: str = ""


def find_blocks(stream: IO[bytes]) -> Iterator[Block]:
    """Yield the blocks of metadata of an image; none if its format is not known here.

    What is read is bounded by `MAX_READ` and `MAX_BLOCKS`; beyond it a "broken" block is the last.
    """
    n_read = n_blocks = 0
    for block in _walk(stream):
        n_read, n_blocks = n_read + len(block.data), n_blocks + 1
        if n_read > MAX_READ or n_blocks > MAX_BLOCKS:
            limit = f"more than {MAX_READ:,} bytes or {MAX_BLOCKS:,} blocks: the rest is not read"
            yield Block("broken", limit.encode(), "metadata")
            return
        yield block


def _walk(stream: IO[bytes]) -> Iterator[Block]:
    head = stream.read(16)
    stream.seek(0)
    if head.startswith(_JPEG):
        yield from _of_jpeg(stream)
    elif head.startswith(_PNG):
        yield from _of_png(stream)
    elif head.startswith(_RIFF) and head[8:12] == b"WEBP":
        yield from _of_webp(stream)
    elif head.startswith(_TIFF):
        yield Block("tiff", b"", "TIFF")
    elif head.startswith(_GIF):
        yield from _of_gif(stream)
    elif head[4:8] in (b"ftyp", b"JXL "):
        yield from _of_boxes(stream, is_jxl=head[4:8] == b"JXL ")


def media_type(head: bytes) -> str:
    """Name the type of a file that begins with ``head``, 16 bytes, as C2PA does."""
    if head[4:8] == b"ftyp":
        return "image/avif" if head[8:12] in (b"avif", b"avis") else "image/heic"
    return next((name for start, name in _MEDIA.items() if head.startswith(start)), "")


def _of_jpeg(stream: IO[bytes]) -> Iterator[Block]:
    """Yield blocks up to the first scan; tables are joined, as a file has several segments."""
    tables, store = b"", b""
    for marker, data in _segments(stream.read(MAX_READ)):
        if marker == 0xDB:
            tables += data[: MAX_TEXT - len(tables)]
        elif marker == 0xEB and data[:2] == b"JP":
            store += data[: MAX_BLOCK - len(store)]
        elif (block := _segment(marker, data)) is not None:
            yield block
    if tables:
        yield Block("tables", tables, "JPEG tables")
    if _STORE in store:
        yield Block("c2pa", store, "JPEG segment APP11")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment, over what fills the space between them."""
    place = len(_JPEG)
    for _ in range(MAX_CHUNKS):
        place = data.find(b"\xff", place) + 1
        if not 0 < place < len(data) - 2 or data[place] == 0xDA:  # the pixels begin
            return
        if data[place] in _STAND_ALONE:
            continue
        end = place + 1 + int.from_bytes(data[place + 1 : place + 3])
        yield data[place], data[place + 3 : end]
        place = end


def _segment(marker: int, data: bytes) -> Block | None:
    if marker == 0xE1 and data.startswith(_EXIF):
        return Block("exif", data[len(_EXIF) :], "EXIF")
    if marker == 0xE1 and data.startswith(_XMP):
        return Block("xmp", data[len(_XMP) :], "XMP")
    if marker == 0xE1 and data.startswith(_EXTENDED_XMP):
        return Block("xmp", data[len(_EXTENDED_XMP) + 40 :], "extended XMP")
    if marker == 0xED and data.startswith(_PHOTOSHOP):
        return Block("photoshop", data[len(_PHOTOSHOP) :], "IPTC")
    return Block("comment", data, "JPEG comment") if marker == 0xFE else None


def _of_png(stream: IO[bytes]) -> Iterator[Block]:
    stream.seek(len(_PNG))
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length, kind = int.from_bytes(head[:4]), head[4:]
        if kind in (*_PNG_TEXT, b"eXIf", b"caBX"):
            data = stream.read(min(length, MAX_BLOCK))
            stream.seek(length - len(data), io.SEEK_CUR)
            yield _chunk(kind, data)
        else:
            stream.seek(length, io.SEEK_CUR)
        stream.seek(4, io.SEEK_CUR)


def _chunk(kind: bytes, data: bytes) -> Block:
    if kind == b"eXIf":
        return Block("exif", data, "EXIF")
    if kind == b"caBX":
        return Block("c2pa", data, "PNG chunk caBX")
    keyword, _, rest = data.partition(b"\0")
    name = keyword[:79].decode("latin-1")
    try:
        text = _text(kind, rest)
    except (zlib.error, ValueError) as error:
        return Block("broken", str(error).encode(), f"PNG text {name}")
    return Block("xmp" if name == "XML:com.adobe.xmp" else "text", text, name)


def _text(kind: bytes, rest: bytes) -> bytes:
    """Return the text of a chunk, behind its keyword, as UTF-8."""
    if kind == b"tEXt":
        return rest[:MAX_TEXT].decode("latin-1").encode()
    if kind == b"zTXt":
        return _inflated(rest[1:]).decode("latin-1").encode()
    flags, rest = rest[:2], rest[2:]
    parts = rest.split(b"\0", 2)  # language, translated keyword, text
    if len(flags) < 2 or len(parts) < 3:
        raise ValueError("an iTXt chunk that ends early")
    return _inflated(parts[2]) if flags[0] else parts[2][:MAX_TEXT]


def _inflated(data: bytes) -> bytes:
    """Decompress at most `MAX_TEXT` bytes, whatever more there would be."""
    return zlib.decompressobj().decompress(data, MAX_TEXT)


def _of_webp(stream: IO[bytes]) -> Iterator[Block]:
    stream.seek(12)
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[4:], "little"), _WEBP.get(head[:4])
        if kind is None:
            stream.seek(length + length % 2, io.SEEK_CUR)
            continue
        data = stream.read(min(length, MAX_BLOCK))
        stream.seek(length + length % 2 - len(data), io.SEEK_CUR)
        name = "WebP chunk C2PA" if kind == "c2pa" else kind.upper()
        yield Block(kind, data.removeprefix(_EXIF) if kind == "exif" else data, name)


def _of_gif(stream: IO[bytes]) -> Iterator[Block]:
    """Look for applications' extensions alone, at the beginning, where writers put them."""
    data = stream.read(MAX_TEXT)
    if b"\x21\xff\x0bC2PA_GIF" in data:
        yield Block("c2pa", data, "GIF extension C2PA_GIF")
    start = data.find(b"\x21\xff\x0bXMP DataXMP")
    if start >= 0:
        yield Block("xmp", data[start + 14 :], "XMP")


def _of_boxes(stream: IO[bytes], is_jxl: bool) -> Iterator[Block]:
    """Yield what boxes of a JPEG XL or of HEIF and AVIF hold; items of the latter by Pillow."""
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        length, kind, passed = int.from_bytes(head[:4]), head[4:], 8
        if length == 1:  # it follows, in 64 bits
            length, passed = int.from_bytes(stream.read(8)), 16
        if len(head) < 8 or (length and length < passed):
            break
        is_store = kind == b"uuid" and stream.read(16) == _BMFF_C2PA
        stream.seek(-16 if kind == b"uuid" else 0, io.SEEK_CUR)
        wanted = is_store or (is_jxl and kind in (b"jumb", b"Exif", b"xml "))
        whole = length - passed if length else MAX_BLOCK
        data = stream.read(min(whole, MAX_BLOCK)) if wanted else b""
        if is_store or (kind == b"jumb" and _STORE in data):
            yield Block("c2pa", data, f"box {kind.decode('latin-1')}")
        elif data:
            yield Block("exif", data[4:], "EXIF") if kind == b"Exif" else Block("xmp", data, "XMP")
        if not length:  # to the end of the file
            break
        stream.seek(min(whole - len(data), 2**40), io.SEEK_CUR)
    if not is_jxl:
        yield from _of_items(stream)


def _of_items(stream: IO[bytes]) -> Iterator[Block]:
    """Yield EXIF and XMP of HEIF and AVIF, whose places are items of a box: Pillow finds them."""
    stream.seek(0)
    data = stream.read(MAX_ITEMS + 1)
    if len(data) > MAX_ITEMS:
        reason = f"a file of more than {MAX_ITEMS:,} bytes"
        yield Block("broken", reason.encode(), "EXIF and XMP")
        return
    try:
        with open_image(data) as (_, opened):
            found = {kind: opened.info.get(kind) for kind in ("exif", "xmp")}
    except UnidentifiedImageError:
        yield Block("broken", b"damaged, or HEIC without the extra heif", "EXIF and XMP")
        return
    for kind, content in found.items():
        if isinstance(content, bytes):
            yield Block(kind, content.removeprefix(_EXIF)[:MAX_BLOCK], kind.upper())
