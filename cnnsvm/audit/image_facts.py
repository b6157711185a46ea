"""What files tell one by one: their headers, their pixels, and what a mask covers."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from cnnsvm.data.images import ImageError, load_image, read_header

#: What `describe_pixels` measures -> what it is.
PIXEL_FEATURES = {
    "brightness": "mean luma, 0-255",
    "contrast": "standard deviation of luma",
    "colourfulness": "measure of Hasler and Süsstrunk",
    "detail": "mean difference of neighbours in a row, in levels of luma",
}
_GRID = 64  # side of a mean mask
_STATS_PIXELS = 2**20  # enough for a mean; 36 megapixels of floats would be 144 MB


def measure_files(
    describe: Callable[[str], dict[str, Any]],
    paths: pd.Series,
    columns: Sequence[str],
    unit: str,
    *,
    n_jobs: int | None,
    hide: bool | None,
) -> pd.DataFrame:
    """Describe files on threads.

    Parameters
    ----------
    describe : callable
        Maps a path to a dict, or raises an ImageError.
    paths : Series of str
    columns : sequence of str
        Keys of that dict.
    unit : str
        What the progress bar counts.
    n_jobs : int or None
        Threads; None takes one a core.
    hide : bool or None
        Whether to hide progress; None hides it unless standard error is a terminal.

    Returns
    -------
    DataFrame
        A row a path, indexed as ``paths``: ``columns``, and ``problem``, None or why it failed.
    """
    jobs = (delayed(_try)(describe, path) for path in paths)
    found = Parallel(n_jobs=n_jobs or -1, prefer="threads", return_as="generator")(jobs)
    shown = tqdm(found, total=len(paths), unit=f" {unit}", disable=hide)
    return pd.DataFrame(list(shown), index=paths.index, columns=[*columns, "problem"])


def describe_header(path: str) -> dict[str, Any]:
    """Read what a file tells without its pixels.

    Returns
    -------
    dict
        ``width``, ``height`` (upright), ``format``, ``bytes``, and the ``quality`` of a JPEG
        (None otherwise), see `estimate_quality`.

    Raises
    ------
    ImageError
        If there is no such file, or its header is not that of an image.
    """
    header = read_header(path)
    width, height = header.upright_size
    luma = header.quantization.get(0)
    return {
        "width": width,
        "height": height,
        "format": header.format,
        "bytes": header.n_bytes,
        "quality": estimate_quality(luma) if luma else None,
    }


def estimate_quality(table: Iterable[int]) -> int:
    """Find the quality (1-100) of libjpeg whose luma quantisation table is nearest.

    Photoshop and many cameras have tables of their own: there it is the nearest and no more.

    Parameters
    ----------
    table : 64 int
        In the order of ``PIL.JpegImagePlugin.JpegImageFile.quantization``.
    """
    distance = np.abs(_standard_tables() - np.fromiter(table, float)).sum(axis=1)
    return int(distance.argmin()) + 1


def describe_pixels(path: str) -> dict[str, float]:
    """Measure the columns of ``PIXEL_FEATURES`` on evenly spaced rows of an image.

    References
    ----------
    Hasler and Süsstrunk, "Measuring colourfulness in natural images", SPIE 5007, 2003 (M3).
    """
    pixels = load_image(path)
    # whole rows, so that neighbours are neighbours in the file
    rows = pixels[:: max(pixels.shape[0] * pixels.shape[1] // _STATS_PIXELS, 1)].astype(np.float32)
    red, green, blue = np.moveaxis(rows, 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    offset = np.hypot(red_green.mean(), yellow_blue.mean())
    steps = np.abs(np.diff(luma, axis=1))
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "colourfulness": float(spread + 0.3 * offset),
        "detail": float(steps.mean()) if steps.size else float("nan"),
    }


def describe_mask(path: str) -> dict[str, Any]:
    """Measure the share of a mask that is white, and shrink it to 64x64 shares of white."""
    white = load_image(path)[:, :, 0] >= 128
    levels = Image.fromarray(white.view(np.uint8) * 255)
    small = levels.resize((_GRID, _GRID), Image.Resampling.BOX)
    return {"coverage": float(white.mean()), "grid": np.asarray(small, dtype=np.float32) / 255}


def _try(describe: Callable[[str], dict[str, Any]], path: str) -> dict[str, Any]:
    try:
        return {**describe(path), "problem": None}
    except ImageError as error:
        return {"problem": str(error).removeprefix(f"{path}: ")}


@lru_cache(maxsize=1)
def _standard_tables() -> np.ndarray:
    tables = []
    for quality in range(1, 101):
        buffer = BytesIO()
        Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        tables.append(read_header(buffer.getvalue()).quantization[0])
    return np.array(tables, dtype=float)
