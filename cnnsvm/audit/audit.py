"""Can a classifier cheat on this data set? Look at everything but the inpainting.

The checks need no detector and know nothing of engines. Each ends in a verdict:

- ``leak``: the classes differ in something that no engine explains, or a split separates copies.
- ``warning``: a difference that may be a leak or the engine's honest trace.
- ``pass``: nothing found; what the check cannot see, its summary says.
- ``not checked``: with the reason.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.audit.check import LEAK, NOT_CHECKED, Check, worst_verdict
from cnnsvm.audit.headers import check_histories, read_headers
from cnnsvm.audit.outside import probe_outside
from cnnsvm.audit.probes import (
    Described,
    describe_pixels,
    probe_honest,
    probe_jpeg_past,
    probe_metadata,
    probe_resampling,
)
from cnnsvm.audit.sample import draw_sample
from cnnsvm.audit.tables import (
    check_balance,
    check_duplicates,
    check_splits,
    find_copies,
)
from cnnsvm.data.manifest import REQUIRED, ManifestError
from cnnsvm.data.splits import grouped_folds
from cnnsvm.io.progress import show_progress

#: Checks in the order in which they are reported.
CHECKS = (
    "balance",
    "splits",
    "duplicates",
    "histories",
    "metadata",
    "resampling",
    "jpeg_past",
    "outside_mask",
    "grid",
    "colour",
    "file_size",
)
_PROBES = CHECKS[CHECKS.index("metadata") :]


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

    Files are looked at as they are: match histories afterwards, not before.

    Parameters
    ----------
    manifest : DataFrame with absolute paths
        Not changed. Originals and fakes of one record share the column ``record``, or
        ``source_id`` where there is none.
    n_splits : int, at least 2
        Folds of the probes, grouped by ``source_id``.
    random_state : int
        Seed of the sample, the folds and the forests.
    max_images : int, at least 2
        Most images that the probes look at, drawn by source. Tables and headers are read whole,
        and one image of every source is looked at for copies.
    n_jobs : int or None
        Threads; None takes one a core.
    progress : bool
        Show progress on standard error if that is a terminal.

    Returns
    -------
    dict
        As JSON can hold it: ``verdict`` (the worst), ``n_images``, ``n_sources``,
        ``n_probed_images``, ``n_probed_sources``, ``n_splits``, ``random_state``, ``seconds`` and
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
    sample = draw_sample(table, max_images, random_state)
    copies = find_copies(table, n_jobs)
    checks = [
        check_balance(table),
        check_splits(table, copies),
        check_duplicates(table, copies),
        check_histories(table, headers),
        *_run_probes(sample, headers, n_splits, random_state, n_jobs, progress),
    ]
    return {
        "verdict": worst_verdict([check.verdict for check in checks]),
        "n_images": len(table),
        "n_sources": int(table["source_id"].nunique()),
        "n_probed_images": len(sample),
        "n_probed_sources": int(sample["source_id"].nunique()),
        "n_splits": n_splits,
        "random_state": random_state,
        "seconds": time.monotonic() - start,
        "checks": [check.as_dict() for check in checks],
    }


def has_leak(result: dict[str, Any]) -> bool:
    """Tell whether an audit found a leak."""
    return bool(result["verdict"] == LEAK)


def _check_input(manifest: pd.DataFrame, n_splits: int) -> None:
    missing = [column for column in REQUIRED if column not in manifest]
    if missing or manifest.empty:
        raise ManifestError(
            f"a manifest needs rows and the columns {', '.join(REQUIRED)}; got {len(manifest)} "
            f"rows, missing: {', '.join(missing) or 'none'}."
        )
    wrong = manifest["label"][~manifest["label"].isin([0, 1])]
    if len(wrong):
        raise ManifestError(
            f"label must be 0 (real) or 1 (fake), got {wrong.tolist()[0]!r}. Correct the label."
        )
    if n_splits < 2:
        raise ValueError(f"n_splits must be at least 2, got {n_splits!r}; 5 is usual.")


def _complete(manifest: pd.DataFrame) -> pd.DataFrame:
    """Copy a manifest with an index from 0, optional columns and its records in ``unit``."""
    table = manifest.reset_index(drop=True)
    for column in ("split", "mask_path", "variant", "sha256"):
        if column not in table:
            table[column] = None
    table["label"] = table["label"].astype("int64")
    table["source_id"] = table["source_id"].astype(str)
    record = table["record"] if "record" in table else pd.Series(None, table.index, dtype=object)
    table["unit"] = table["source_id"] + "/" + record.fillna("").astype(str)
    return table


def _run_probes(
    sample: pd.DataFrame,
    headers: pd.DataFrame,
    n_splits: int,
    random_state: int,
    n_jobs: int | None,
    progress: bool,
) -> list[Check]:
    reason = _too_small(sample, n_splits)
    if reason:
        return [Check(name, NOT_CHECKED, reason) for name in _PROBES]
    labels, sources = sample["label"].to_numpy(), sample["source_id"].to_numpy()
    folds = grouped_folds(labels, sources, n_splits, random_state)
    headers = headers.loc[sample.index]
    described = _stack(
        show_progress(
            describe_pixels(sample["path"].tolist(), n_jobs), len(sample), "images", progress
        )
    )
    bits = headers[["bits_a_pixel"]].to_numpy()
    seen = {"grid": described["grid"], "colour": described["colour"], "file_size": bits}
    return [
        probe_metadata(sample, headers, folds, random_state),
        probe_resampling(sample, described, folds),
        probe_jpeg_past(sample, described),
        probe_outside(sample, n_splits, random_state, n_jobs, progress),
        *(probe_honest(name, seen[name], sample, folds, random_state) for name in seen),
    ]


def _too_small(sample: pd.DataFrame, n_splits: int) -> str:
    for label, name in enumerate(("real", "fake")):
        n_sources = sample["source_id"][sample["label"] == label].nunique()
        if not n_sources:
            return f"there are no {name} images."
        if n_sources < n_splits:
            return (
                f"{n_sources} source(s) with {name} images are fewer than the {n_splits} folds. "
                "Add sources, or lower --folds (n_splits)."
            )
    return ""


def _stack(described: Any) -> Described:
    rows: Sequence[Described] = list(described)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
