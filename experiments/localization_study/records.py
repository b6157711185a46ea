"""Which images a study of localisers takes, what their engines are called, and their masks."""

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from cnnsvm.data.images import image_hash, load_image
from cnnsvm.evaluation.localization_records import MASK, ORIGINAL, UNKNOWN


def limit_sources(manifest: pd.DataFrame, n_sources: int, random_state: int = 0) -> pd.DataFrame:
    """Draw sources with all that was made from them; all if there are no more.

    Raises
    ------
    ValueError
        If ``n_sources`` is below 1.
    """
    if n_sources < 1:
        raise ValueError(f"the number of sources must be at least 1, got {n_sources!r}.")
    sources = np.sort(manifest["source_id"].astype(str).unique())
    drawn = np.random.default_rng(random_state).permutation(sources)[:n_sources]
    return manifest[manifest["source_id"].astype(str).isin(drawn)].reset_index(drop=True)


def rename_engines(manifest: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Call engines something else, so that tables are readable and several can count as one.

    Each of the names is ``PATTERN=NAME``, as in ``file:inpainting_*.webp=RePaint``, with ``*``,
    ``?`` and ``[...]`` as in a shell. The first that matches counts. An engine that is not known is
    called "unknown".

    Raises
    ------
    ValueError
        If an entry is no such pair, or matches no engine.
    """
    repainted = manifest["variant"] != ORIGINAL
    found = manifest["engine"].where(manifest["engine"].notna(), UNKNOWN)
    known = sorted(found[repainted].unique())
    renamed = manifest["engine"].copy()
    for entry in reversed(names):
        pattern, _, name = entry.rpartition("=")
        if not pattern or not name:
            raise ValueError(
                f"an engine's name is given as PATTERN=NAME, got {entry!r}. Write for example "
                "'file:inpainting_*.webp=RePaint'."
            )
        engines = [engine for engine in known if fnmatchcase(engine, pattern)]
        if not engines:
            listed = ", ".join(known)
            raise ValueError(f"no engine matches {pattern!r} of {entry!r}. There are: {listed}.")
        renamed[repainted & found.isin(engines)] = name
    return manifest.assign(engine=renamed)


def hash_masks(table: pd.DataFrame) -> str:
    """Hash the content of all mask files and the readings, which a run depends on."""
    digest = hashlib.sha256()
    for reading, path in zip(table["reading"], table["mask_path"], strict=True):
        digest.update(str(reading).encode())
        if isinstance(path, str) and reading == MASK:
            digest.update(image_hash(path).encode())
    return digest.hexdigest()


def has_greys(table: pd.DataFrame) -> bool:
    """Tell whether any mask has pixels between black and white, which mask policies are about."""
    paths = table.loc[table["reading"] == MASK, "mask_path"].unique()
    return any(bool(((grey > 0) & (grey < 255)).any()) for grey in map(load_image, paths))
