"""Images that are copies of each other must share a group.

`merge_near_duplicates` compares images of any size by perceptual hashes. Images of 32x32 pixels
are too small for those: `group_near_duplicates` correlates them.
"""

import hashlib
import logging
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import imagehash
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from cnnsvm.data.images import load_image

logger = logging.getLogger(__name__)

#: Bits of 64. Measured on 300 Monet paintings, 90 scrolls, 200 photographs and 40 more: a copy that
#: was halved, squared to 256x256 or saved as JPEG 50 lies at most 4 bits away; one cropped by 2 %
#: at most 6 in 99 of 100; of 198,135 pairs of different images one lies within 6 (two scans of one
#: painting), four within 8, the first that have nothing in common among them.
MAX_DISTANCE = 6
#: Grey levels. Below, the hash of a flat image is noise: black, white and fog would all be one.
MIN_CONTRAST = 2.0
SIDE = 32  # what the hash looks at, and the size of small images
#: Correlations from which two small images are near-duplicates, measured on the 100,000 of CIFAKE's
#: training set. No photograph is a copy of a generated image, so their 2.5 billion pairs show how
#: often chance alone reaches them: 16 times (18 mirrored), seascapes most of them. Of the pairs of
#: photographs, half as many, 519 (69) do, and every pair shares its class. Of 2,000 photographs,
#: all were joined with copies made brighter, darker, saved as JPEG 50 or scaled to 24x24 and back,
#: 85 % with one cropped by a pixel on each side, 76 % with one in grey, hardly any cropped by two.
MIN_LAYOUT = 0.95
MIN_DETAIL = 0.8
_COARSE, _FINE = 8, 16  # sides of the thumbnails that are compared
_BLOCK = 512  # hashes compared at once: 5,063 sources squared would be 200 MB
_TILE = (1024, 16384)  # rows and columns that are correlated at once: 64 MB
_SHOWN = 20  # groups in the log


@dataclass(frozen=True)
class DuplicatePair:
    """Two sources that look alike, by their ``source_id``, in the order of the table."""

    first: Hashable
    second: Hashable
    identical: bool  # they share a file by sha256; else their perceptual hashes are close
    distance: int  # bits in which the hashes differ, 0 for identical files


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
        Threads that decode images.

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
    found = find_near_duplicates(manifest, max_distance, n_jobs=n_jobs)
    if not found:
        return manifest.copy()
    sources = manifest["source_id"].unique().tolist()
    number = {source: i for i, source in enumerate(sources)}
    pairs = np.array([(number[pair.first], number[pair.second]) for pair in found], dtype=int)
    groups = pd.Series(sources, dtype=object).groupby(_components(len(sources), pairs))
    names = dict(zip(sources, groups.transform("first"), strict=True))
    several = [", ".join(map(str, group)) for _, group in groups if len(group) > 1]
    if several:
        logger.info(
            "merged %d near-duplicate sources into %d: %s",
            sum(groups.size()[groups.size() > 1]),
            len(several),
            "; ".join(several[:_SHOWN]) + ("; ..." if len(several) > _SHOWN else ""),
        )
    return manifest.assign(source_id=[names[source] for source in manifest["source_id"]])


def find_near_duplicates(
    manifest: pd.DataFrame, max_distance: int = MAX_DISTANCE, *, n_jobs: int | None = None
) -> list[DuplicatePair]:
    """Find the sources that `merge_near_duplicates` would join, pair by pair.

    Returns
    -------
    list of DuplicatePair
        Identical ones first. Not transitive; a pair that is identical is not listed as near too.

    Raises
    ------
    ValueError, ImageError
        As in `merge_near_duplicates`.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance must lie between 0 and 64 bits, got {max_distance!r}.")
    if manifest.empty:
        return []
    sources = manifest["source_id"].unique().tolist()
    jobs = (delayed(perceptual_hash)(path) for path in pick_paths(manifest))
    hashes, usable = zip(*Parallel(n_jobs=n_jobs, prefer="threads")(jobs), strict=True)
    identical = _identical_pairs(manifest)
    near = _near_pairs(np.array(hashes, dtype=np.uint64), np.array(usable), max_distance)
    return [
        *(DuplicatePair(sources[i], sources[j], True, 0) for i, j in sorted(identical)),
        *(
            DuplicatePair(sources[i], sources[j], False, distance)
            for i, j, distance in sorted(near)
            if (i, j) not in identical
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
    small = grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS)  # as imagehash itself would
    bits = np.packbits(imagehash.phash(small).hash)
    return int.from_bytes(bits.tobytes(), "big"), bool(np.std(np.asarray(small)) >= MIN_CONTRAST)


def pick_paths(manifest: pd.DataFrame) -> list[str]:
    """Return the file that stands for each source, in their order: an original if there is one."""
    by_source = manifest.sort_values("label", kind="stable").drop_duplicates("source_id")
    paths = by_source.set_index("source_id")["path"]
    return paths[manifest["source_id"].unique()].astype(str).tolist()


def group_near_duplicates(
    images: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Give small images that show the same one group, so that no split can separate them.

    Two images are near-duplicates when their 8x8 thumbnails, or one and the mirror image of the
    other, correlate at least `MIN_LAYOUT` (each colour less its mean), and what a 16x16 thumbnail
    adds to them at least `MIN_DETAIL`. That forgives another brightness, contrast or compression,
    not a tighter crop. Joining is transitive. Every pair is compared: 100,000 images take a
    minute or two on two cores.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, 32, 32, 3)
    groups : ndarray of shape (N,) or None
        Groups to widen. Images with the same pixels share one in any case.
    labels : ndarray of shape (N,) or None
        If given, only images with the same label are compared.

    Returns
    -------
    ndarray of int64, shape (N,)
        Groups, numbered from 0 by first appearance.

    Raises
    ------
    ValueError
        If a shape or a dtype is not as above.
    """
    _check_pixels(images, groups, labels)
    identical = group_identical(images)
    layout = _layout(images)
    pairs = [_ties(identical), *([] if groups is None else [_ties(groups)])]
    for label in [None] if labels is None else np.unique(labels):
        compared = np.flatnonzero(np.ones(len(images)) if labels is None else labels == label)
        chosen = compared[np.unique(identical[compared], return_index=True)[1]]
        for mirror in (False, True):
            near = _alike(images, layout, chosen, mirror)
            logger.info("label %s: %d near-duplicate pairs, mirrored %s", label, len(near), mirror)
            pairs.append(near)
    return pd.factorize(_components(len(images), np.concatenate(pairs)))[0].astype(np.int64)


def group_identical(images: np.ndarray) -> np.ndarray:
    """Give images with the same pixels one group, numbered from 0 by first appearance."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    return pd.factorize(np.array(digests))[0].astype(np.int64)


def _components(n_items: int, pairs: np.ndarray) -> np.ndarray:
    """Number the connected components of a graph whose edges are pairs of positions."""
    ends = pairs.reshape(-1, 2)
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n_items, n_items))
    return connected_components(links, directed=False)[1]


def _near_pairs(
    hashes: np.ndarray, usable: np.ndarray, max_distance: int
) -> Iterator[tuple[int, int, int]]:
    """Yield the positions and the distance of hashes that are close."""
    positions = np.flatnonzero(usable)
    kept = hashes[positions]
    for start in range(0, len(kept), _BLOCK):
        block = kept[start : start + _BLOCK]
        distance = np.bitwise_count(block[:, None] ^ kept[None, start:])
        for i, j in np.argwhere(distance <= max_distance):
            if i < j:
                pair = positions[start + i], positions[start + j]
                yield int(pair[0]), int(pair[1]), int(distance[i, j])


def _identical_pairs(manifest: pd.DataFrame) -> set[tuple[int, int]]:
    """Return the numbers of sources that share a file, in the order of their appearance."""
    number = pd.Series(pd.factorize(manifest["source_id"])[0])
    first = number.groupby(manifest["sha256"].to_numpy()).transform("first")
    shared = first.notna() & (first != number)
    pairs = zip(first[shared].astype(int), number[shared], strict=True)
    return {(min(pair), max(pair)) for pair in pairs}


def _check_pixels(images: np.ndarray, groups: np.ndarray | None, labels: np.ndarray | None) -> None:
    if images.dtype != np.uint8 or images.shape != (len(images) or 1, SIDE, SIDE, 3):
        raise ValueError(
            f"images must be uint8 of shape (N, {SIDE}, {SIDE}, 3) with N at least 1, got "
            f"{images.dtype} of shape {images.shape}. Read them with read_cifake."
        )
    for name, values in (("groups", groups), ("labels", labels)):
        if values is not None and values.shape != images.shape[:1]:
            raise ValueError(f"{name} must have one value an image, got {values.shape}.")


def _alike(images: np.ndarray, layout: np.ndarray, chosen: np.ndarray, mirror: bool) -> np.ndarray:
    """Return the pairs of positions, shape (M, 2), whose small images are near-duplicates."""
    step = -1 if mirror else 1
    one = layout[chosen].reshape(len(chosen), -1)
    other = layout[chosen][:, :, ::step].reshape(one.shape)
    rows, columns = _TILE
    found = [np.empty((0, 2), dtype=np.int64)]
    for top in tqdm(range(0, len(chosen), rows), "pairs", disable=None):
        for left in range(top, len(chosen), columns):
            product = one[top : top + rows] @ other[left : left + columns].T
            i, j = np.nonzero(product >= MIN_LAYOUT)
            upper = i + top < j + left
            i, j = chosen[i[upper] + top], chosen[j[upper] + left]
            detail = (_detail(images[i]) * _detail(images[j][:, :, ::step])).sum((1, 2, 3))
            found.append(np.stack([i, j], 1)[detail >= MIN_DETAIL])
    return np.concatenate(found)


def _ties(groups: np.ndarray) -> np.ndarray:
    """Pair each image with the first of its group."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return np.stack([np.arange(len(groups)), first[group]], 1)


def _shrink(images: np.ndarray, side: int) -> np.ndarray:
    step = SIDE // side
    blocks = images.reshape(-1, side, step, side, step, 3)
    return blocks.mean((2, 4), dtype=np.float32)


def _layout(images: np.ndarray) -> np.ndarray:
    small = _shrink(images, _COARSE)
    small -= small.mean((1, 2), keepdims=True)
    return _scale(small)


def _detail(images: np.ndarray) -> np.ndarray:
    step = _FINE // _COARSE
    coarse = _shrink(images, _COARSE).repeat(step, axis=1).repeat(step, axis=2)
    return _scale(_shrink(images, _FINE) - coarse)


def _scale(values: np.ndarray) -> np.ndarray:
    """Scale each item to length 1, so that products are correlations; without contrast to 0."""
    length = np.sqrt(np.einsum("nhwc,nhwc->n", values, values))
    enough = length >= MIN_CONTRAST * math.sqrt(math.prod(values.shape[1:]))
    factor = np.divide(1, length, out=np.zeros_like(length), where=enough)
    return values * factor[:, None, None, None]
