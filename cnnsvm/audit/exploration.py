"""What a data set holds, before anything is fitted: the numbers of the exploratory report.

Headers are read of every image and mask, pixels of a seeded sample of whole sources only.
Whatever cannot be read is listed and never stops the rest.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache, partial
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from cnnsvm.audit.anomalies import (
    CHECKS,
    UNSTATED,
    Anomaly,
    file_anomalies,
    list_anomalies,
    mask_anomalies,
    readable,
    source_anomalies,
)
from cnnsvm.audit.check import on_threads
from cnnsvm.audit.headers import describe_header
from cnnsvm.data.images import ImageError, load_image, read_header
from cnnsvm.io.progress import show_progress
from cnnsvm.localization.masks import load_mask

#: Compared between the classes: column -> what it is.
FILE_FEATURES = {
    "width": "width in pixels",
    "height": "height in pixels",
    "aspect": "width / height",
    "bits_a_pixel": "length of the file by its pixels",
    "quality": "JPEG quality whose table is nearest",
}
#: What `describe_pixels` measures -> what it is.
PIXEL_FEATURES = {
    "brightness": "mean luma, 0-255",
    "contrast": "standard deviation of luma",
    "colourfulness": "measure of Hasler and Süsstrunk",
    "detail": "mean difference of neighbours in a row, in levels of luma",
}
_HEADER = ["width", "height", "format", "bytes", "bits_a_pixel", "quality"]
_TEXT = ("path", "source_id", "variant", "engine", "mask_schema", "mask_path", "split", "sha256")
_GRID = 64  # side of a mean mask
_STATS_PIXELS = 2**20  # enough for a mean; 36 megapixels of floats would be 144 MB

#: Describes each of some paths: a table with the columns of a description and ``problem``.
Measure = Callable[[Callable[[str], dict[str, Any]], pd.Series, list[str], str], pd.DataFrame]


def explore(
    manifest: pd.DataFrame,
    *,
    max_images: int = 1000,
    max_megapixels: float = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Count, measure and sample a data set.

    Parameters
    ----------
    manifest : DataFrame with absolute paths
        Unchecked: bad rows, files and masks are listed. ``attrs["skipped"]`` is listed too.
    max_images, max_megapixels : int, float
        Most to decode: whole sources, in seeded order, while both limits hold, and one at least.
    random_state : int
        Seed of the sample.
    n_jobs : int or None
        Threads; None means 1, -1 one a core.
    progress : bool
        Show progress on standard error if that is a terminal.

    Returns
    -------
    dict
        ``n_images``, ``n_sources``, ``n_real``, ``n_fake``; ``fakes_a_source``, number of fakes
        -> number of sources; ``balance``, a table of ``real``, ``fake`` and ``sources`` by split;
        ``kinds``, a table of ``images`` and ``sources`` by variant, engine and mask schema of the
        fakes; ``files``, the rows of readable images with ``bytes``, ``megapixels`` and
        ``FILE_FEATURES``; ``sample``, its ``n_images`` and ``n_sources``; ``pixels``, its rows with
        ``PIXEL_FEATURES``; ``masks``, a row a mask with its ``coverage`` in [0, 1];
        ``mean_masks``, schema -> float (64, 64), stretched to a square; ``separation``, feature ->
        medians ``real`` and ``fake``, ``roc_auc``, ``gap`` (the Kolmogorov-Smirnov distance) and
        ``chance`` (what it exceeds in one of 20 draws of so many images from one distribution);
        ``anomalies``, dicts of ``check`` (out of ``CHECKS``), ``path``, ``source_id``, ``reason``.

    Raises
    ------
    ValueError
        If a limit is not positive, or no row can be used.
    """
    if max_images < 1 or max_megapixels <= 0:
        limits = f"{max_images!r} and {max_megapixels!r}"
        raise ValueError(f"max_images must be at least 1, max_megapixels positive, got {limits}.")
    measure = partial(_measure, n_jobs=n_jobs, progress=progress)
    rows, anomalies = _usable_rows(manifest)
    files, masks = _read_headers(rows, anomalies, measure)
    anomalies += [*file_anomalies(files), *source_anomalies(rows), *mask_anomalies(files, masks)]
    sample = choose_sample(files, max_images, max_megapixels, random_state)
    pixels = measure(describe_pixels, sample["path"], list(PIXEL_FEATURES), "images")
    pixels = readable("unreadable images", sample.join(pixels), anomalies)
    sampled = masks[masks["path"].isin(sample["path"])]
    coverage, mean_masks = _decode_masks(sampled, anomalies, measure)
    order = list(CHECKS)
    return {
        **_count(rows),
        "files": files,
        "sample": {"n_images": len(sample), "n_sources": sample["source_id"].nunique()},
        "pixels": pixels,
        "masks": coverage,
        "mean_masks": mean_masks,
        "separation": _separate(files, FILE_FEATURES) | _separate(pixels, PIXEL_FEATURES),
        "anomalies": sorted(anomalies, key=lambda entry: order.index(entry["check"])),
    }


def choose_sample(
    files: pd.DataFrame, max_images: int, max_megapixels: float, random_state: int
) -> pd.DataFrame:
    """Take whole sources in seeded order while both limits hold, and one source at least.

    Of a first source that is too large by itself the first ``max_images`` rows are taken.
    """
    rng = np.random.default_rng(random_state)
    sizes = files.groupby("source_id")["megapixels"].agg(["size", "sum"])
    total = sizes.iloc[rng.permutation(len(sizes))].cumsum()
    within = (total["size"] <= max_images) & (total["sum"] <= max_megapixels)
    names = total.index[: max(int(within.sum()), 1)]
    return files[files["source_id"].isin(names)].head(max_images)


def describe_file(path: str) -> dict[str, Any]:
    """Describe a header as an audit does, with its length in ``bytes`` and a JPEG's ``quality``."""
    header = read_header(path)
    luma = header.quantization.get(0)
    quality = None if luma is None else estimate_quality(luma)
    return {**describe_header(path), "bytes": header.n_bytes or 0, "quality": quality}


def estimate_quality(table: Iterable[int]) -> int:
    """Find the quality (1-100) of libjpeg whose luma quantisation table, 64 int, is nearest.

    Photoshop and many cameras have tables of their own: there it is the nearest and no more.
    """
    distance = np.abs(_standard_tables() - np.fromiter(table, float)).sum(axis=1)
    return int(distance.argmin()) + 1


@lru_cache(maxsize=1)
def _standard_tables() -> np.ndarray:
    tables = []
    for quality in range(1, 101):
        buffer = BytesIO()
        Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        tables.append(read_header(buffer.getvalue()).quantization[0])
    return np.array(tables, dtype=float)


def describe_pixels(path: str) -> dict[str, float]:
    """Measure ``PIXEL_FEATURES`` on evenly spaced rows of an image.

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
    white = load_mask(path)
    levels = Image.fromarray(white.view(np.uint8) * 255)
    small = levels.resize((_GRID, _GRID), Image.Resampling.BOX)
    return {"coverage": float(white.mean()), "grid": np.asarray(small, dtype=np.float32) / 255}


def _measure(
    describe: Callable[[str], dict[str, Any]],
    paths: pd.Series,
    columns: list[str],
    what: str,
    *,
    n_jobs: int | None,
    progress: bool,
) -> pd.DataFrame:
    """Describe files on threads; ``problem`` is None, or why a file could not be described."""
    described = on_threads(partial(_try, describe), paths, n_jobs)
    found = show_progress(described, len(paths), what, progress)
    return pd.DataFrame(list(found), index=paths.index, columns=[*columns, "problem"])


def _try(describe: Callable[[str], dict[str, Any]], path: str) -> dict[str, Any]:
    try:
        return {**describe(path), "problem": None}
    except ImageError as error:
        return {"problem": str(error).removeprefix("mask ").removeprefix(f"{path}: ")}


def _usable_rows(manifest: pd.DataFrame) -> tuple[pd.DataFrame, list[Anomaly]]:
    """Keep the rows that have a label, a path and a source; name what is not stated of fakes."""
    # columns of one's own may have the names of what is found out here
    known = [column for column in ("label", "record", *_TEXT) if column in manifest]
    rows = manifest[known].reset_index(drop=True)
    for column in _TEXT:
        values = rows[column] if column in rows else [None] * len(rows)
        rows[column] = pd.Series([None if pd.isna(v) else str(v) for v in values], dtype=object)
    rows["record"] = rows.get("record", rows["source_id"]).fillna(rows["source_id"])
    good = rows["label"].isin([0, 1]) & rows["path"].notna() & rows["source_id"].notna()
    bad = rows[~good]
    texts = [f"row {i + 1}, label {v!r}" for i, v in zip(bad.index, bad["label"], strict=True)]
    anomalies = list_anomalies("unusable rows", bad, texts)
    for entry in manifest.attrs.get("skipped", []):
        reason = str(entry["reason"]).removeprefix(f"{entry['path']}: ")
        where = {"path": str(entry["path"]), "source_id": ""}
        anomalies.append({"check": "left out on reading", **where, "reason": reason})
    if not good.any():
        raise ValueError(
            f"none of {len(manifest)} rows can be used. Give each a label (0 or 1), a path and a "
            "source_id."
        )
    rows = rows[good].astype({"label": int})
    for column in ("variant", "engine", "mask_schema"):
        rows.loc[rows["label"].eq(1) & rows[column].isna(), column] = UNSTATED
    return rows, anomalies


def _count(rows: pd.DataFrame) -> dict[str, Any]:
    fake = rows["label"] == 1
    parts: dict[Hashable, pd.DataFrame] = {"all": rows, **dict(iter(rows.groupby("split")))}
    balance = [
        (*((part["label"] == label).sum() for label in (0, 1)), part["source_id"].nunique())
        for part in parts.values()
    ]
    kinds = rows[fake].groupby(["variant", "engine", "mask_schema"])["source_id"]
    return {
        "n_images": len(rows),
        "n_sources": rows["source_id"].nunique(),
        "n_real": int((~fake).sum()),
        "n_fake": int(fake.sum()),
        "fakes_a_source": dict(sorted(Counter(rows.groupby("source_id")["label"].sum()).items())),
        "balance": pd.DataFrame(balance, list(parts), ["real", "fake", "sources"]),
        "kinds": kinds.agg(images="size", sources="nunique").reset_index(),
    }


def _read_headers(
    rows: pd.DataFrame, anomalies: list[Anomaly], measure: Measure
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the readable images, and those of them that are fakes with a readable mask."""
    files = rows.join(measure(describe_file, rows["path"], _HEADER, "images"))
    files = readable("unreadable images", files, anomalies)
    if files.empty:
        reason = anomalies[-1]["reason"]
        raise ImageError(f"none of {len(rows)} images can be read; the first: {reason}")
    files = files.astype({"width": int, "height": int, "bytes": int, "quality": float})
    files["megapixels"] = files["width"] * files["height"] / 1e6
    files["aspect"] = files["width"] / files["height"]
    masks = files[files["label"].eq(1) & files["mask_path"].notna()]
    headers = measure(describe_file, masks["mask_path"], _HEADER, "masks").add_prefix("mask_")
    masks = masks.join(headers.rename(columns={"mask_problem": "problem"}))
    return files, readable("unreadable masks", masks, anomalies, "mask_path")


def _decode_masks(
    masks: pd.DataFrame, anomalies: list[Anomaly], measure: Measure
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the coverage of each mask, and where the masks of a schema lie."""
    once = masks.drop_duplicates("mask_path")[["mask_path", "mask_schema", "source_id"]]
    found = once.join(measure(describe_mask, once["mask_path"], ["coverage", "grid"], "masks"))
    found = readable("unreadable masks", found, anomalies, "mask_path")
    blank = found[found["coverage"].isin([0, 1])]
    texts = ["all white" if coverage else "all black" for coverage in blank["coverage"]]
    anomalies += list_anomalies("blank masks", blank, texts, "mask_path")
    schemas = found.groupby("mask_schema")["grid"]
    means = {str(name): np.mean(np.stack(list(grids)), axis=0) for name, grids in schemas}
    return found.drop(columns="grid"), means


def _separate(table: pd.DataFrame, features: Iterable[str]) -> dict[str, dict[str, float]]:
    """Compare the classes by each feature that both have values of."""
    separation = {}
    for feature in features:
        known = table[table[feature].notna()]
        real, fake = (known.loc[known["label"] == label, feature] for label in (0, 1))
        if len(real) and len(fake):
            separation[feature] = {
                "real": float(real.median()),
                "fake": float(fake.median()),
                "roc_auc": float(roc_auc_score(known["label"], known[feature])),
                "gap": float(ks_2samp(real, fake, method="asymp").statistic),
                "chance": float(1.36 * np.sqrt(1 / len(real) + 1 / len(fake))),
            }
    return separation
