"""How the images of a request are received: counted as they come, and in memory alone."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import NamedTuple

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cnnsvm.web.limits import Limits, Refusal

#: Names of the parts that hold images, and of others.
FILES, WISHES = "files", ("heatmap",)
_MAX_FIELDS, _MAX_FIELD = 4, 256  # of others: their number, and bytes of each
_MAX_NAME = 255


class Upload(NamedTuple):
    """A file as it was sent."""

    name: str
    data: bytes


class _InMemory(MultiPartParser):
    """Starlette's parser, of which nothing reaches a disk: what is too large was refused before."""

    spool_max_size = sys.maxsize


async def read_uploads(request: Request, limits: Limits) -> tuple[list[Upload], dict[str, str]]:
    """Receive the images of a request, and its other fields.

    A `Refusal` says that it is no form (415), is damaged (400), holds too much (413) or takes too
    long (408).
    """
    if parse_options_header(request.headers.get("content-type"))[0] != b"multipart/form-data":
        raise Refusal(
            415, f"a request is multipart/form-data, with images as its parts named {FILES!r}."
        )
    stream = _counted(request, limits.max_bytes)
    # one more than allowed is read, so that a wrong number is told from a damaged form
    parser = _InMemory(
        request.headers,
        stream,
        max_files=limits.max_files + 1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD,
    )
    try:
        async with asyncio.timeout(limits.timeout):
            form = await parser.parse()
    except TimeoutError:
        raise Refusal(408, f"the upload took more than {limits.timeout:g} s.") from None
    except MultiPartException as error:
        raise _unread(error.message, limits) from None
    uploads, wishes = [], {}
    for name, part in form.multi_items():
        if isinstance(part, UploadFile) and name == FILES:
            uploads.append(Upload(_short(part.filename), await part.read()))
        elif isinstance(part, str) and name in WISHES:
            wishes[name] = part
        else:
            raise Refusal(
                400,
                f"a part of the form is named {name[:_MAX_FIELD]!r}. Images are files named "
                f"{FILES!r}; of other fields there is {', '.join(WISHES)}.",
            )
    if not uploads:
        raise Refusal(400, f"no image. Send one or more parts named {FILES!r}.")
    if len(uploads) > limits.max_files:
        raise _too_many(limits)
    return uploads, wishes


async def drain(request: Request, limits: Limits) -> None:
    """Read on what is refused, and forget it: who still sends would not hear the answer."""
    try:
        async with asyncio.timeout(min(limits.timeout, 5)):
            async for _ in _counted(request, 2 * limits.max_bytes):
                pass
    except Exception:  # it was only for their sake
        return


async def _counted(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield what comes, whatever its length was said to be, until it is too much."""
    said = request.headers.get("content-length", "")
    received = int(said[:19]) if said.isdecimal() else 0  # Python refuses thousands of digits
    if received <= most:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            if received > most:
                break
            yield chunk
    if received > most:
        raise Refusal(
            413, f"more than {most:,} bytes in one request. Send fewer images, or smaller ones."
        )


def _unread(message: str, limits: Limits) -> Refusal:
    if "Too many files" in message:
        return _too_many(limits)
    if "maximum size" in message:  # it would say "0KB"
        return Refusal(400, f"a field of the form has more than {_MAX_FIELD} bytes.")
    return Refusal(400, f"the form cannot be read: {message}")


def _too_many(limits: Limits) -> Refusal:
    return Refusal(413, f"more than {limits.max_files} images in one request. Send several.")


def _short(name: str | None) -> str:
    """Make a name printable, and cut it from the left: its end says the most."""
    shown = name or "image"
    return (shown if shown.isprintable() else ascii(shown)[1:-1])[-_MAX_NAME:]
