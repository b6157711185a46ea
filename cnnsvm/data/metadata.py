"""What the metadata of a file say of its making: evidence apart from the pixels.

Metadata can be removed and forged: none say nothing, and those that are there are a claim. They are
never part of a verdict or of a probability.
"""

import html
import io
import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO

from PIL import Image

from cnnsvm.data.decoding import check_length, file_length
from cnnsvm.data.metadata_blocks import Block, find_blocks, media_type
from cnnsvm.data.metadata_c2pa import read_manifest
from cnnsvm.data.metadata_exif import exif_entries, exif_text
from cnnsvm.data.metadata_names import (
    CAMERA,
    GENERATED,
    PNG_KEYWORDS,
    UNKNOWN,
    digital_sources,
    of_source,
    of_tool,
    settings_in,
)

#: Most characters of a value, and findings of a file.
MAX_VALUE, MAX_FINDINGS = 200, 100
#: Fields that name what made an image, and nothing else.
_TOOL_FIELDS = ("Software", "ProcessingSoftware", "Source", "CreatorTool", "softwareAgent")
_BY_A_TOOL = ("Created with ", "File written by ")  # comments of GIMP and Photoshop
_CAMERA_FIELDS = ("Make", "Model")
#: Properties of XMP, by their local names, that are looked at, in any of the forms of RDF.
_XMP = re.compile(
    r"(?<=:)(CreatorTool|softwareAgent|DigitalSourceType|digitalSourceType|Credit|UserComment|AIGC"
    r"|AISystemUsed|AIPromptInformation)"
    r"(?:\s{0,9}=\s{0,9}[\"']([^\"'<>]{0,4000})|\s{1,9}rdf:resource=[\"']([^\"'<>]{0,4000})"
    r"|>(?:\s{0,99}<rdf:[^<>]{0,99}>){0,3}\s{0,99}([^<>]{1,4000}))"
)
_XMP_SHOWN = 50
_AI_FIELDS = ("AISystemUsed", "AIPromptInformation")  # IPTC Photo Metadata Standard 2025.1
#: Datasets of record 2 of IPTC-IIM 4.2.
_IPTC = {40: "Instructions", 65: "OriginatingProgram", 110: "Credit", 115: "Source", 120: "Caption"}


@dataclass(frozen=True)
class Finding:
    """One thing that the metadata of a file say.

    Attributes
    ----------
    kind : {"c2pa", "exif", "xmp", "iptc", "png_text", "comment", "jpeg_tables", "unreadable"}
    name : str
        The field, such as "EXIF Software".
    value : str
        What it holds, at most `MAX_VALUE` characters; those that could not be read are escaped.
    says : {"generated", "edited", "camera", "unknown"}
        Whether it names a generator of the whole image or of a part, software that edits, or a
        camera or scanner; "unknown" is information alone.
    """

    kind: str
    name: str
    value: str
    says: str = UNKNOWN


def read_metadata(file: str | os.PathLike[str] | bytes) -> list[Finding]:
    """Read what the metadata of an image file, or of its content, say of its making.

    It never raises: what is broken is a finding of the kind "unreadable". At most some megabytes
    are read and `MAX_FINDINGS` returned, nothing is decoded or fetched, no XML entity is resolved.

    Returns
    -------
    list of Finding
        In the order of the file; none if it has no metadata that are known here.
    """
    found: list[Finding] = []
    try:
        with closing(_opened(file)) as stream:
            for finding in islice(_findings(stream), MAX_FINDINGS):
                found += [] if finding in found else [finding]  # some files hold a block twice
    except Exception as error:  # of whatever parser: what was found before stays
        found.append(_unreadable("metadata", error))
    return found


def _opened(file: str | os.PathLike[str] | bytes) -> IO[bytes]:
    if isinstance(file, bytes):
        return io.BytesIO(file)
    check_length(file_length(file))
    return Path(file).open("rb")


def _findings(stream: IO[bytes]) -> Iterator[Finding]:
    for block in find_blocks(stream):
        place = stream.tell()
        try:
            yield from _of_block(block, stream)
        except Exception as error:
            yield _unreadable(block.name, error)
        stream.seek(place)


def _of_block(block: Block, stream: IO[bytes]) -> Iterator[Finding]:
    """Say what a block says; ``stream`` is the whole file."""
    if block.kind == "exif":
        yield from _of_exif(io.BytesIO(block.data), stream)
    elif block.kind == "tiff":
        yield from _of_exif(stream, stream)
    elif block.kind == "xmp":
        yield from _of_xmp(block.data.decode("utf-8", "replace"))
    elif block.kind == "photoshop":
        yield from _of_photoshop(block.data)
    elif block.kind == "iptc":
        yield from _of_iptc(block.data)
    elif block.kind == "text":
        yield from _of_text(block.name, block.data.decode("utf-8", "replace"))
    elif block.kind == "comment":
        text = block.data.decode("utf-8", "replace")
        yield from _finding("comment", block.name, text, _of_field("Comment", text))
    elif block.kind == "tables":
        yield Finding("jpeg_tables", block.name, _describe_tables(block.data))
    elif block.kind == "c2pa":
        stream.seek(0)
        value, says = read_manifest(stream, media_type(stream.read(16)), block.data)
        yield from _finding("c2pa", f"C2PA manifest of {block.name}", value, says, shown=value)
    else:
        yield _unreadable(block.name, block.data.decode("latin-1"))


def _finding(
    kind: str, name: str, text: str, says: str, shown: str | None = None
) -> Iterator[Finding]:
    """Yield a finding of a text, if there is any; settings of a generator are looked for in it."""
    text = text.strip("\0 \t\r\n")
    if not text:
        return
    whose = settings_in(text) if shown is None else None
    if whose is not None:
        says, shown = GENERATED, f"{whose}: {text[: 4 * MAX_VALUE]}"
    yield Finding(kind, _bounded(name), _bounded(shown or text), says)


def _unreadable(name: str, error: Exception | str) -> Finding:
    reason = str(error) or type(error).__name__
    return Finding("unreadable", _bounded(name), _bounded(f"cannot be read ({reason[:100]})"))


def _bounded(text: str) -> str:
    """Put a text on one line of at most `MAX_VALUE` characters, all of which can be read."""
    line = " ".join(text[: 4 * MAX_VALUE].split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= MAX_VALUE and len(text) <= 4 * MAX_VALUE else f"{line[:197]}..."


def _of_text(keyword: str, text: str) -> Iterator[Finding]:
    name = f"PNG text {keyword!r}"
    if keyword == "Raw profile type exif":  # as ImageMagick writes it: in hexadecimal
        yield from _of_exif(io.BytesIO(bytes.fromhex("".join(text.split()[2:]))[6:]), io.BytesIO())
        return
    whose = PNG_KEYWORDS.get(keyword)
    if whose is not None:
        yield from _finding("png_text", name, text, GENERATED, f"{whose}: {text[: 4 * MAX_VALUE]}")
        return
    yield from _finding("png_text", name, text, _of_field(keyword, text))


def _of_field(name: str, text: str) -> str:
    """Say what a field says by its name."""
    if name in _TOOL_FIELDS:
        return of_tool(text)
    if name in _CAMERA_FIELDS:
        return GENERATED if of_tool(text) == GENERATED else CAMERA
    if name == "Comment" and text.startswith(_BY_A_TOOL):
        return of_tool(text)
    return GENERATED if name == "Credit" and of_tool(text) == GENERATED else UNKNOWN


def _of_exif(directory: IO[bytes], stream: IO[bytes]) -> Iterator[Finding]:
    for name, data in exif_entries(directory):
        if name in ("xmp", "iptc", "photoshop", "c2pa"):  # of a TIFF file
            yield from _of_block(Block(name, data, "TIFF entry"), stream)
            continue
        text = exif_text(name, data)
        yield from _finding("exif", f"EXIF {name}", text, _of_field(name, text))


def _of_xmp(text: str) -> Iterator[Finding]:
    seen = set()
    for match in islice(_XMP.finditer(text), _XMP_SHOWN):
        name, value = match[1], html.unescape(match[2] or match[3] or match[4] or "").strip()
        if value and (name, value) not in seen:
            seen.add((name, value))
            yield from _finding("xmp", f"XMP {name}", value, _of_property(name, value))


def _of_property(name: str, value: str) -> str:
    if name in _AI_FIELDS:
        return GENERATED
    if name.lower() == "digitalsourcetype":
        terms = digital_sources(value)
        return of_source(terms[0] if terms else value)
    return _of_field(name, value)


def _of_photoshop(data: bytes) -> Iterator[Finding]:
    """Look for IPTC among Photoshop's image resources (Adobe Photoshop File Formats)."""
    place = 0
    while data[place : place + 4] == b"8BIM":
        number = int.from_bytes(data[place + 4 : place + 6])
        name_length = (data[place + 6] + 2) & ~1 if place + 6 < len(data) else 2
        start = place + 6 + name_length + 4
        length = int.from_bytes(data[start - 4 : start])
        if number == 0x0404:
            yield from _of_iptc(data[start : start + length])
        place = start + length + length % 2


def _of_iptc(data: bytes) -> Iterator[Finding]:
    """Read the datasets of IPTC-IIM; those of more than 32,767 bytes end it."""
    place = 0
    while place + 5 <= len(data) and data[place] == 0x1C:
        record, dataset = data[place + 1], data[place + 2]
        length = int.from_bytes(data[place + 3 : place + 5])
        if length > 32767:
            return
        if record == 2 and dataset in _IPTC:
            name, text = (
                _IPTC[dataset],
                data[place + 5 : place + 5 + length].decode("utf-8", "replace"),
            )
            field = "Software" if name == "OriginatingProgram" else "Credit"
            yield from _finding("iptc", f"IPTC {name}", text, _of_field(field, text))
        place += 5 + length


def _describe_tables(data: bytes) -> str:
    """Say whether the quantisation tables of a JPEG are those of libjpeg."""
    quality = _standard_tables().get(data)
    if quality is None:
        return "custom tables, as of cameras, Photoshop and phones"
    return f"standard tables, quality {quality}"


@cache
def _standard_tables() -> dict[bytes, int]:
    """Quality of libjpeg -> its tables, of colour and of grey images, as they are written."""
    known = {}
    for quality in range(1, 101):
        for mode in ("RGB", "L"):
            stream = io.BytesIO()
            Image.new(mode, (8, 8)).save(stream, "JPEG", quality=quality)
            blocks = find_blocks(io.BytesIO(stream.getvalue()))
            known.update({block.data: quality for block in blocks if block.kind == "tables"})
    return known
