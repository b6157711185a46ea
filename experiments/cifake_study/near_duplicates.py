"""Which images of 32x32 pixels show the same: perceptual hashes need more pixels than that."""

import logging
import math

import numpy as np
import pandas as pd
from tqdm import tqdm

from cnnsvm.data.near_duplicates import join_pairs
from cnnsvm.data.readers.cifake import SIDE, group_identical

logger = logging.getLogger(__name__)

#: Correlations from which two small images are near-duplicates, measured on the 100,000 of CIFAKE's
#: training set. No photograph is a copy of a generated image, so their 2.5 billion pairs show how
#: often chance alone reaches them: 16 times (18 mirrored), seascapes most of them. Of the pairs of
#: photographs, half as many, 519 (69) do, and every pair shares its class. Of 2,000 photographs,
#: all were joined with copies made brighter, darker, saved as JPEG 50 or scaled to 24x24 and back,
#: 85 % with one cropped by a pixel on each side, 76 % with one in grey, hardly any cropped by two.
MIN_LAYOUT = 0.95
MIN_DETAIL = 0.8
_COARSE, _FINE = 8, 16  # sides of the thumbnails that are compared
MIN_CONTRAST = 2.0  # grey levels; below, a correlation is one of noise
_TILE = (1024, 16384)  # rows and columns that are correlated at once: 64 MB


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
    return pd.factorize(join_pairs(len(images), np.concatenate(pairs)))[0].astype(np.int64)


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
