"""Read a data set for an audit: as it is, with what is wrong in it left for the audit to say."""

import os
from pathlib import Path

import pandas as pd

from cnnsvm.data.images import find_bad_images
from cnnsvm.data.manifest import ManifestError, find_bad_rows
from cnnsvm.data.readers import open_dataset

LeftOut = list[dict[str, str]]
_SHOWN = 10


def read_for_audit(
    path: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    groups: str | None = None,
    skip_bad: bool = False,
) -> tuple[pd.DataFrame, LeftOut]:
    """Read a data set without changing, matching or merging anything.

    One file under two sources, which everything else here refuses, is a finding of the audit.

    Parameters
    ----------
    path, workdir, groups
        As in `cnnsvm.data.readers.open_dataset`.
    skip_bad : bool
        Decode every image once and leave bad rows out, rather than stop at the first.

    Returns
    -------
    manifest : DataFrame
    left_out : list of dict of ``path`` and ``reason``

    Raises
    ------
    DatasetError, ImageError
        As `cnnsvm.data.readers.open_dataset` raises them.
    ManifestError
        If rows are bad and ``skip_bad`` is False, or none is good.
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
        raise ManifestError(_told(path, len(manifest), list(bad.values())))
    if skip_bad:
        good = [i for i in range(len(manifest)) if i not in bad]
        failed = find_bad_images(manifest["path"].iloc[good].tolist())
        bad |= {good[position]: reason for position, reason in failed}
        left_out += _blank_bad_masks(manifest)
    left_out += [{"path": str(manifest["path"].iloc[i]), "reason": bad[i]} for i in sorted(bad)]
    kept = manifest.drop(index=manifest.index[sorted(bad)]).reset_index(drop=True)
    if kept.empty:
        raise ManifestError(_told(path, len(manifest), [item["reason"] for item in left_out]))
    return kept, left_out


def _blank_bad_masks(manifest: pd.DataFrame) -> list[dict[str, str]]:
    """Take out the masks that cannot be read, not their rows, and list them."""
    paths = [path for path in manifest["mask_path"].dropna().unique() if Path(path).is_file()]
    bad = {paths[position]: reason for position, reason in find_bad_images(paths)}
    manifest["mask_path"] = manifest["mask_path"].mask(manifest["mask_path"].isin(bad), None)
    return [{"path": path, "reason": reason} for path, reason in bad.items()]


def _bad_rows(manifest: pd.DataFrame) -> dict[int, str]:
    """Return what is wrong with rows, but for files that occur under two sources."""
    named = manifest["source_id"].notna() & (manifest["source_id"].astype(str).str.strip() != "")
    alone = manifest.assign(source_id=manifest["source_id"].mask(named, "any"))
    return dict(reversed(find_bad_rows(alone)))


def _told(path: str | os.PathLike[str], n_rows: int, reasons: list[str]) -> str:
    more = [f"  and {len(reasons) - _SHOWN} more."] if len(reasons) > _SHOWN else []
    lines = [f"  {reason}" for reason in reasons[:_SHOWN]]
    remedy = "Correct them, or leave them out with --skip-bad (skip_bad=True)."
    return "\n".join([f"{path}: {len(reasons)} of {n_rows} rows are bad.", *lines, *more, remedy])
