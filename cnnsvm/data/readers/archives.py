"""Read and unpack untrusted archives (zip, tar)."""

import bz2
import gzip
import logging
import lzma
import os
import posixpath
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PureWindowsPath
from typing import IO, Any, cast

from cnnsvm.data.manifest import DatasetError
from cnnsvm.io.files import text_hash

logger = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**30  # DeepfakeArt, the largest data set that this project reads, is below half
MAX_RATIO = 100  # images hardly shrink
_SMALL = 64 * 2**20  # a few blank masks may shrink more; below this nobody is hurt
_CHUNK = 2**20
_LONGEST_READ = 16 * _CHUNK  # only the header of a tar that lies about its length asks for more
_TAR_BLOCK = 512

#: How the names of archives end, longest first.
SUFFIXES = (".tar.bz2", ".tar.gz", ".tar.xz", ".tbz2", ".tar", ".tgz", ".txz", ".zip")
_DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


class _DamagedError(EOFError):
    """What a decompressor or a tar that ends too early leads to."""


@dataclass(frozen=True)
class Member:
    """A file in an archive or a folder: its relative name, its size in bytes, and a way in."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass
class _Limits:
    """What the content of an archive may come to, and what it came to so far."""

    file: Path
    max_bytes: int
    free: int | None = None
    n_bytes: int = 0
    names: set[str] = field(default_factory=set)

    @cached_property
    def packed(self) -> int:
        return max(self.file.stat().st_size, 1)

    def add(self, size: int, how: str = "at least ") -> None:
        """Count bytes that a member says it has; more than is allowed is a `DatasetError`."""
        self.n_bytes += size
        if self.n_bytes > self.max_bytes:
            reason = f"more than the cap of {self.max_bytes:,}"
        elif self.n_bytes > max(_SMALL, MAX_RATIO * self.packed):
            reason = f"more than {MAX_RATIO} times the {self.packed:,} of the archive"
        elif self.free is not None and self.n_bytes > self.free:
            reason = f"more than the {self.free:,} free in the working folder"
        else:
            return
        raise DatasetError(
            f"{self.file}: holds {how}{self.n_bytes:,} bytes, {reason}; nothing was unpacked. "
            "Unpack it yourself and give the folder, if you trust it."
        )

    def check_name(self, name: str, rule: str | None) -> str:
        """Return the plain form of a member's name; a broken rule is a `DatasetError`."""
        plain = posixpath.normpath(name)
        if _leaves(name):
            rule = "leaves the folder"
        elif rule is None and plain in self.names:
            rule = "is there twice"
        if rule is not None:
            raise DatasetError(
                f"{self.file}: the entry {name!r} {rule}; nothing was unpacked. Pack the images "
                "anew, as plain files below one folder, or unpack it yourself and give the folder."
            )
        self.names.add(plain)
        return plain


def data_name(path: str | os.PathLike[str]) -> str:
    """Return the name of a data set: that of its file or folder, without an archive's ending."""
    name = Path(path).resolve().name
    suffix = next((ending for ending in SUFFIXES if name.lower().endswith(ending)), "")
    return name[: len(name) - len(suffix)] or name


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Tell by its name, in any case, whether a file is an archive that is read here."""
    return Path(path).name.lower().endswith(SUFFIXES)


@contextmanager
def open_archive(
    archive: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, free: int | None = None
) -> Iterator[Iterator[Member]]:
    """Walk the files in an archive without unpacking it, in the archive's order.

    A tar is decompressed once, front to back: open a member before asking for the next one. The
    members' names are relative, with slashes, stay inside the archive, and occur once.
    ``max_bytes`` are the most that the content may come to, and ``free`` those that are free where
    it goes.

    A DatasetError says that the archive is damaged or ends too early, or a member is a link, a
    device or encrypted, leaves the folder, has the name of another, or makes the content larger
    than ``max_bytes``, ``free``, or 100 times the archive (and 64 MiB).
    """
    file = Path(archive).absolute()
    walk = _walk_zip if file.suffix.lower() == ".zip" else _walk_tar
    members = walk(file, _Limits(file, max_bytes, free))
    try:
        yield members
    except (*_DAMAGE, NotImplementedError) as error:
        raise DatasetError(
            f"{file}: cannot be unpacked ({error}). Download it again, or unpack it yourself and "
            "give the folder."
        ) from error
    finally:
        members.close()


def unpack_archive(
    archive: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Unpack an archive into a folder of its own below ``workdir``, all or nothing.

    The folder is named by the archive's name and by its path, size and time of change, so an
    archive that was unpacked before is not unpacked again, and a changed one is.

    Parameters
    ----------
    archive : path of a .zip, .tar, .tar.gz, .tar.xz or .tar.bz2 file
    workdir : path
        Made if needed.
    max_bytes : int
        Most bytes that the content may take on disk.

    Returns
    -------
    Path
        The folder with the content.

    Raises
    ------
    DatasetError
        See `open_archive`; also if the content is larger than the free space.
    """
    file, status = Path(archive).absolute(), os.stat(archive)
    identity = text_hash(f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}")
    target = Path(workdir).absolute() / f"{data_name(file)}-{identity[:12]}"
    if target.is_dir():
        logger.info("%s: unpacked before, using %s", file, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(".partial", f".{target.name}.", target.parent))
    free = shutil.disk_usage(unfinished).free
    try:
        with open_archive(file, max_bytes=max_bytes, free=free) as members:
            _write(members, unfinished)
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():  # else another process has just unpacked the same archive
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _write(members: Iterable[Member], folder: Path) -> None:
    # Own writing, not extractall: only names that were checked and plain content reach the disk,
    # on every Python (tarfile's own filters are missing before 3.11.4), and in a single pass.
    for member in members:
        path = folder / member.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, open(path, "xb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _DamagedError(f"the entry {member.name!r} is in the way of another") from error


def _walk_zip(file: Path, limits: _Limits) -> Generator[Member, None, None]:
    with zipfile.ZipFile(file) as opened:
        entries = [entry for entry in opened.infolist() if not entry.is_dir()]
        names = [limits.check_name(entry.filename, _broken_rule(entry)) for entry in entries]
        limits.add(sum(entry.file_size for entry in entries), how="")
        for name, entry in zip(names, entries, strict=True):
            yield Member(name, entry.file_size, partial(opened.open, entry))


def _broken_rule(entry: zipfile.ZipInfo) -> str | None:
    if _leaves(entry.orig_filename):  # what stood before a NUL byte cut it
        return "leaves the folder"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG):
        return "is no plain file"
    return "is encrypted" if entry.flag_bits & 1 else None


def _walk_tar(file: Path, limits: _Limits) -> Generator[Member, None, None]:
    with open(file, "rb") as packed:
        start = packed.read(5)
    opener = next((o for magic, o in _DECOMPRESSORS.items() if start.startswith(magic)), open)
    with opener(file, "rb") as raw:
        stream = _Forward(raw, file)
        with tarfile.open(fileobj=cast(Any, stream), mode="r:") as opened:
            for entry in iter(opened.next, None):
                cast(Any, opened).members.clear()  # else 100,000 of them stay in memory
                if entry.isdir():
                    continue
                kind = "is a link" if entry.issym() or entry.islnk() else "is no plain file"
                name = limits.check_name(entry.name, None if entry.isfile() else kind)
                limits.add(entry.size)
                yield Member(name, entry.size, cast(Any, partial(opened.extractfile, entry)))
        # tarfile takes a broken or missing header for the end; an end is a block of zeros
        if stream.last != bytes(_TAR_BLOCK):
            raise _DamagedError(f"it ends or is broken after {stream.tell():,} bytes")
        while stream.read(_CHUNK):  # a checksum of everything may stand at the very end
            pass


class _Forward:
    """The content of a tar, read once, front to back, and never more than is allowed."""

    def __init__(self, raw: IO[bytes], file: Path) -> None:
        self._raw = raw
        # headers and padding count here too, so that no bomb hides in what is passed over
        self._limits = _Limits(file, sys.maxsize)
        self.last = b""

    def tell(self) -> int:
        return self._limits.n_bytes

    def seek(self, position: int) -> None:
        while self.tell() < position and self.read(min(_CHUNK, position - self.tell())):
            pass

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise _DamagedError(f"a header of {size:,} bytes")
        try:
            self.last = self._raw.read(size)
        except (*_DAMAGE, OSError) as error:
            raise _DamagedError(str(error)) from error
        self._limits.add(len(self.last))
        return self.last


def _leaves(name: str) -> bool:
    # Backslashes and drives too: what is harmless here may be unpacked on another system.
    windows = PureWindowsPath(name)
    return bool(windows.anchor) or ".." in windows.parts
