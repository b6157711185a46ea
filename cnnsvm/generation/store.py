"""Folders of records on disk: whole files only, and never two settings in one folder."""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.manifest import describe_file, write_manifest
from cnnsvm.data.readers.folder import RECORD, SETTINGS
from cnnsvm.io.files import clear_partials, read_json, write_bytes, write_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"
ERRORS = "errors.csv"
_LONGEST = 120  # characters of a setting in a message

Facts = dict[str, Any]


class GenerationError(ValueError):
    """Records that cannot be made as asked; the message gives the rule and the remedy."""


def write_record(folder: Path, names: Sequence[str], made_of: Any) -> dict[str, Facts]:
    """Mark a record as finished: what it is made of and what its images are."""
    files = {name: _describe(folder / name) for name in names}
    write_json(folder / RECORD, {"files": files, "made_of": made_of})
    return files


def start_record(folder: Path, names: Sequence[str], made_of: Any) -> None:
    """Note what a record is made of and what its images will be called."""
    write_json(folder / RECORD, {"files": {}, "planned": list(names), "made_of": made_of})


def read_record(folder: Path, made_of: Any) -> dict[str, Facts] | None:
    """Describe the images of a finished record that is as it was written.

    A file whose length and time of change are as noted is taken for unchanged, so that a build of
    many gigabytes is taken up without reading them; any other is read and compared.

    Returns
    -------
    dict of name to facts, or None
        Width, height, format and sha256 of each image. None if the record is not finished, or a
        file of it has changed or it was made of something else: its images are taken away then,
        and nothing but those.
    """
    kept = read_json(folder / RECORD)
    if not kept:
        return None
    files: dict[str, Facts] = kept.get("files", {})
    known = _is_made_of(kept.get("made_of"), made_of)
    if not known:
        logger.info("%s was made of something else and is made again", folder)
    if known and all(_is_unchanged(folder / name, facts) for name, facts in files.items()):
        return files or None
    forget_record(folder)
    return None


def forget_record(folder: Path) -> None:
    """Remove the images of a record, and its folder unless something else is in it."""
    kept = read_json(folder / RECORD)
    clear_partials(folder)
    for name in (*kept.get("files", {}), *kept.get("planned", []), RECORD):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()


def is_finished(folder: Path) -> bool:
    """Tell whether a record is marked as finished, without a look at its images."""
    return bool(read_json(folder / RECORD).get("files"))


def _is_made_of(kept: Any, wanted: Any) -> bool:
    """Compare what records are made of; what is not known now (None) is taken for unchanged."""
    if isinstance(kept, dict) and isinstance(wanted, dict):
        same = kept.keys() == wanted.keys()
        return same and all(_is_made_of(kept[key], value) for key, value in wanted.items())
    if isinstance(kept, list) and isinstance(wanted, list):
        pairs = zip(kept, wanted, strict=False)
        return len(kept) == len(wanted) and all(_is_made_of(a, b) for a, b in pairs)
    return wanted is None or bool(kept == wanted)


def _describe(path: Path) -> Facts:
    status = path.stat()
    facts = describe_file(path)
    return {**facts, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_unchanged(path: Path, facts: Facts) -> bool:
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (facts.get("bytes"), facts.get("mtime_ns")):
            return True
        return bool(_describe(path)["sha256"] == facts.get("sha256"))
    except OSError:
        return False


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder that holds records of these settings alone.

    Raises
    ------
    GenerationError
        If the folder holds records of other settings, or a manifest of unknown settings.
    """
    kept = read_json(folder / SETTINGS)
    if kept and kept != dict(settings) and _holds_records(folder):
        names = sorted(k for k in kept.keys() | settings.keys() if kept.get(k) != settings.get(k))
        changes = ", ".join(
            f"{k}: {_shown(kept.get(k))}, not {_shown(settings.get(k))}" for k in names
        )
        raise GenerationError(
            f"{folder} holds records made with other settings ({changes}). "
            "Choose another folder, the same settings, or delete this folder."
        )
    if not kept and (folder / MANIFEST).exists():
        raise GenerationError(
            f"{folder} holds a manifest but no {SETTINGS}, so how its records were made is "
            "unknown. Choose another folder."
        )
    if kept != dict(settings):
        write_json(folder / SETTINGS, settings)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _holds_records(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or next(folder.glob(f"*/{RECORD}"), None) is not None


def write_results(
    folder: Path,
    manifest: pd.DataFrame,
    errors: list[dict[str, str]],
    names: tuple[str, str] = (MANIFEST, ERRORS),
) -> None:
    """Write the manifest and the list of what failed, and hang that list on the manifest."""
    write_manifest(manifest, folder / names[0])
    write_errors(folder / names[1], errors)
    manifest.attrs["skipped"] = errors


def write_errors(path: Path, errors: list[dict[str, str]]) -> None:
    """List what failed; without errors there is no such file."""
    if errors:
        write_bytes(path, pd.DataFrame(errors).to_csv(index=False).encode())
    else:
        path.unlink(missing_ok=True)


def safe_name(text: str, digest: str) -> str:
    """Return a folder name that is readable and, because it ends in a digest, like no other."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:64]
    return f"{readable.removesuffix(digest[:12]).rstrip('-')}-{digest[:12]}".lstrip("-")
