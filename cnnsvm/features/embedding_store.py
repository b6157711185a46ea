"""Embeddings on disk, in parts that are written while images are embedded, and found by image."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cnnsvm
from cnnsvm.features.cache import hash_task
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.state import plain_params
from cnnsvm.io.files import alone, file_hash, replacing, write_text

logger = logging.getLogger(__name__)

#: Images of a part: the most that an interruption loses.
PART = 256
#: Bytes that the parts of a cache take at most: those that were not used for longest go.
MOST_BYTES = 20 * 10**9
#: Parameters that shape a network, whose weights are known, and not what it makes of an image.
_OF_FIT = ("random_state", "weights", "finetune")


def embed_stored(
    embedder: CropEmbedder,
    images: Sequence[Any],
    keys: Sequence[str],
    cache_dir: str | os.PathLike[str],
) -> np.ndarray:
    """Embed the images that a cache does not hold yet, and return the embeddings of all.

    They lie in ``embeddings`` of the cache, in a folder named by the network's weights and
    preprocessing, the embedder's parameters and the version of this library. A part is an array,
    read through a memory map, and a JSON file with its keys, its SHA-256 and what embedded it. That
    is written last: a part without it is computed again, as is one that has changed on disk.
    Processes that embed in the same way take turns. Of more than `MOST_BYTES`, the parts that were
    not used for longest are removed.

    Parameters
    ----------
    embedder : CropEmbedder
        Fitted.
    images : sequence
    keys : sequence of str
        What each image is, such as its hash; equal ones are embedded once.
    cache_dir : path

    Returns
    -------
    ndarray
        float32 (number of images, d).

    Raises
    ------
    ImageError
        If an image cannot be read. The parts before its own stay stored.
    """
    made_by = {k: v for k, v in plain_params(embedder).items() if k not in _OF_FIT}
    made_by |= embedder.choose_way(embedder.network_)._asdict()  # what "auto" is here
    settings = ["embedding", type(embedder).__name__, made_by]
    name = hash_task([embedder.network_], [], np.array([]), None, settings)
    folder = Path(cache_dir) / "embeddings" / name
    with alone(folder):
        found = dict(_known(folder))
        missing = list({key: i for i, key in enumerate(keys) if key not in found}.values())
        logger.info("%d of %d embeddings are in %s", len(keys) - len(missing), len(keys), folder)
        for start in range(0, len(missing), PART):
            rows = missing[start : start + PART]
            some = [images[i] for i in rows] if isinstance(images, list) else _Some(images, rows)
            own = [keys[i] for i in rows]
            found |= _write(folder, own, embedder.transform(some), made_by)
        if missing:
            _prune(folder.parent, MOST_BYTES)
    return np.stack([found[key] for key in keys])


class _Some(Sequence[Any]):
    """Some of the images of a sequence that makes them when they are asked for."""

    def __init__(self, images: Sequence[Any], rows: list[int]) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.images[self.rows[index]]


def _known(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for described in _parts(folder):
        array = described.with_suffix(".npy")
        try:
            description = json.loads(described.read_text(encoding="utf-8"))
            if file_hash(array) != description["sha256"]:
                raise ValueError("it is not what was written")
            rows = np.load(array, mmap_mode="r", allow_pickle=False)
            with contextlib.suppress(OSError):  # such as a cache that is read only
                os.utime(array)  # the parts that are not used go first
            yield from list(zip(description["keys"], rows, strict=True))
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("%s is damaged and is computed again: %s", array, error)
            described.unlink(missing_ok=True)


def _prune(root: Path, most: int) -> None:
    """Remove parts of all folders, the least recently used first, until ``most`` bytes are left.

    What a process has mapped stays readable there.
    """
    known = [(found.st_mtime, found.st_size, file) for file, found in _sizes(root)]
    left = sum(size for _, size, _ in known)
    for _, size, array in sorted(known):
        if left <= most:
            return
        logger.info("%s is removed: the cache has reached %.1f GB", array, 1e-9 * most)
        array.with_suffix(".json").unlink(missing_ok=True)
        array.unlink(missing_ok=True)
        left -= size


def _sizes(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for array in root.glob("*/*.npy"):
        with contextlib.suppress(FileNotFoundError):  # another process prunes too
            yield array, array.stat()


def _parts(folder: Path) -> list[Path]:
    """List the descriptions of parts, but for copies that something else made."""
    return sorted(file for file in folder.glob("*.json") if file.stem.isdecimal())


def _write(
    folder: Path, keys: list[str], embeddings: np.ndarray, made_by: dict[str, Any]
) -> dict[str, np.ndarray]:
    numbers = [int(file.stem) for file in _parts(folder)]
    array = folder / f"{max(numbers, default=-1) + 1:08d}.npy"
    with replacing(array) as partial, partial.open("wb") as stream:
        np.save(stream, embeddings)
    description = {
        "keys": keys,
        "sha256": file_hash(array),
        "version": cnnsvm.__version__,
        "made_by": made_by,
    }
    write_text(array.with_suffix(".json"), json.dumps(description))  # last: marks it finished
    return dict(zip(keys, embeddings, strict=True))
