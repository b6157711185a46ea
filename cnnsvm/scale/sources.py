"""What is to be judged: images, tar shards and lists of paths, cut into blocks."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cnnsvm.data.scanning import SUFFIXES, each_file
from cnnsvm.io.files import text_hash
from cnnsvm.report.judging import SKIPPED

SHARD = ".tar"  # files in the layout of WebDataset: images beside what is said of them
TABLE = ".parquet"
#: An image or shard, and why it is skipped, if it is.
Entry = tuple[str, str | None]


class Block(NamedTuple):
    """Inputs whose rows are one partition, and the name of its file, which follows from them."""

    name: str
    entries: list[Entry]

    @property
    def is_shard(self) -> bool:
        """Whether the rows are those of the images in one tar file."""
        return is_shard(self.entries[0])


def is_shard(entry: Entry) -> bool:
    """Whether an entry is a tar file whose images are judged."""
    path, skipped = entry
    return skipped is None and path.lower().endswith(SHARD)


def is_remote(path: str) -> bool:
    """Whether a path is one of a store that fsspec opens, such as ``s3://bucket/name``."""
    return "://" in path


def open_store(path: str) -> tuple[Any, str]:
    """Return the file system of a remote path, and the path in it (`fsspec`)."""
    from fsspec.core import url_to_fs

    try:
        system, inner = url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened: {error}") from error
    return system, inner


def find_blocks(places: Iterable[str | os.PathLike[str]], size: int) -> list[Block]:
    """List what is to be judged, in blocks of ``size`` images; a tar shard is a block of its own.

    The same inputs give the same blocks, so that finished ones are known by their names.

    Parameters
    ----------
    places : images, folders of images and ``.tar`` shards, or ``.parquet`` tables with a column
        ``path``, on this machine or, as ``s3://bucket/folder``, wherever fsspec reads. What is
        named twice is judged once.
    size : int, at least 1

    Returns
    -------
    list of Block
        Empty if nothing was found. Paths of this machine are absolute.

    Raises
    ------
    ValueError
        If a place cannot be listed, or a table has no column ``path``.
    """
    entries: dict[str, str | None] = {}
    for place in places:
        for path, skipped in _find(os.fspath(place)):
            entries.setdefault(path, skipped)
    images = [entry for entry in entries.items() if not is_shard(entry)]
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    parts += [[entry] for entry in entries.items() if is_shard(entry)]
    return [Block(_name(index, part), part) for index, part in enumerate(parts)]


def _name(index: int, entries: list[Entry]) -> str:
    digest = text_hash("\n".join(path for path, _ in entries))[:12]
    return f"part-{index:06d}-{digest}{TABLE}"


def _find(place: str) -> Iterator[Entry]:
    if is_remote(place):
        yield from _find_remote(place)
        return
    path = Path(os.path.abspath(place))  # workers may be in another folder
    if path.suffix.lower() == TABLE and path.is_file():
        yield from _listed(path.read_bytes(), str(path.parent), place)
    elif path.is_dir():
        found, skipped = [], []
        for file, reason in each_file(path):
            if reason is None or is_shard((file, None)):
                found.append(file)
            else:
                skipped.append((file, f"{SKIPPED}{reason}"))
        nothing = f"{path}: no images in this folder. Check the path."
        yield from ((file, None) for file in sorted(found)) if found else [(str(path), nothing)]
        yield from sorted(skipped)
    else:
        yield str(path), None


def _find_remote(place: str) -> Iterator[Entry]:
    system, inner = open_store(place)
    try:
        if inner.lower().endswith(TABLE) and system.isfile(inner):
            yield from _listed(system.cat_file(inner), place.rpartition("/")[0], place)
            return
        names = sorted(system.find(inner)) if system.isdir(inner) else [inner]
    except ValueError:
        raise
    except Exception as error:  # of whatever store
        raise ValueError(
            f"{place} cannot be listed ({error}). Check the name and your access to it."
        ) from error
    for name in names:
        path = str(system.unstrip_protocol(name))
        wanted = name == inner or Path(name).suffix.lower() in SUFFIXES | {SHARD}
        yield path, None if wanted else f"{SKIPPED}not the name of an image"


def _listed(content: bytes, folder: str, place: str) -> Iterator[Entry]:
    """Read the column ``path`` of a table; relative paths are relative to the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(io.BytesIO(content))
        names = table.schema_arrow.names
        columns = table.iter_batches(columns=["path"]) if "path" in names else ()
        paths = [path for batch in columns for path in batch.column(0).to_pylist()]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # damaged pages are the last
        raise ValueError(f"{place} is no Parquet table ({error}). Write it again.") from error
    if "path" not in names:
        raise ValueError(f"{place} has the columns {names}; a list of images needs 'path'.")
    for path in paths:
        if not isinstance(path, str):
            raise ValueError(
                f"{place}: {path!r:.80} in the column 'path' is no text. Write it again."
            )
        if is_remote(path):
            yield path, None
        elif is_remote(folder):
            yield (f"{folder}/{path}", None)
        else:
            yield os.path.normpath(os.path.join(folder, path)), None
