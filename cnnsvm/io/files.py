"""Files that are there whole or not at all, and their hashes."""

import ctypes
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

#: Errors of a disk, a quota or a file that has no room left.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PARTIAL = ".partial"
_HERE, _EXCHANGE = -100, 2  # of renameat2: AT_FDCWD, RENAME_EXCHANGE


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden temporary ``.partial`` path beside ``path``, moved there when all succeeds.

    The folder is made if it is missing. If the block raises, an older file stays as it was and the
    temporary one is removed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    who = f"{os.getpid()}-{threading.get_ident()}"
    short = text_hash(target.name)[:16]  # names may be long
    partial = target.with_name(f".{short}.{who}{_PARTIAL}")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        # a write does not say of what, and the hidden name is none that a user knows
        if error.errno is not None and error.filename in (None, partial, str(partial)):
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(made: Path, target: Path) -> None:
    """Move a folder to where another one may be, which is removed; there is always one of them.

    Two folders are exchanged in one step of the kernel (renameat2), where its file system can.
    """
    while True:
        try:
            os.rename(made, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        try:
            _exchange(made, target)
        except FileNotFoundError:  # another process has removed it
            continue
        shutil.rmtree(made, ignore_errors=True)
        return


def _exchange(a: Path, b: Path) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = (_HERE, os.fsencode(a), _HERE, os.fsencode(b))
    if call is not None and call(*paths, _EXCHANGE) == 0:
        return
    code = ctypes.get_errno() if call is not None else errno.ENOSYS
    if code == errno.ENOENT:
        raise FileNotFoundError(code, os.strerror(code), str(b))
    if code not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(code, os.strerror(code), str(b))
    old = a.with_name(f"{a.name}.old")  # for a moment there is none
    os.rename(b, old)
    os.rename(a, b)
    os.rename(old, a)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that nothing can be written to (ValueError); one may have to be made."""
    places = (Path(folder), *Path(folder).absolute().parents)
    nearest = next(place for place in places if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        what = "cannot be written to" if nearest.is_dir() else "is no folder"
        raise ValueError(f"{nearest} {what}. Choose another place for what is to be written.")


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse a place where no file can be written (ValueError), before the work for it is done."""
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder. Name a file for what is to be written.")
    check_writable(Path(path).parent)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file atomically and return its path."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a UTF-8 text file atomically, with its line ends and names of files as they are."""
    return write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> Path:
    """Write values as JSON atomically."""
    return write_text(path, json.dumps(values, indent=1, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `write_json` wrote; empty if there is no such file or it is damaged.

    An OSError is raised if the file is there and cannot be read: what it says is not known then.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


@contextmanager
def partial_folder(beside: Path) -> Iterator[Path]:
    """Make a hidden folder beside a path, removed at the end; those of killed processes too."""
    for left in beside.parent.glob(f".folder.*{_PARTIAL}"):
        if not _is_written(left, own=True):
            shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(_PARTIAL, f".folder.{os.getpid()}-", beside.parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def clear_partials(folder: Path) -> None:
    """Remove the half-written files that killed processes of this machine left in a folder."""
    for partial in folder.glob(f".*{_PARTIAL}"):
        if partial.is_file() and not _is_written(partial):
            partial.unlink(missing_ok=True)


def _is_written(partial: Path, *, own: bool = False) -> bool:
    """Whether a process that still runs made the name of a partial file: another, or this one."""
    process = partial.name.split(".")[-2].partition("-")[0]
    if not process.isdecimal():
        return False
    if int(process) == os.getpid():
        return own
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def alone(path: Path | None) -> Iterator[None]:
    """Let one process at a time work on a file or folder that is yet to be made; others wait.

    A hidden lock beside it is let go when its process ends, however. None locks nothing.
    """
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{text_hash(path.name)[:16]}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning("%s: another process is making it. Waiting for that.", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
