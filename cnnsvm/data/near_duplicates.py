"""Sources that are copies of each other must share a group."""

import logging
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cnnsvm.data.images import load_image

logger = logging.getLogger(__name__)

#: Bits of 64. Measured on 300 Monet paintings, 90 scrolls, 200 photographs and 40 more: a copy that
#: was halved, squared to 256x256 or saved as JPEG 50 lies at most 4 bits away; one cropped by 2 %
#: at most 6 in 99 of 100; of 198,135 pairs of different images one lies within 6 (two scans of one
#: painting), four within 8, the first that have nothing in common among them.
MAX_DISTANCE = 6
#: Grey levels. Below, the hash of a flat image is noise: black, white and fog would all be one.
MIN_CONTRAST = 2.0
_SIDE = 32  # what the hash looks at
_BLOCK = 512


def merge_near_duplicates(
    manifest: pd.DataFrame, max_distance: int = MAX_DISTANCE, *, n_jobs: int | None = None
) -> pd.DataFrame:
    """Give near-duplicate sources one ``source_id``, so that no split can separate them.

    Two sources are joined when their originals (of a source without one: its first row) have
    perceptual hashes at most ``max_distance`` bits apart, or when any of their files are
    identical by ``sha256``. Joining is transitive. Images without contrast are joined only when
    identical.

    Parameters
    ----------
    manifest : DataFrame with absolute paths
        Not changed.
    max_distance : int, 0-64
        Hamming distance of the 64-bit DCT hash (``imagehash.phash``). 0 joins equal hashes only.
    n_jobs : int or None
        Threads that decode images; None takes one a core.

    Returns
    -------
    DataFrame
        A copy in which joined sources have the ``source_id`` that comes first in the table.

    Raises
    ------
    ValueError
        If ``max_distance`` is not between 0 and 64.
    ImageError
        If an image cannot be read.
    """
    merged = manifest.copy()
    if merged.empty:
        _check_distance(max_distance)
        return merged
    sources = list(dict.fromkeys(manifest["source_id"]))
    number = {source: i for i, source in enumerate(sources)}
    found = find_near_duplicates(manifest, max_distance, n_jobs=n_jobs)
    pairs = [(number[pair.first], number[pair.second]) for pair in found]
    component = _components(len(sources), pairs)
    first = {c: sources[i] for i, c in reversed(list(enumerate(component)))}
    names = {source: first[c] for source, c in zip(sources, component, strict=True)}
    merged["source_id"] = [names[source] for source in manifest["source_id"]]
    _log_merged(sources, names)
    return merged


@dataclass(frozen=True)
class DuplicatePair:
    """Two sources that look alike.

    Parameters
    ----------
    first, second : hashable
        Their ``source_id``, in the order of the table.
    identical : bool
        They share a file by ``sha256``; else their perceptual hashes are close.
    distance : int
        Bits in which the hashes differ, 0 for identical files.
    """

    first: Hashable
    second: Hashable
    identical: bool
    distance: int


def find_near_duplicates(
    manifest: pd.DataFrame, max_distance: int = MAX_DISTANCE, *, n_jobs: int | None = None
) -> list[DuplicatePair]:
    """Find the sources that `merge_near_duplicates` would join, pair by pair.

    Parameters
    ----------
    manifest, max_distance, n_jobs
        As in `merge_near_duplicates`.

    Returns
    -------
    list of DuplicatePair
        Identical ones first. Not transitive; a pair that is identical is not listed as near too.

    Raises
    ------
    ValueError, ImageError
        As in `merge_near_duplicates`.
    """
    _check_distance(max_distance)
    sources = list(dict.fromkeys(manifest["source_id"]))
    if not sources:
        return []
    hashes, usable = _hash_all(pick_paths(manifest), n_jobs)
    identical = sorted({(min(i, j), max(i, j)) for i, j in _identical_pairs(manifest, sources)})
    near = sorted(set(_near_pairs(hashes, usable, max_distance)) - set(identical))
    bits = np.bitwise_count(hashes[[i for i, _ in near]] ^ hashes[[j for _, j in near]])
    return [
        *(DuplicatePair(sources[i], sources[j], True, 0) for i, j in identical),
        *(
            DuplicatePair(sources[i], sources[j], False, int(n))
            for (i, j), n in zip(near, bits, strict=True)
        ),
    ]


def perceptual_hash(path: str) -> tuple[int, bool]:
    """Hash what an image looks like.

    Returns
    -------
    (hash, usable)
        64 bits of the signs of its lowest frequencies, and whether the image has the contrast
        that makes them mean something.
    """
    grey = Image.fromarray(load_image(path)).convert("L")
    small = grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)  # as imagehash itself would
    bits = np.packbits(imagehash.phash(small).hash)
    return int.from_bytes(bits.tobytes(), "big"), bool(np.std(np.asarray(small)) >= MIN_CONTRAST)


def pick_paths(manifest: pd.DataFrame) -> list[str]:
    """Return the file that stands for each source, in their order: an original if there is one."""
    sources = dict.fromkeys(manifest["source_id"])
    by_source = manifest.sort_values("label", kind="stable").drop_duplicates("source_id")
    paths = dict(zip(by_source["source_id"], by_source["path"], strict=True))
    return [str(paths[source]) for source in sources]


def _check_distance(max_distance: int) -> None:
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance must lie between 0 and 64 bits, got {max_distance!r}.")


def _hash_all(paths: Sequence[str], n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
    found = Parallel(n_jobs=n_jobs or -1, prefer="threads")(
        delayed(perceptual_hash)(path) for path in paths
    )
    hashes, usable = zip(*found, strict=True)
    return np.array(hashes, dtype=np.uint64), np.array(usable, dtype=bool)


def _near_pairs(
    hashes: np.ndarray, usable: np.ndarray, max_distance: int
) -> Iterable[tuple[int, int]]:
    positions = np.flatnonzero(usable)
    kept = hashes[positions]
    for start in range(0, len(kept), _BLOCK):  # 5,063 sources squared would be 200 MB at once
        block = kept[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None] ^ kept[None, start:])
        for i, j in np.argwhere(distance <= max_distance):
            if i < j:
                yield int(positions[start + i]), int(positions[start + j])


def _identical_pairs(
    manifest: pd.DataFrame, sources: Sequence[Hashable]
) -> Iterable[tuple[int, int]]:
    number = {source: i for i, source in enumerate(sources)}
    first: dict[str, int] = {}
    for digest, source in zip(manifest["sha256"], manifest["source_id"], strict=True):
        if isinstance(digest, str):
            other = first.setdefault(digest, number[source])
            if other != number[source]:
                yield other, number[source]


def _components(n_sources: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_sources, n_sources))
    return connected_components(links, directed=False)[1]


def _log_merged(sources: Sequence[Hashable], names: dict[Hashable, Hashable]) -> None:
    joined: dict[Hashable, list[str]] = {}
    for source in sources:
        joined.setdefault(names[source], []).append(str(source))
    several = [", ".join(group) for group in joined.values() if len(group) > 1]
    if several:
        logger.info(
            "merged %d near-duplicate sources into %d: %s",
            sum(len(group) for group in joined.values() if len(group) > 1),
            len(several),
            "; ".join(several[:20]) + ("; ..." if len(several) > 20 else ""),
        )
