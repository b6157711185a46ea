"""How a file stores its samples: their depth, and the kinds that would be read wrongly."""

from typing import IO, cast

import numpy as np
from PIL import Image

_REMEDY = "Save the image as RGB or grey with 8 or 16 unsigned bits."
#: TIFF tags, and values of them: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_KIND, _REDUCED_OR_MASK, _COLOURS = 254, 1 | 4, 320
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
#: Pixels of a tile of a TIFF, at most.
LARGEST_TILE = 2**26
_WHITE_IS_ZERO, _LAB, _SEPARATE, _UNDEFINED = 0, (8, 9, 10), 2, 4
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types of PNG
#: The first bytes of a JPEG 2000 codestream, and where its components are described.
_CODESTREAM, _COMPONENTS = b"\xff\x4f\xff\x51", 42
#: What 14 bits reach in 16, of 255.
_FEW_LEVELS = 64


def bits_per_sample(opened: Image.Image, stream: IO[bytes] | None) -> int:
    """Return the bits of a sample of an opened file, or of its mode; refuse what Pillow gets wrong.

    A ValueError says which: signed, floating, of an odd depth, of 16 bits in separate planes or
    with white as zero, in Lab, in huge tiles, behind a thumbnail; JPEG 2000 of less than 8 bits, or
    in colour of more.
    """
    if opened.mode == "LAB":
        raise ValueError(f"Lab colours depend on a white point. {_REMEDY}")
    if opened.format == "TIFF":
        return _of_tiff(dict(getattr(opened, "tag_v2", {})))
    if opened.format == "JPEG2000" and stream is not None:
        return _of_jpeg2000(_content(stream), opened.mode)
    if opened.format == "PNG" and stream is not None:
        return _of_png(_content(stream, 26), opened)
    return 16 if opened.mode.startswith("I") else 8


def check_range(opened: Image.Image, pixels: np.ndarray, bits: int) -> None:
    """Refuse pixels that came of more than 8 bits and have few levels left, or their opacity.

    Values of 10, 12 or 14 bits in 16 look like those of a dark image, or of a transparent one.
    """
    if bits <= 8:
        return
    most = int(pixels.max())
    if opened.mode in ("LA", "RGBA"):
        opacity = cast("tuple[tuple[int, int], ...]", opened.getextrema())[-1]
        most = min(most, opacity[1])
    if most <= _FEW_LEVELS:
        raise ValueError(
            f"{bits}-bit samples, none above {most} once divided to 0-255: values of 10, 12 or 14 "
            "bits in 16, or a nearly black image. Scale them to the whole range."
        )


def _of_tiff(tags: dict[int, object]) -> int:
    bits = max(_numbers(tags.get(_BITS, 1)))
    formats = set(_numbers(tags.get(_SAMPLE_FORMAT, 1))) - {1, _UNDEFINED}
    photometric = tags.get(_PHOTOMETRIC)
    tile = _numbers(tags.get(_TILE_WIDTH, 0))[0] * _numbers(tags.get(_TILE_HEIGHT, 0))[0]
    reason = None
    if _numbers(tags.get(_KIND, 0))[0] & _REDUCED_OR_MASK:
        reason = "a reduced copy or a mask in front of the image"
    elif 0 < max(_numbers(tags.get(_COLOURS, 0))) < 256:
        reason = "a palette of 8 bits, where its numbers have 16"
    elif formats:
        reason = "signed, floating-point or complex samples, which have no fixed range"
    elif bits not in (1, 2, 4, 8, 16):
        reason = f"samples of {bits} bits"
    elif photometric in _LAB:
        reason = "Lab colours, which depend on a white point"
    elif bits == 16 and tags.get(_PLANES) == _SEPARATE:
        reason = "samples of 16 bits in separate planes"
    elif tile > LARGEST_TILE:
        reason = f"tiles of {tile:,} pixels, each of which is decoded whole"
    elif bits == 16 and photometric == _WHITE_IS_ZERO:
        reason = "samples of 16 bits with white as zero"
    if reason is not None:
        raise ValueError(f"a TIFF with {reason}. {_REMEDY}")
    return bits


def _of_png(head: bytes, opened: Image.Image) -> int:
    bits, colour = head[24], head[25]
    if bits not in (1, 8) and colour in (_GREY, _RGB) and "transparency" in opened.info:
        raise ValueError(f"a PNG with a transparent colour of {bits} bits. {_REMEDY}")
    if colour == _PALETTE and opened.palette is None:
        raise ValueError("a PNG with a palette that is not there. It is damaged; get it again.")
    return bits


def _of_jpeg2000(content: bytes, mode: str) -> int:
    start = content.find(_CODESTREAM)
    components = content[start + _COMPONENTS :]
    n = int.from_bytes(content[start + _COMPONENTS - 2 : start + _COMPONENTS])
    depths = components[: 3 * n : 3]
    bits = max((depth & 127) + 1 for depth in depths) if depths else 8
    if any(depth & 128 for depth in depths) or (bits > 8 and mode[0] != "I") or bits < 8:
        raise ValueError(f"a JPEG 2000 with {n} signed or {bits}-bit components. {_REMEDY}")
    return bits


def _numbers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    if not values or not all(isinstance(each, int) for each in values):
        raise ValueError(f"a TIFF whose tags are no numbers ({value!r:.40}). It is damaged.")
    return values


def _content(stream: IO[bytes], n_bytes: int = -1) -> bytes:
    place = stream.tell()
    stream.seek(0)
    content = stream.read(n_bytes)
    stream.seek(place)
    return content
