"""Can a classifier cheat on this data set? Look at everything but the inpainting.

Each check ends in a verdict: ``leak`` (the classes differ in something that no engine explains, or
a split separates copies), ``warning`` (a leak or the engine's honest trace), ``pass`` or ``not
checked``.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.audit.check import Check, DataSet, Sample, Verdict, on_threads
from cnnsvm.audit.headers import check_post_processing, read_headers
from cnnsvm.audit.outside import probe_outside
from cnnsvm.audit.probes import (
    HONEST,
    measure_pixels,
    probe_double_compression,
    probe_honest,
    probe_metadata,
    probe_resampling,
)
from cnnsvm.audit.tables import (
    check_balance,
    check_duplicates,
    check_labels,
    check_splits,
    find_copies,
)
from cnnsvm.data.images import find_bad_images
from cnnsvm.data.manifest import REQUIRED, ManifestError, find_bad_rows
from cnnsvm.data.readers import open_dataset
from cnnsvm.data.splits import grouped_folds
from cnnsvm.io.progress import show_progress
from cnnsvm.localization.masks import load_mask

#: Checks of the whole table, in the order in which they are reported.
TABLE_CHECKS: dict[str, Callable[[DataSet], Check]] = {
    "balance": check_balance,
    "splits": check_splits,
    "duplicates": check_duplicates,
    "labels": check_labels,
    "post-processing": check_post_processing,
}
#: Checks of a sample of images.
PROBES: dict[str, Callable[[Sample], Check]] = {
    "metadata": probe_metadata,
    "resampling": probe_resampling,
    "double_compression": probe_double_compression,
    "outside_mask": probe_outside,
    **{name: partial(probe_honest, name) for name in HONEST},
}
CHECKS = (*TABLE_CHECKS, *PROBES)
_SHOWN = 10


def audit(
    manifest: pd.DataFrame,
    *,
    n_splits: int = 5,
    random_state: int = 0,
    max_images: int = 2000,
    n_jobs: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Say whether a classifier could cheat on a data set.

    Files are read as they are: match their post-processing afterwards.

    Parameters
    ----------
    manifest : DataFrame with absolute paths
        Originals and fakes of one record share ``record``, or ``source_id`` where there is none.
    n_splits : int, at least 2
        Folds of the probes, grouped by ``source_id``.
    random_state : int
        Seed of the sample, the folds and the forests.
    max_images : int, at least 2
        Most images of the probes, drawn by source. All headers and a copy check of every source
        are made.
    n_jobs : int or None
        Threads; None means 1, -1 one a core.
    progress : bool
        Show progress on standard error.

    Returns
    -------
    dict
        Can be written as JSON: ``verdict`` (the worst), counts, settings, ``seconds`` and
        ``checks``, a list with the fields of `cnnsvm.audit.check.Check`.

    Raises
    ------
    ManifestError
        If there are no rows, a column is missing, or a label is neither 0 nor 1.
    ImageError
        If a file that is looked at cannot be read.
    ValueError
        If ``n_splits`` or ``max_images`` is below 2.
    """
    start = time.monotonic()
    _check_input(manifest, n_splits)
    table = _complete(manifest)
    headers = read_headers(table["path"].tolist(), n_jobs)
    table[["width", "height", "lossy"]] = headers[["width", "height", "lossy"]]
    rows = draw_sample(table, max_images, random_state)
    data = DataSet(table, headers, find_copies(table, n_jobs))
    checks = [check(data) for check in TABLE_CHECKS.values()]
    reason = _too_small(rows, n_splits)
    if reason:
        checks += [Check(name, Verdict.NOT_CHECKED, reason) for name in PROBES]
    else:
        labels, sources = (rows[name].to_numpy() for name in ("label", "source_id"))
        folds = grouped_folds(labels, sources, n_splits, random_state)
        headers = headers.loc[rows.index]
        pixels = _measure(rows, headers, n_jobs, progress)
        sample = Sample(rows, headers, pixels, folds, random_state, n_jobs, progress)
        checks += [probe(sample) for probe in PROBES.values()]
    return {
        "verdict": max((check.verdict for check in checks), key=list(Verdict).index),
        "n_images": len(table),
        "n_sources": int(table["source_id"].nunique()),
        "n_probed_images": len(rows),
        "n_probed_sources": int(rows["source_id"].nunique()),
        "n_splits": n_splits,
        "random_state": random_state,
        "seconds": time.monotonic() - start,
        "checks": [asdict(check) for check in checks],
    }


def read_for_audit(
    path: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    groups: str | None = None,
    skip_bad: bool = False,
    n_jobs: int | None = None,
) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Read a data set as it is; one file under two sources is a finding, not an error.

    Parameters and errors are as in `cnnsvm.data.readers.open_dataset`. ``skip_bad`` decodes every
    image once and leaves bad rows out, rather than refuse them (`ManifestError`, also if none is
    good). Returns the manifest, and what was left out as dicts of ``path`` and ``reason``.
    """
    try:
        manifest = open_dataset(path, workdir, groups=groups, skip_bad=skip_bad)
    except ManifestError:
        if skip_bad:
            raise
        manifest = open_dataset(path, workdir, groups=groups, skip_bad=True)
    left_out = list(manifest.attrs.get("skipped", []))
    bad = _bad_rows(manifest)
    if bad and not skip_bad:
        raise _refusal(path, len(manifest), list(bad.values()))
    if skip_bad:
        good = [i for i in range(len(manifest)) if i not in bad]
        failed = find_bad_images(manifest["path"].iloc[good].tolist(), n_jobs=n_jobs)
        bad |= {good[position]: reason for position, reason in failed}
        left_out += _blank_bad_masks(manifest, n_jobs)
    left_out += [{"path": str(manifest["path"].iloc[i]), "reason": bad[i]} for i in sorted(bad)]
    usable = manifest.drop(index=manifest.index[sorted(bad)]).reset_index(drop=True)
    if usable.empty:
        raise _refusal(path, len(manifest), [item["reason"] for item in left_out])
    return usable, left_out


def draw_sample(table: pd.DataFrame, max_images: int, random_state: int = 0) -> pd.DataFrame:
    """Draw rows for the probes from a table with ``unit`` (the record), and keep their order.

    Of a record with both classes as many images of each are drawn. Sources are taken whole, in
    random order, until the next would not fit; of a first source that is too large a part.
    """
    if max_images < 2:
        raise ValueError(f"max_images must be at least 2, got {max_images!r}; 2000 is usual.")
    rng = np.random.default_rng(random_state)
    shuffled = table.iloc[rng.permutation(len(table))]
    number = shuffled.groupby(["source_id", "unit", "label"]).cumcount()
    counted = table.groupby(["source_id", "unit"])["label"].value_counts()
    sizes = counted.groupby(["source_id", "unit"]).min()
    units = pd.MultiIndex.from_frame(shuffled[["source_id", "unit"]])
    matched = shuffled[number.to_numpy() < sizes.loc[units].to_numpy()]
    counts = matched.groupby("source_id", sort=False).size()
    whole = counts.index[counts.cumsum() <= max_images]
    drawn = matched[matched["source_id"].isin(whole)] if len(whole) else matched[:max_images]
    return table.loc[drawn.index.sort_values()]


def _check_input(manifest: pd.DataFrame, n_splits: int) -> None:
    missing = [column for column in REQUIRED if column not in manifest]
    if missing or manifest.empty:
        got = f"got {len(manifest)} rows, missing: {', '.join(missing) or 'none'}."
        raise ManifestError(f"a manifest needs rows and the columns {', '.join(REQUIRED)}; {got}")
    wrong = manifest["label"][~manifest["label"].isin([0, 1])].tolist()
    if wrong:
        raise ManifestError(f"label must be 0 (real) or 1 (fake), got {wrong[0]!r}. Correct it.")
    if n_splits < 2:
        raise ValueError(f"n_splits must be at least 2, got {n_splits!r}; 5 is usual.")


def _complete(manifest: pd.DataFrame) -> pd.DataFrame:
    """Copy a manifest with an index from 0, optional columns and its records in ``unit``."""
    table = manifest.reset_index(drop=True)
    for column in ("split", "mask_path", "variant", "sha256", "record"):
        if column not in table:
            table[column] = None
    table = table.astype({"label": "int64", "source_id": str})
    table["unit"] = table["source_id"] + "/" + table["record"].fillna("").astype(str)
    return table


def _too_small(rows: pd.DataFrame, n_splits: int) -> str:
    for label, name in enumerate(("real", "fake")):
        n_sources = rows["source_id"][rows["label"] == label].nunique()
        if not n_sources:
            return f"there are no {name} images."
        if n_sources < n_splits:
            few = f"{n_sources} source(s) with {name} images are fewer than the {n_splits} folds."
            return f"{few} Add sources, or lower --folds (n_splits)."
    return ""


def _measure(
    rows: pd.DataFrame, headers: pd.DataFrame, n_jobs: int | None, progress: bool
) -> dict[str, np.ndarray]:
    measured = on_threads(measure_pixels, rows["path"], n_jobs)
    found = list(show_progress(measured, len(rows), "images", progress))
    pixels = {name: np.stack([each[name] for each in found]) for name in found[0]}
    return pixels | {"file_size": headers[["bits_a_pixel"]].to_numpy()}


def _blank_bad_masks(manifest: pd.DataFrame, n_jobs: int | None) -> list[dict[str, str]]:
    """Take out the masks that cannot be read, not their rows, and list them."""
    paths = [path for path in manifest["mask_path"].dropna().unique() if Path(path).is_file()]
    failed = find_bad_images(paths, n_jobs=n_jobs, read=load_mask)
    bad = {paths[position]: reason for position, reason in failed}
    manifest["mask_path"] = manifest["mask_path"].mask(manifest["mask_path"].isin(bad), None)
    return [{"path": path, "reason": reason} for path, reason in bad.items()]


def _bad_rows(manifest: pd.DataFrame) -> dict[int, str]:
    """Return what is wrong with rows, but for files that occur under two sources."""
    named = manifest["source_id"].notna() & (manifest["source_id"].astype(str).str.strip() != "")
    alone = manifest.assign(source_id=manifest["source_id"].mask(named, "any"))
    return dict(reversed(find_bad_rows(alone)))


def _refusal(path: str | os.PathLike[str], n_rows: int, reasons: list[str]) -> ManifestError:
    lines = [f"{path}: {len(reasons)} of {n_rows} rows are bad, the first:"]
    lines += [f"  {reason}" for reason in reasons[:_SHOWN]]
    remedy = "Correct them, or leave them out with --skip-bad (skip_bad=True)."
    return ManifestError("\n".join([*lines, remedy]))
