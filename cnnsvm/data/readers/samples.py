"""Real images that need no download: they ship inside packages that this project installs.

The photographs and micrographs are those of scikit-image, scikit-learn and matplotlib; each
package documents the licence of its own. They are cut at their native resolution, because a
resize would destroy the traces that this project looks for.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from cnnsvm.data.encoding import write_image
from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import (
    DatasetError,
    MissingDataError,
    make_manifest,
    make_row,
    write_manifest,
)

#: Distribution, package and folder below it -> files.
_FILES = {
    ("scikit-image", "skimage", "data"): (
        *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png"),
        *("clock_motion.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
        *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
        *("motorcycle_right.png", "retina.jpg", "rocket.jpg"),
    ),
    ("scikit-learn", "sklearn", "datasets/images"): ("china.jpg", "flower.jpg"),
    ("matplotlib", "matplotlib", "mpl-data/sample_data"): ("grace_hopper.jpg",),
}
#: A stereo pair is one scene: its two views share a parent.
_PARENTS = {"motorcycle_left": "motorcycle", "motorcycle_right": "motorcycle"}


def write_samples(
    folder: str | os.PathLike[str], size: int = 256, max_tiles: int = 6
) -> pd.DataFrame:
    """Write the embedded sample images as lossless tiles, with a manifest beside them.

    Tiles of one photograph do not overlap but share texture, light and camera, so the group
    (``source_id``) of a tile is its photograph. The ``manifest.csv`` says so to whoever opens
    the folder later. Files that are there already and hold the right pixels are left alone.

    Parameters
    ----------
    folder : path
        Where ``<parent>_<k>.png`` and ``manifest.csv`` go; made if needed. Use one folder for
        one ``size``.
    size : int
        Side of the square tiles in pixels; images smaller than that are left out.
    max_tiles : int
        Most tiles of one photograph; those nearest to the middle are taken.

    Returns
    -------
    DataFrame
        Manifest with absolute paths, all label 0. The defaults give 63 tiles of 19 photographs.

    Raises
    ------
    MissingDataError
        If an installed package lacks one of its sample images.
    DatasetError
        If ``size`` or ``max_tiles`` is below 1, or no image is as large as ``size``.
    """
    if size < 1 or max_tiles < 1:
        raise DatasetError(
            f"size and max_tiles must be at least 1, got size={size!r}, max_tiles={max_tiles!r}."
        )
    parents: dict[str, list[Path]] = {}
    for (distribution, package, below), names in _FILES.items():
        for name in names:  # all of them, before anything is written
            stem = Path(name).stem
            path = _find_sample(distribution, package, f"{below}/{name}")
            parents.setdefault(_PARENTS.get(stem, stem), []).append(path)
    target, rows = Path(folder), []
    for parent, files in parents.items():
        for k, tile in enumerate(_central_tiles(files, size, max_tiles)):
            path = target / f"{parent}_{k}.png"
            _write_png(path, tile)
            rows.append(make_row(path, 0, parent))
    if not rows:
        raise DatasetError(f"no sample image is {size} pixels wide and high. Lower size.")
    manifest = make_manifest(rows)
    write_manifest(manifest, target / "manifest.csv")
    return manifest


def _find_sample(distribution: str, package: str, name: str) -> Path:
    spec = find_spec(package)  # finds the folder without running the package, let alone a download
    roots = spec.submodule_search_locations if spec else None
    for root in roots or []:
        path = Path(root) / name
        if path.is_file():
            return path
    raise MissingDataError(
        f"{name}: no such sample image in the installed {distribution}. It ships inside the "
        f"package: reinstall it with 'pip install --force-reinstall {distribution}'."
    )


def _central_tiles(files: list[Path], size: int, max_tiles: int) -> list[np.ndarray]:
    tiles = [tile for file in files for tile in _tiles(load_image(file), size)]
    # Middle first: the rim of a photograph of a retina or through a lens may hold nothing.
    tiles.sort(key=lambda item: item[0])
    return [pixels for _, pixels in tiles[:max_tiles]]


def _tiles(pixels: np.ndarray, size: int) -> Iterator[tuple[float, np.ndarray]]:
    """Cut a grid of tiles around the middle; yield each one's squared distance from it too."""
    height, width = pixels.shape[:2]
    n_rows, n_columns = height // size, width // size
    first_y, first_x = (height - n_rows * size) // 2, (width - n_columns * size) // 2
    for row in range(n_rows):
        for column in range(n_columns):
            y, x = first_y + row * size, first_x + column * size
            distance = (row - (n_rows - 1) / 2) ** 2 + (column - (n_columns - 1) / 2) ** 2
            yield distance, pixels[y : y + size, x : x + size]


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with suppress(ImageError):  # missing, or damaged
        if np.array_equal(load_image(path), pixels):
            return
    write_image(path, np.ascontiguousarray(pixels), "PNG")
