"""Which files of a folder are images, and why the others are not."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cnnsvm.data.decoding import FORMATS

#: What an extra reads -> names of such files.
_OF_EXTRAS = {"HEIF": (".heic", ".heif"), "JXL": (".jxl",)}
#: Files of these names are taken for images, whatever is in them.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".png", ".webp", ".tif", ".tiff", ".bmp")
).union((".gif", ".avif", ".ppm", ".pgm"), *(_OF_EXTRAS.get(name, ()) for name in FORMATS))
#: Files of other names, raw ones apart, are images if they begin so: (place, bytes).
_SIGNATURES = (
    *((0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (0, b"GIF8"), (8, b"WEBP")),
    *((4, b"ftypavif"), (0, b"II*\0"), (0, b"MM\0*"), (4, b"jP  \r\n")),
)
_RAW = frozenset((".dng", ".nef", ".cr2", ".arw", ".orf", ".rw2", ".pef", ".srw", ".raf"))
_UNREAD = frozenset((".heic", ".heif", ".jxl", ".tga", ".psd", ".svg", ".ico", ".exr", ".hdr"))


class Scan(NamedTuple):
    """The images of a folder, and the other files with the reason why each is none."""

    images: list[Path]
    skipped: list[tuple[Path, str]]


def scan_images(folder: str | os.PathLike[str]) -> Scan:
    """Tell the images below a folder from other files, both sorted.

    Images are known by their names, or else by how they begin. Links to folders are followed, each
    folder once. Hidden files and folders are left out and not listed.
    """
    found = Scan([], [])
    for path, reason in sorted((Path(file), reason) for file, reason in each_file(folder)):
        if reason is None:
            found.images.append(path)
        else:
            found.skipped.append((path, reason))
    return found


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the images below a folder, sorted (see `scan_images`)."""
    return scan_images(folder).images


def each_file(folder: str | os.PathLike[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the files that `scan_images` tells apart, in no order, and why each is no image, if so.

    As text: to make so many paths takes longer than to list them.
    """
    for place, names in _walk(Path(folder)):
        for name in names:
            if not _is_hidden(name):
                path = os.path.join(place, name)
                yield path, why_no_image(path)


def why_no_image(path: str | os.PathLike[str]) -> str | None:
    """Say why a file is not taken for an image, None if it is."""
    try:
        kind = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            return "a link to what is not there"
        return f"gone since it was listed, or out of reach ({error.strerror})"
    if not stat.S_ISREG(kind):
        return "a pipe, socket or device"
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return None
    if suffix in _RAW:
        return "a raw file, which has to be developed first"
    if suffix not in _UNREAD and _begins_as_image(path):
        return None
    return f"not a format that is read here ({suffix})" if suffix in _UNREAD else "not an image"


def _begins_as_image(path: str | os.PathLike[str]) -> bool:
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
    except OSError:
        return True  # whoever opens it is told why it cannot be read
    return begins_as_image(head)


def begins_as_image(head: bytes) -> bool:
    """Tell whether a file's first 16 bytes are those of a format that is read here."""
    return any(head[place : place + len(sign)] == sign for place, sign in _SIGNATURES)


def folder_names(root: str | os.PathLike[str]) -> list[str]:
    """List the names of the folders below a folder, each once, sorted (see `scan_images`)."""
    return sorted({Path(folder).name for folder, _ in list(_walk(Path(root)))[1:]})


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield folders, each once, with the names of the files in them."""
    seen = set()
    for folder, below, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        below[:] = sorted(name for name in below if not _is_hidden(name))
        yield folder, names


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
