"""Training overlap: whether a detector was trained on an image, by perceptual hashes."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed

from cnnsvm.data.images import as_image_list
from cnnsvm.data.near_duplicates import MAX_DISTANCE, perceptual_hash
from cnnsvm.features.saved import saved_folder
from cnnsvm.io.bundle import read_bundle

if TYPE_CHECKING:
    from cnnsvm.detection.detector import InpaintDetector

_BLOCK = 1024


def hash_training_images(images: Sequence[Any], embedders: Sequence[Any]) -> np.ndarray:
    """Hash what a detector is trained on, and add what its initial weights were trained on.

    Returns uint64, sorted and different.
    """
    found = [hash_images(images)]
    found += [e.trained_on_ for e in embedders if getattr(e, "trained_on_", None) is not None]
    return np.unique(np.concatenate(found))


def hash_images(images: Any) -> np.ndarray:
    """Hash what images look like, given as for `InpaintDetector.fit`, also as a manifest.

    Returns uint64, sorted and different (`cnnsvm.data.near_duplicates.perceptual_hash`). Images
    without contrast have none. An ImageError says that an image cannot be read.
    """
    hashes, usable = _hash(images, None)
    return np.unique(hashes[usable])


def find_training_images(
    trained: "InpaintDetector | str | os.PathLike[str]",
    images: Any,
    max_distance: int = MAX_DISTANCE,
    *,
    n_jobs: int | None = None,
) -> list[tuple[int, int]]:
    """Find the images that a detector was trained on, or near-duplicates of which it was.

    A number on those is not a result. Copies that were resized or recompressed are found; those
    that were mirrored, rotated or cropped by more than a little are not, and neither are images
    without contrast.

    Parameters
    ----------
    trained : InpaintDetector or path
        A loaded detector, the folder of one, or the name of one that ships.
    images : as for `InpaintDetector.fit`, also a manifest
    max_distance : int, 0-64
        Bits of 64 in which the perceptual hashes may differ.
    n_jobs : int or None
        Threads that decode images; None means 1, -1 one a core.

    Returns
    -------
    list of (index, distance)
        Position of each such image, and the bits to the nearest training image.

    Raises
    ------
    BundleError
        If the folder cannot be read.
    ValueError
        If ``max_distance`` is not between 0 and 64.
    ImageError
        If an image cannot be read.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance must lie between 0 and 64 bits, got {max_distance!r}.")
    known = training_hashes(trained)
    return find_near(known, images, max_distance, n_jobs=n_jobs)


def training_hashes(trained: "InpaintDetector | str | os.PathLike[str]") -> np.ndarray:
    """Return the hashes of what a detector was trained on, uint64.

    It is a loaded one, or named by its folder or as one that ships.
    """
    if isinstance(trained, str | os.PathLike):
        return read_bundle(saved_folder(trained))[1]["trained_on"]["hashes"]
    return trained.trained_on_


def find_near(
    known: np.ndarray, images: Any, max_distance: int = MAX_DISTANCE, *, n_jobs: int | None = None
) -> list[tuple[int, int]]:
    """Find the images that are near-duplicates of those of some hashes (see `hash_images`).

    The rest is as for `find_training_images`, and so is what is returned.
    """
    hashes, usable = _hash(images, n_jobs)
    if len(known) == 0 or len(hashes) == 0:
        return []
    distances = _nearest(hashes, known)
    found = np.flatnonzero(usable & (distances <= max_distance))
    return [(int(i), int(distances[i])) for i in found]


def _nearest(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the bits from each hash to the nearest known one, in blocks of bounded memory."""
    nearest = np.full(len(hashes), 64, dtype=np.uint8)
    for start in range(0, len(known), _BLOCK):
        for rows in range(0, len(hashes), _BLOCK):
            part = hashes[rows : rows + _BLOCK, None] ^ known[None, start : start + _BLOCK]
            closest = np.bitwise_count(part).min(axis=1)
            nearest[rows : rows + _BLOCK] = np.minimum(nearest[rows : rows + _BLOCK], closest)
    return nearest


def _hash(images: Any, n_jobs: int | None) -> tuple[np.ndarray, np.ndarray]:
    found = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_hash_one)(image) for image in as_image_list(images)
    )
    hashes = np.array([value for value, _ in found], dtype=np.uint64)
    return hashes, np.array([usable for _, usable in found], dtype=bool)


def _hash_one(image: Any) -> tuple[int, bool]:
    if isinstance(image, str | os.PathLike) and os.path.isfile(image):
        status = os.stat(image)
        return _hash_file(os.fspath(image), status.st_size, status.st_mtime_ns)
    return perceptual_hash(image)


@lru_cache(maxsize=2**17)  # the folds of a cross-validation share their images
def _hash_file(path: str, size: int, mtime_ns: int) -> tuple[int, bool]:
    return perceptual_hash(path)
