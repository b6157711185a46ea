"""How files become pixels: opened within limits, decoded strictly, and never held twice."""

import importlib.util
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from cnnsvm.data.damage import check_whole, check_zeros_of_jpeg, is_filling
from cnnsvm.data.jpeg_xl import jpeg_xl_size

#: Most pixels of an image, longest side, bytes of a file, and chunks of a PNG or steps through
#: the head of a JPEG.
MAX_PIXELS, MAX_SIDE, MAX_BYTES, MAX_CHUNKS = 200_000_000, 100_000, 2**31, 250_000
#: The environment variable that sets another cap of pixels, for processes begun here too.
CAP_VARIABLE = "CNNSVM_MAX_PIXELS"
#: Most bytes of what is read whole, of a GIF, and of pixels that are written as text.
MAX_WHOLE, MAX_GIF, MAX_TEXT = 2**29, 2**26, 2**24
#: Most scans of a JPEG, and pixels of all scans if they are more than is usual.
MAX_SCANS, USUAL_SCANS, MAX_SCANNED = 100, 12, 2_000_000_000
#: What Pillow may try. Formats that run an interpreter (EPS, PDF) are left out on purpose.
_WANTED = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF", "JXL")
Image.init()  # registers the decoders that this Pillow was built with
if importlib.util.find_spec("pillow_heif"):  # an extra
    import pillow_heif

    pillow_heif.register_heif_opener()
if importlib.util.find_spec("pillow_jxl"):  # another, which registers itself
    import pillow_jxl  # noqa: F401
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)
#: Formats that need an extra which is not installed -> its name.
MISSING = {name: name.lower() for name in ("HEIF", "JXL") if name not in FORMATS}
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")
_STRIP = 2**22  # pixels that are converted at once
#: Of a JPEG: it begins, and a scan does.
_SOI, _SOS = b"\xff\xd8", b"\xff\xda"
#: Markers of a JPEG without a segment, and of segments that say nothing of pixels or orientation.
_ALONE = (0, 1, 0xFF, *range(0xD0, 0xD9))
_MENTIONS = (*range(0xE2, 0xEE), 0xEF, 0xFE)
_PNG = b"\x89PNG\r\n\x1a\n"
#: How formats begin that are decoded from the file as it is read.
_STREAMED = (b"II*\0", b"MM\0*", b"II+\0", b"BM")
#: A Netpbm file: its kind, and two numbers or three, with space and comments before each.
_HEAD = 4096
_NETPBM = re.compile(rb"P[1-6](?:(?:\s|#[^\n\r]*[\n\r])+\d+){2}")
#: Chunks of a PNG that say nothing of its pixels.
_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"iCCP", b"tIME", b"pHYs")
#: Chunks or segments that are gone through to leave out metadata.
_MOST_LEFT_OUT = 10 * MAX_CHUNKS
_MARKER = re.compile(rb"\xff[^\0\xff]")
_settings = threading.RLock()


class LimitError(ValueError):
    """A file that asks for more than is given to one."""


@contextmanager
def open_image(
    image: Any, max_pixels: int | None = None
) -> Iterator[tuple[IO[bytes] | None, Image.Image]]:
    """Open a regular file or its content with Pillow; an image in memory has no stream."""
    if isinstance(image, Image.Image):
        yield None, image
        return
    if not isinstance(image, (str, bytes, os.PathLike)):
        raise TypeError(
            "an image is a path, bytes, a PIL image or a uint8 array, "
            f"got {type(image).__name__} {image!r:.80}"
        )
    with open_stream(image) as stream:
        if (size := jpeg_xl_size(stream)) is not None:
            check_size(size, max_pixels)
        _check_head(stream)
        with strictly(always=True):  # Pillow's own cap of pixels is lower
            opened = Image.open(stream, formats=FORMATS)
        with opened:
            yield stream, opened


def open_stream(image: str | os.PathLike[str] | bytes) -> IO[bytes]:
    """Open a regular file, or its content, of an allowed length."""
    check_length(len(image) if isinstance(image, bytes) else file_length(image))
    return io.BytesIO(image) if isinstance(image, bytes) else open(image, "rb")


def unread_stream(opened: Image.Image) -> IO[bytes] | None:
    """Return the stream of an image that Pillow has opened and has still to decode as it is."""
    waits = bool(getattr(opened, "tile", None)) and opened.tell() == 0
    reduced = bool(getattr(opened, "decoderconfig", None))  # by Image.draft
    return None if reduced or not waits else getattr(opened, "fp", None)


def file_length(path: str | os.PathLike[str]) -> int:
    """Return the length of a file in bytes; refuse what is none, which might block for ever."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(os.fspath(path))
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("a pipe, socket or device, no regular file. Copy its content to a file.")
    return found.st_size


def check_length(n_bytes: int) -> None:
    """Refuse files that are empty or huge, before they are read."""
    if not 0 < n_bytes <= MAX_BYTES:
        kind = LimitError if n_bytes else ValueError
        raise kind(f"a file of {n_bytes:,} bytes; an image has 1 to {MAX_BYTES:,}.")


def _check_head(stream: IO[bytes]) -> None:
    """Refuse what would be read whole, or byte by byte, before Pillow does."""
    start = stream.tell()
    head = stream.read(_HEAD)
    length = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    if head.startswith(_SOI):
        _check_segments(stream)
        stream.seek(start)
    if head.startswith(_PNG):
        chunks_behind_pixels(stream)
    elif re.match(rb"P[1-6]\s", head):
        if not _NETPBM.match(head):
            raise ValueError(f"a Netpbm file without its size in the first {_HEAD:,} bytes.")
        if head[1] in b"123" and length > MAX_TEXT:
            raise LimitError(
                f"pixels as text of {length:,} bytes, more than {MAX_TEXT:,}. Save it as binary."
            )
    elif length > MAX_GIF and head.startswith(b"GIF8"):  # read block by block
        raise LimitError(
            f"a GIF of {length:,} bytes, more than {MAX_GIF:,}. Save its first frame as PNG."
        )
    elif length > MAX_WHOLE and not head.startswith(_STREAMED):
        raise LimitError(
            f"a file of {length:,} bytes, more than {MAX_WHOLE:,}: its format is read whole. Save "
            "the image as PNG or TIFF."
        )


def _check_segments(stream: IO[bytes]) -> None:
    """Refuse a JPEG whose pixels lie far behind: Pillow looks for them byte by byte."""
    stream.seek(len(_SOI), io.SEEK_CUR)
    for _ in range(MAX_CHUNKS):
        if (byte := stream.read(1)) != b"\xff":
            if not byte:
                return
            continue
        kind = stream.read(1)
        if not kind or kind == _SOS[1:]:
            return
        if kind == b"\xff":
            stream.seek(-1, io.SEEK_CUR)
        elif kind[0] not in _ALONE:
            stream.seek(max(0, int.from_bytes(stream.read(2)) - 2), io.SEEK_CUR)
    raise LimitError(
        f"a JPEG of over {MAX_CHUNKS:,} segments, or bytes between them. Save it again if you "
        "trust it."
    )


def chunks_behind_pixels(stream: IO[bytes]) -> set[bytes]:
    """Return the kinds of a PNG's chunks behind its first of pixels; the stream stays in place.

    A ValueError is raised if there are so many, or one so large, that Pillow would take long.
    """
    start, n_chunks, seen = stream.tell(), 0, False
    kinds = set()
    stream.seek(start + len(_PNG))
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND" and n_chunks <= MAX_CHUNKS:
        n_chunks, length = n_chunks + 1, int.from_bytes(head[:4])
        seen = seen or head[4:] == b"IDAT"
        if seen:
            kinds.add(head[4:])
        if length > MAX_WHOLE and head[4:] != b"IDAT":
            n_chunks = MAX_CHUNKS + 1
        stream.seek(length + 4, io.SEEK_CUR)
    stream.seek(start)
    if n_chunks > MAX_CHUNKS:
        raise LimitError(
            f"a PNG of over {MAX_CHUNKS:,} chunks, or one of over {MAX_WHOLE:,} bytes. Save it "
            "again if you trust it."
        )
    return kinds


def usual_max_pixels() -> int:
    """Return the most pixels of an image where no other number is asked for."""
    given = os.environ.get(CAP_VARIABLE, str(MAX_PIXELS))
    if not re.fullmatch(r"\d{1,12}", given) or not int(given):
        raise ValueError(
            f"the most pixels of an image are a whole number from 1 to 10^12 - 1, got {given!r}. "
            f"Change --max-pixels or the environment variable {CAP_VARIABLE}."
        )
    return int(given)


@contextmanager
def usually(max_pixels: int) -> Iterator[None]:
    """Let images have so many pixels, here and in processes that are begun meanwhile."""
    before = os.environ.get(CAP_VARIABLE)
    os.environ[CAP_VARIABLE] = str(max_pixels)
    try:
        usual_max_pixels()  # says what is wrong with it
        yield
    finally:
        del os.environ[CAP_VARIABLE]
        if before is not None:
            os.environ[CAP_VARIABLE] = before


def check_size(size: tuple[int, int], max_pixels: int | None = None) -> None:
    """Refuse sizes that memory could not hold, before anything is decoded."""
    width, height = size
    if max_pixels is None:
        max_pixels = usual_max_pixels()
    if width < 1 or height < 1:
        raise ValueError(f"an image needs at least one pixel, got {width}x{height}.")
    if width * height > max_pixels:
        raise LimitError(
            f"{width}x{height} is {width * height:,} pixels, more than the cap of {max_pixels:,}. "
            f"Raise max_pixels (--max-pixels, or {CAP_VARIABLE} in the environment) if you trust "
            "the file and there is memory for it."
        )
    if max(size) > MAX_SIDE:
        raise LimitError(
            f"{width}x{height} has a side of more than {MAX_SIDE:,} pixels. Cut it into parts."
        )


@contextmanager
def strictly(*, always: bool = False) -> Iterator[None]:
    """Set aside what other code may have set for Pillow in this process.

    That is its cap of pixels, which is lower than ours, and the filling of missing pixels with
    grey; without ``always``, only if the latter is on.
    """
    if not (always or ImageFile.LOAD_TRUNCATED_IMAGES):
        yield
        return
    with _settings:
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def to_rgb(opened: Image.Image, stream: IO[bytes] | None) -> np.ndarray:
    """Decode the pixels as stored: uint8 (H, W, 3), a new array."""
    if stream is not None and opened.format in ("JPEG", "MPO"):
        pixels = _decode_jpeg(stream, opened.size)
        if pixels is not None:
            return pixels
    if stream is not None:
        check_whole(stream, opened)
    with strictly(always=opened.format == "TIFF"):  # of which strips are held against Pillow's cap
        opened.load()
    width, height = opened.size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    n_rows = max(1, _STRIP // width)
    for top in range(0, height, n_rows):
        bottom = min(height, top + n_rows)
        pixels[top:bottom] = _strip_to_rgb(opened.crop((0, top, width, bottom)))
    return pixels


def on_white(rgba: Image.Image) -> np.ndarray:
    """Composite an image with alpha on white, uint8 (H, W, 3)."""
    white = Image.new("RGBA", rgba.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def without_metadata(image: Any) -> bytes | None:
    """Return a PNG or JPEG without what says nothing of its pixels; None: neither, or none."""
    if isinstance(image, (str, os.PathLike)):
        try:
            if file_length(image) > MAX_WHOLE:
                return None
            with open(image, "rb") as stream:
                head = stream.read(len(_PNG))
                image = head + stream.read() if head.startswith((_PNG, _SOI)) else head
        except (OSError, ValueError):
            return None
    if not isinstance(image, bytes) or not image.startswith((_PNG, _SOI)):
        return None
    chunks = _chunks_of_png(image) if image.startswith(_PNG) else _segments_of_jpeg(image)
    try:
        bare = b"".join(chunks)
    except LimitError:
        return None
    return bare if len(bare) < len(image) else None


def _chunks_of_png(image: bytes) -> Iterator[bytes]:
    yield _PNG
    place = len(_PNG)
    for _ in range(_MOST_LEFT_OUT):
        if place + 8 > len(image):
            return
        end = place + 12 + int.from_bytes(image[place : place + 4])
        if image[place + 4 : place + 8] not in _METADATA:
            yield image[place:end]
        place = end
    raise LimitError


def _segments_of_jpeg(image: bytes) -> Iterator[bytes]:
    """Yield what is needed of a JPEG's head, without bytes between segments, and all the rest."""
    yield _SOI
    place = len(_SOI)
    for _ in range(_MOST_LEFT_OUT):
        if (marker := _MARKER.search(image, place)) is None:
            return
        place = marker.end() - 1
        kind = image[place]
        if kind in _ALONE:
            continue
        if kind == _SOS[1]:
            yield image[place - 1 :]
            return
        end = place + 1 + int.from_bytes(image[place + 1 : place + 3])
        if kind not in _MENTIONS:
            yield image[place - 1 : end]
        place = end
    raise LimitError


def _decode_jpeg(stream: IO[bytes], size: tuple[int, int]) -> np.ndarray | None:
    """Decode a JPEG strictly, None if its colours are not those of the usual ones.

    Pillow fills what is damaged or missing with grey and says nothing.
    """
    stream.seek(0)
    data = stream.read()
    n_scans = data.count(_SOS)
    scanned = n_scans * size[0] * size[1]
    if n_scans > MAX_SCANS or (n_scans > USUAL_SCANS and scanned > MAX_SCANNED):
        raise LimitError(
            f"a JPEG of {n_scans} scans of {size[0]}x{size[1]} pixels; at most {MAX_SCANS} are "
            f"decoded, of {MAX_SCANNED:,} pixels in all. Save it again if you trust it."
        )
    check_zeros_of_jpeg(data)
    try:
        colours = simplejpeg.decode_jpeg_header(data, strict=False)[2]
        if colours not in ("YCbCr", "RGB", "Gray"):
            simplejpeg.decode_jpeg(data, "CMYK")  # says whether it is whole
            return None
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if is_filling(data, str(error)):
            return simplejpeg.decode_jpeg(data, "RGB", strict=False)
        raise ValueError(f"{error}. The file is damaged or incomplete; get it again.") from error


def _strip_to_rgb(strip: Image.Image) -> np.ndarray:
    if strip.mode in _SIXTEEN_BIT:
        return np.repeat(_scale_sixteen_bits(np.asarray(strip))[:, :, None], 3, axis=2)
    if strip.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; convert them to 8 bits first.")
    if "transparency" in strip.info or strip.mode in _TRANSPARENT:
        return on_white(strip.convert("RGBA"))
    return np.asarray(strip.convert("RGB"))


def _scale_sixteen_bits(grey: np.ndarray) -> np.ndarray:
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"grey values {grey.min()}..{grey.max()} are not 16-bit (0-65535); convert them first."
        )
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
