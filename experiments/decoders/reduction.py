"""Reduced copies of originals: sources whose past JPEG compression shows less.

Most originals had been JPEGs. A generator that repaints them removes the 8x8 grid of that, and a
detector trained on such records learns to look for the grid. A copy reduced by an odd factor keeps
what the image shows and loses most of the grid, so that only the generator's trace is left.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.data.encoding import write_image
from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import make_manifest, make_row

#: Range of the factor; about 1 or a half would leave a grid of whole pixels.
FACTORS = (0.55, 0.9)
MIN_SIDE, MAX_SIDE = 136, 448
_KERNELS = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)


def write_reduced(
    paths: Sequence[str | os.PathLike[str]],
    source_ids: Sequence[str],
    folder: str | os.PathLike[str],
    *,
    random_state: int = 0,
) -> pd.DataFrame:
    """Write a reduced copy of each original as PNG.

    Parameters
    ----------
    paths : sequence of paths
    source_ids : sequence of str
        The copy of a source belongs to the same source.
    folder : path
        Files that are there already are kept.
    random_state : int
        Factors and kernels follow from it and the content of each original.

    Returns
    -------
    DataFrame
        A manifest of the copies, in the order of ``paths``. Each is at least 136 pixels a side
        unless its original is smaller, and the middle 448 pixels of longer sides are kept.
    """
    target = Path(folder)
    rows = []
    for path, source_id in zip(paths, source_ids, strict=True):
        pixels = load_image(path)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        file = (
            target / f"{Path(path).parent.name}-{Path(path).stem}-{digest[:12]}-{random_state}.png"
        )
        if not file.is_file():
            rng = np.random.default_rng([random_state, int(digest[:12], 16)])
            write_image(file, reduce(pixels, rng), "PNG")
        rows.append(make_row(file, 0, source_id, variant="original"))
    return make_manifest(rows)


def reduce(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reduce an image by a random factor and kernel, and cut its middle out.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    rng : numpy Generator

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
    """
    factor = max(float(rng.uniform(*FACTORS)), min(1.0, MIN_SIDE / min(image.shape[:2])))
    kernel = _KERNELS[int(rng.integers(len(_KERNELS)))]
    width, height = (max(1, round(side * factor)) for side in image.shape[1::-1])
    small = np.asarray(Image.fromarray(image).resize((width, height), kernel))
    top, left = (max(0, (side - MAX_SIDE) // 2) for side in (height, width))
    return small[top : top + MAX_SIDE, left : left + MAX_SIDE]
