"""The images of a block: read once each, hashed, decoded when they are asked for."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from cnnsvm.data.decoding import check_length, file_length
from cnnsvm.data.images import ImageError, errors_named, image_name, load_image
from cnnsvm.data.metadata import read_metadata
from cnnsvm.data.scanning import SUFFIXES, begins_as_image
from cnnsvm.detection.combined import coverage_of
from cnnsvm.report.judging import Judge
from cnnsvm.report.metadata import describe_metadata
from cnnsvm.scale.sources import Entry, is_remote, open_store

Facts = dict[str, Any]


class Member(NamedTuple):
    """A file of a tar file, and where its bytes begin; there may be millions."""

    name: str
    offset: int
    size: int
    is_sparse: bool


class Contents(Sequence[np.ndarray]):
    """Images by their names: item i is decoded anew each time, or raises its ImageError.

    ``facts[i]`` says after that what is known of it before it is judged: ``coverage``, the share
    of its pixels that the judge's detector looks at, ``metadata`` and ``sha256``. ``read(i)``
    returns the bytes of a file.
    """

    def __init__(self, names: Sequence[str], read: Callable[[int], bytes], judge: Judge) -> None:
        self.names, self.read, self.judge = names, read, judge
        self.facts: list[Facts] = [{} for _ in names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        content = self.read(index)
        try:
            pixels = load_image(content, max_pixels=self.judge.whole.max_pixels)
        except ImageError as error:  # it names the file, not the number of its bytes
            name = image_name(self.names[index])
            raise type(error)(str(error).replace(image_name(content), name, 1)) from None
        self.facts[index] = {
            "coverage": round(coverage_of(self.judge.detector, pixels), 3),
            "metadata": describe_metadata(read_metadata(content)),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        return pixels


@contextmanager
def open_block(entries: Sequence[Entry], is_shard: bool, judge: Judge) -> Iterator[Contents]:
    """Open the images of a block."""
    if is_shard:
        with open_shard(entries[0][0], judge) as contents:
            yield contents
        return

    def read(index: int) -> bytes:
        path, skipped = entries[index]
        if skipped is not None:
            raise ImageError(skipped)
        return read_content(path)

    yield Contents([path for path, _ in entries], read, judge)


def read_content(path: str) -> bytes:
    """Read a file of this machine or of a store; an ImageError says why it cannot be read."""
    with errors_named(path):
        if not is_remote(path):
            check_length(file_length(path))
            return Path(path).read_bytes()
        system, inner = open_store(path)
        with system.open(inner, "rb", cache_type="none") as stream:
            check_length(stream.size)
            content: bytes = stream.read()
        return content


@contextmanager
def open_shard(path: str, judge: Judge) -> Iterator[Contents]:
    """Open the images of a tar file; one of a store is copied to this machine meanwhile.

    Images are known as in a folder: by their names, or else by how they begin. What else is in the
    file, such as labels, is left out. A file that is damaged has a last image that says so.
    """
    with ExitStack() as stack:
        try:
            with errors_named(path):
                stream = stack.enter_context(_opened(path))
                members, error = _members(stream, path)
        except ImageError as broken:  # there is no such file, or no access
            members, error = [], str(broken)
        names = [f"{path}/{member.name}" for member in members]
        lock = threading.Lock()

        def read(index: int) -> bytes:
            if index == len(members):
                raise ImageError(error)
            member = members[index]
            with errors_named(names[index]), lock:  # threads share the place in the file
                check_length(member.size)
                if member.is_sparse:  # its bytes are not those of the image
                    raise ValueError("stored without its zeros. Make the tar without --sparse.")
                stream.seek(member.offset)
                return stream.read(member.size)

        yield Contents(names if error is None else [*names, path], read, judge)


def _opened(path: str) -> IO[bytes]:
    """Open a file, or a copy of one in a store."""
    if not is_remote(path):
        file_length(path)  # no pipe, which might block for ever
        return open(path, "rb")
    system, inner = open_store(path)
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - who asked for it closes it
    with system.open(inner, "rb") as stream:
        shutil.copyfileobj(stream, copy, 2**22)
    return copy


def _members(stream: IO[bytes], path: str) -> tuple[list[Member], str | None]:
    """List the images of a tar file, and what is wrong with it."""
    found: list[Member] = []
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            kept: list[Any] = vars(tar)["members"]
            while (each := tar.next()) is not None:
                kept.clear()  # each takes a kilobyte
                if each.isfile() and _is_image(each, stream):
                    found.append(Member(each.name, each.offset_data, each.size, each.issparse()))
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no mark of the end, and no file, at byte {tar.offset}")
        error = None if found else "a tar file without images. Check what is in it."
    except Exception as broken:  # sizes of no file and heads without end too: images before stay
        error = f"a tar file that cannot be read to its end ({broken}). Make it again."
    return found, error and f"{image_name(path)}: {error}"


def _is_image(member: tarfile.TarInfo, stream: IO[bytes]) -> bool:
    if os.path.splitext(member.name)[1].lower() in SUFFIXES:
        return True
    place = stream.tell()
    stream.seek(member.offset_data)
    head = stream.read(min(16, member.size))
    stream.seek(place)
    return begins_as_image(head)
