"""Damage that decoders do not see or do not tell: stretches of zeros, pixels that have changed."""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import IO

import simplejpeg
from PIL import Image

from cnnsvm.data.sample_formats import LARGEST_TILE

_READ = 2**20  # bytes that are read at once
_PNG = b"\x89PNG\r\n\x1a\n"
_SOF = (0xC0, 0xC1)  # of a JPEG whose scans are not refined
_DHT, _SOS, _SOI, _EOI = 0xC4, 0xDA, b"\xff\xd8", b"\xff\xd9"
_END_OF_BLOCK = 0
#: Bytes of zeros that hold at least one whole block of a JPEG: 63 coefficients of 3 bits, twice.
_JPEG_ZEROS = 50
#: Most bytes of zeros or ones at the end of the pixels of a JPEG that is filled up behind them.
_MOST_FILLING = 8
#: Most bytes of zeros that arithmetic coders write, and pixels of one colour that make one of them
#: in a WebP: 10,400 and more were seen (81 megapixels of blue, half a page of white).
_ZEROS, _FLAT = 1024, 5000
#: Most segments of a JPEG's head that are gone through, scans of one inside a TIFF, and bytes of a
#: pixel: what asks for more is not looked into, since it would take for ever.
_MOST_SEGMENTS, _MOST_SCANS, _MOST_BYTES = 250_000, 4, 8
#: TIFF tags: compression and its values, tables of JPEG, and where strips and tiles are.
_COMPRESSION, _JPEG, _DEFLATE, _TABLES = 259, 7, (8, 32946), 347
_PLACES = ((273, 279), (324, 325))
_REMEDY = "It is damaged or incomplete; get it again."


def check_whole(stream: IO[bytes], opened: Image.Image) -> None:
    """Refuse (ValueError) a file whose pixels were lost or changed, as far as it shows.

    The stream stays in place. What is looked at: the checksums of PNG, and of TIFF in deflate, what
    libjpeg says of TIFF in JPEG, and zeros where WebP, AVIF and HEIC, which have none, hold pixels.
    """
    place = stream.tell()
    if opened.format == "PNG":
        _check_png(stream)
    elif opened.format == "TIFF":
        _check_tiff(stream, dict(getattr(opened, "tag_v2", {})), opened.width * opened.height)
    elif opened.format == "WEBP":
        stream.seek(0)
        n_zeros = max(_ZEROS, opened.width * opened.height // _FLAT)
        if any(bytes(n_zeros) in chunk for chunk in _chunks_of_webp(stream.read())):
            raise ValueError(f"over {n_zeros:,} bytes of zeros where its pixels are. {_REMEDY}")
    elif opened.format in ("AVIF", "HEIF"):
        stream.seek(-min(_ZEROS, stream.seek(0, io.SEEK_END)), io.SEEK_END)
        if not any(stream.read()):
            raise ValueError(f"it ends with over {_ZEROS:,} bytes of zeros. {_REMEDY}")
    stream.seek(place)


def check_zeros_of_jpeg(data: bytes) -> None:
    """Refuse (ValueError) a stretch of zeros among the pixels of a baseline JPEG.

    Zeros are the first code of each Huffman table. If that of a table of coefficients does not end
    a block, so many of them are blocks that are full of the value -1: no image has those. Source:
    ITU-T T.81, annexes C and F.
    """
    if _has_full_blocks(data) and bytes(_JPEG_ZEROS) in data[data.find(b"\xff\xda") :]:
        raise ValueError(f"over {_JPEG_ZEROS} bytes of zeros among its pixels. {_REMEDY}")


def is_filling(data: bytes, warning: str) -> bool:
    """Tell whether libjpeg complains of filling before the end alone, as some cameras write it."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", warning)
    if found is None:
        return False
    end = data.rfind(_EOI)
    start = max(0, end - int(found[1]))
    if not set(data[start:end]) <= {0, 255}:
        return False
    # of an end that was zeroed, many such bytes were taken for pixels
    return len(data[max(0, start - _MOST_FILLING) : start].rstrip(b"\0\xff")) > 0


def _has_full_blocks(data: bytes) -> bool:
    """Tell whether a JPEG is baseline, and zeros in it are blocks that do not end."""
    place, is_baseline = 2, False
    first: set[int] = set()
    for _ in range(_MOST_SEGMENTS):
        if place + 4 > len(data) or data[place] != 0xFF:
            return False
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if kind == _SOS:
            return is_baseline and bool(first - {_END_OF_BLOCK})
        is_baseline = is_baseline or kind in _SOF
        if kind == _DHT:
            first |= set(_first_symbols(data[place + 4 : place + 2 + length]))
        place += 2 + length
    return False


def _first_symbols(tables: bytes) -> Iterator[int]:
    """Yield the symbol of each table of AC coefficients whose code is all zeros."""
    place = 0
    while place + 17 < len(tables):
        is_ac, n_symbols = tables[place] >> 4 == 1, sum(tables[place + 1 : place + 17])
        if is_ac and n_symbols:
            yield tables[place + 17]
        place += 17 + n_symbols


def _check_png(stream: IO[bytes]) -> None:
    """Check what Pillow does not. Source: W3C, Portable Network Graphics, 5.3 (CRC)."""
    stream.seek(len(_PNG))
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        left = int.from_bytes(head[:4])
        if head[4:] != b"IDAT":
            stream.seek(left + 4, io.SEEK_CUR)
            continue
        found = zlib.crc32(head[4:])
        while left and (part := stream.read(min(left, _READ))):
            found, left = zlib.crc32(part, found), left - len(part)
        if stream.read(4) != found.to_bytes(4):
            raise ValueError(f"the checksum of its pixels is wrong. {_REMEDY}")


def _check_tiff(stream: IO[bytes], tags: dict[int, object], n_pixels: int) -> None:
    """Check what libtiff leaves when it has as many bytes as it needs, or does not tell.

    Strips may lie: no more bytes are read than the file has, and no more pixels decoded than this
    image and a largest tile have.
    """
    compression = tags.get(_COMPRESSION)
    if compression != _JPEG and compression not in _DEFLATE:
        return
    found = tags.get(_TABLES, b"")
    tables = found if isinstance(found, bytes) else b""
    unread, left = stream.seek(0, io.SEEK_END), n_pixels + LARGEST_TILE
    for places, lengths in _PLACES:
        for offset, length in zip(_numbers(tags, places), _numbers(tags, lengths), strict=False):
            unread -= length
            if unread < 0 or left <= 0:
                return
            stream.seek(offset)
            data = stream.read(length)
            is_jpeg = compression == _JPEG
            left -= _check_strip(tables, data, left) if is_jpeg else _inflate(data, left)


def _check_strip(tables: bytes, strip: bytes, most: int) -> int:
    """Check a JPEG whose tables stand elsewhere, and return its pixels, of which it may have most.

    Source: TIFF Technical Note 2.
    """
    data = tables.removesuffix(_EOI) + strip.removeprefix(_SOI) if tables else strip
    check_zeros_of_jpeg(data)
    try:
        height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
        if height * width <= most and data.count(b"\xff\xda") <= _MOST_SCANS:
            simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if re.search("corrupt|premature", str(error), re.IGNORECASE):  # or other colours
            raise ValueError(f"{error}. {_REMEDY}") from error
        return 0
    return height * width


def _inflate(data: bytes, most: int) -> int:
    """Inflate a strip and forget it; return its pixels, at least, of which it may have most."""
    inflater, n_bytes = zlib.decompressobj(), 0
    try:
        while data and n_bytes < most * _MOST_BYTES:
            n_bytes += len(inflater.decompress(data, _READ))
            data = inflater.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"its pixels cannot be inflated ({error}). {_REMEDY}") from error
    return n_bytes // _MOST_BYTES


def _numbers(tags: dict[int, object], name: int) -> tuple[int, ...]:
    value = tags.get(name, ())
    values = value if isinstance(value, tuple) else (value,)
    return tuple(each for each in values if isinstance(each, int))


def _chunks_of_webp(data: bytes) -> Iterator[bytes]:
    """Yield the chunks of a WebP that hold pixels. Source: RFC 9649, 2.3 to 2.7."""
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[place : place + 8])
        if kind in (b"VP8 ", b"VP8L", b"ALPH"):
            yield data[place + 8 : place + 8 + length]
        elif kind == b"ANMF":  # a frame, of which the first is looked at, has chunks of its own
            length = 16
        place += 8 + length + length % 2
