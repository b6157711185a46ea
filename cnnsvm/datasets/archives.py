"""Unpack a zip that a stranger may have made."""

import hashlib
import logging
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from cnnsvm.datasets.errors import DatasetError

logger = logging.getLogger(__name__)

MAX_BYTES = 64 * 2**30  # DeepfakeArt, the largest data set that this project reads, is below half
MAX_RATIO = 100  # images hardly shrink
_SMALL = 64 * 2**20  # a few blank masks may shrink more; below this nobody is hurt


def unpack_zip(
    archive: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Unpack a zip file into a folder of its own below ``workdir``, all or nothing.

    The folder is named by the archive's name and by its path, size and time of change, so an
    archive that was unpacked before is not unpacked again, and a changed one is.

    Parameters
    ----------
    archive : path of a .zip file
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
        If it is no readable zip, an entry is a link or leaves the folder, or the content is
        larger than ``max_bytes``, more than 100 times the archive, or larger than the free space.
    """
    file = Path(archive).absolute()
    target = Path(workdir).absolute() / f"{file.stem}-{_fingerprint(file)}"
    if target.is_dir():
        logger.info("%s: unpacked before, using %s", file, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(".partial", f".{target.name}.", target.parent))
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
            _check_entries(file, entries)
            _check_size(file, entries, max_bytes, shutil.disk_usage(partial).free)
            opened.extractall(partial)
        _move(partial, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DatasetError(
            f"{file}: cannot be unpacked ({error}). Download it again, or unpack it yourself and "
            "give the folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _fingerprint(file: Path) -> str:
    status = file.stat()
    identity = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def _check_entries(file: Path, entries: list[zipfile.ZipInfo]) -> None:
    for entry in entries:
        if _leaves(entry.filename) or _leaves(entry.orig_filename):
            rule = "leaves the folder"
        elif stat.S_ISLNK(entry.external_attr >> 16):
            rule = "is a link"
        else:
            continue
        raise DatasetError(
            f"{file}: the entry {entry.filename!r} {rule}; nothing was unpacked. Pack the images "
            "anew, as plain files below one folder."
        )


def _leaves(name: str) -> bool:
    # Backslashes and drives too: what is harmless here may be unpacked on another system.
    windows = PureWindowsPath(name)
    absolute = PurePosixPath(name).is_absolute() or bool(windows.anchor)
    return absolute or ".." in windows.parts


def _check_size(file: Path, entries: list[zipfile.ZipInfo], max_bytes: int, free: int) -> None:
    size = sum(entry.file_size for entry in entries)
    packed = max(file.stat().st_size, 1)
    if size > max_bytes:
        reason = f"more than the cap of {max_bytes:,}"
    elif size > _SMALL and size > MAX_RATIO * packed:
        reason = f"more than {MAX_RATIO} times the {packed:,} of the archive"
    elif size > free:
        reason = f"more than the {free:,} free in the working folder"
    else:
        return
    raise DatasetError(
        f"{file}: holds {size:,} bytes, {reason}; nothing was unpacked. Unpack it yourself and "
        "give the folder, if you trust it."
    )


def _move(partial: Path, target: Path) -> None:
    try:
        os.rename(partial, target)
    except OSError:
        if not target.is_dir():  # else another process has just unpacked the same archive
            raise
