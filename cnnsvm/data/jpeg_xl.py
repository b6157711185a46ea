"""The size of a JPEG XL from its first bits: its decoder for Pillow decodes before it tells."""

import struct
from typing import IO

_CODESTREAM, _CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
#: Width by height, for each value of three bits (0: the width is written itself).
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def jpeg_xl_size(stream: IO[bytes]) -> tuple[int, int] | None:
    """Return width and height in pixels; None for other formats. The stream stays where it is.

    A ValueError is raised if there is no codestream. Source: ISO/IEC 18181-1 (SizeHeader) and
    18181-2 (boxes).
    """
    start = stream.tell()
    try:
        head = stream.read(len(_CONTAINER))
        if head == _CONTAINER:
            _seek_codestream(stream)
        elif head.startswith(_CODESTREAM):
            stream.seek(start)
        else:
            return None
        return _read_size(stream.read(16))
    finally:
        stream.seek(start)


def _seek_codestream(stream: IO[bytes]) -> None:
    while len(header := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        passed = 8
        if length == 1:  # it follows, in 64 bits
            length, passed = int.from_bytes(stream.read(8)), 16
        if kind in (b"jxlc", b"jxlp"):
            stream.seek(4 if kind == b"jxlp" else 0, 1)
            return
        if length < passed:
            break
        stream.seek(length - passed, 1)
    raise ValueError("a JPEG XL without a codestream. The file is damaged; get it again.")


def _read_size(head: bytes) -> tuple[int, int]:
    if not head.startswith(_CODESTREAM):
        raise ValueError("a JPEG XL whose codestream does not begin as one.")
    bits = int.from_bytes(head[2:], "little")

    def take(n: int) -> int:
        nonlocal bits
        value, bits = bits & (2**n - 1), bits >> n
        return value

    def side() -> int:
        return (take(5) + 1) * 8 if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    is_small = take(1)
    height = side()
    ratio = _RATIOS.get(take(3))
    return (side() if ratio is None else height * ratio[0] // ratio[1]), height
