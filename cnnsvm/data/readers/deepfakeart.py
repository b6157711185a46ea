"""DeepfakeArt inpainting records: one folder a source, with what was made from it.

The Kaggle download holds ``<id>/{original,inpainting,mask,group}.png``; the seed project wrote
``<id>/original.png`` with ``inpainting_<schema>.png``, ``mask_<schema>.png`` and
``group_<schema>.png`` for each of its masks. ``group`` shows the others side by side.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import DatasetError, Reader, make_manifest, make_row
from cnnsvm.data.mask_files import read_mask_levels
from cnnsvm.data.mask_shapes import MASK_SCHEMAS, classify_mask
from cnnsvm.data.scanning import SUFFIXES

logger = logging.getLogger(__name__)

#: Where record folders are looked for below the folder that the user names, in this order.
PLACES = ("archive/similar/inpainting", "similar/inpainting", "inpainting", "")
#: Folders of a Real/Fake tree, where a file may happen to be called inpainting_1.png.
_NO_RECORDS = ("real", "fake", "train", "test", "valid", "validation", "val")
ROLES = ("original", "inpainting", "mask", "group")


@dataclass
class _Report:
    """Problems of a whole data set, for its log and ``attrs["skipped"]``."""

    skipped: list[dict[str, str]] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)

    def skip(self, path: Path, reason: object) -> None:
        self.skipped.append({"path": str(path), "reason": str(reason)})


def find_record_folders(root: str | os.PathLike[str]) -> list[Path]:
    """List the record folders of a download, sorted; none when a folder has another layout.

    They are the folders with an original or an inpainting directly in them, at the first of
    ``archive/similar/inpainting/``, ``similar/inpainting/``, ``inpainting/`` and the root itself
    that holds any.
    """
    for place in PLACES:
        base = Path(root) / place
        folders = [path for path in base.iterdir() if _is_record(path)] if base.is_dir() else []
        if folders:
            return sorted(folders)
    return []


def find_role(path: Path) -> tuple[str | None, str]:
    """Split the name of a record's file into its role and what follows.

    ``inpainting_top.png`` gives ("inpainting", "top"). The role is None for a file that is not part
    of a record.
    """
    role, _, suffix = path.stem.partition("_")
    role = role.lower()
    known = role in ROLES and path.suffix.lower() in SUFFIXES
    return (role, suffix) if known and not (role == "original" and suffix) else (None, "")


def read_records(
    root: str | os.PathLike[str],
    variant: str = "regenerated",
    engine: str = "unknown",
    *,
    only_originals: bool = False,
) -> pd.DataFrame:
    """Read DeepfakeArt records, from Kaggle or as the seed project wrote them.

    The name of a record's folder is its ``source_id``. ``inpainting_x`` goes with ``mask_x``, or
    else with the one ``mask``; both may be missing. Where there is a mask image, ``mask_schema``
    is what the image shows, whatever its name says, because the seed project swapped names;
    without one it is the name, when that is a schema.

    Parameters
    ----------
    root : path
        The records' folder, or one that holds it, see `find_record_folders`.
    variant, engine : str
        What the manifest says of the fakes.
    only_originals : bool
        Read the originals alone, as when there are no others, such as after ``delete.py``.

    Returns
    -------
    DataFrame
        Manifest with absolute paths: the original of each record once (label 0), and every
        inpainting (label 1). ``attrs["skipped"]`` lists as {path, reason} the records that
        were left out and the masks that could not be used.

    Raises
    ------
    DatasetError
        If there is no complete record.
    """
    folders = find_record_folders(root)
    if not folders:
        raise DatasetError(
            f"{root}: no records. Give the folder that holds one folder a record, with "
            "original.* and inpainting.* (or inpainting_<schema>.*) in it."
        )
    files = {folder: _by_role(folder) for folder in folders}
    alone = only_originals or not any(roles["inpainting"] for roles in files.values())
    report, rows = _Report(), []
    for folder, roles in files.items():
        try:
            rows += _read_record(folder, roles, variant, engine, alone, report)
        except ValueError as error:
            report.skip(folder, error)
    if not rows:
        first = report.skipped[0]
        raise DatasetError(
            f"{root}: {len(folders)} record folder(s) but none is complete; the first is "
            f"{first['path']}: {first['reason']}. Restore the files, or read the originals alone."
        )
    _log(report)
    manifest = make_manifest(rows)
    manifest.attrs["skipped"] = report.skipped
    return manifest


def _is_record(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name.lower() in _NO_RECORDS or not folder.is_dir():
        return False
    return any(find_role(path)[0] in ("original", "inpainting") for path in folder.iterdir())


def _by_role(folder: Path) -> dict[str, list[Path]]:
    roles: dict[str, list[Path]] = {role: [] for role in ROLES}
    for path in sorted(folder.iterdir()):
        role, _ = find_role(path)
        if role and path.is_file():
            roles[role].append(path)
    return roles


def _read_record(
    folder: Path,
    files: dict[str, list[Path]],
    variant: str,
    engine: str,
    only_original: bool,
    report: _Report,
) -> list[dict[str, Any]]:
    if len(files["original"]) != 1:
        names = ", ".join(path.name for path in files["original"]) or "none"
        raise DatasetError(f"a record needs one original, found {names}")
    rows = [make_row(files["original"][0], 0, folder.name)]
    if only_original:
        return rows
    if not files["inpainting"]:
        raise DatasetError("a record needs an inpainting, found none")
    for path in files["inpainting"]:
        mask, schema = _find_mask(path, files["mask"], report)
        making: dict[str, Any] = {"variant": variant, "engine": engine, "mask_schema": schema}
        rows.append(make_row(path, 1, folder.name, mask_path=mask, **making))
    return rows


def _find_mask(path: Path, masks: list[Path], report: _Report) -> tuple[str | None, str | None]:
    """Return the path and the schema of the mask of one inpainting."""
    _, name = find_role(path)
    named = name.lower() if name.lower() in MASK_SCHEMAS else None
    by_name = {find_role(mask)[1]: mask for mask in reversed(masks)}
    mask = by_name.get(name, by_name.get(""))
    if mask is None:
        return None, named
    try:
        shown = classify_mask(read_mask_levels(mask) >= 128)
    except ImageError as error:
        report.skip(mask, f"the mask is left out: {error}")
        return None, named
    if named and named != shown:
        report.misnamed.append(f"{mask} shows {shown or 'an unknown shape'}")
    return str(mask.absolute()), shown


def _log(report: _Report) -> None:
    if report.skipped:
        text = "%d record(s) or mask(s) left out, the first: %s: %s"
        logger.warning(text, len(report.skipped), *report.skipped[0].values())
    if report.misnamed:
        logger.warning(
            "%d mask image(s) contradict their file's name; the image is believed. The first: %s",
            len(report.misnamed),
            report.misnamed[0],
        )


READER = Reader(
    "records           <folder>/0001/original.png with inpainting.png, mask.png (DeepfakeArt), or\n"
    "                    inpainting_<schema>.png, mask_<schema>.png",
    find_record_folders,
    read_records,
    ("variant", "engine", "only_originals"),
)
