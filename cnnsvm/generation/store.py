"""Folders of records on disk: whole files only, and never two settings in one folder."""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from cnnsvm.records import write_manifest

SETTINGS = "settings.json"
MANIFEST = "manifest.parquet"
SKIPPED = "skipped.csv"
RECORD = "record.json"


class GenerationError(ValueError):
    """Records that cannot be made as asked; the message gives the rule and the remedy."""


def write_bytes(path: Path, content: bytes) -> Path:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write values as JSON, whole or not at all."""
    return write_bytes(path, (json.dumps(values, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote; empty if there is no such file or it is damaged."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def file_hash(path: Path) -> str | None:
    """Return the SHA-256 of a file in hexadecimal, None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def write_record(folder: Path, names: Sequence[str], made_of: Any) -> Path:
    """Mark a record as finished: what its files are, and what they were made of."""
    files = {name: file_hash(folder / name) for name in names}
    return write_json(folder / RECORD, {"files": files, "made_of": made_of})


def is_complete(folder: Path, made_of: Any) -> bool:
    """Tell whether a finished record is as it was written; if not, take its files away."""
    kept = read_json(folder / RECORD)
    files = kept.get("files", {})
    if kept.get("made_of") == made_of and all(
        file_hash(folder / name) == digest for name, digest in files.items()
    ):
        return True
    for name in (RECORD, *files):
        (folder / name).unlink(missing_ok=True)
    return False


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make a folder that holds records of these settings alone, and clear what a kill left.

    Raises
    ------
    GenerationError
        If the folder holds records of other settings, or a manifest of unknown settings.
    """
    kept = read_json(folder / SETTINGS)
    if kept and kept != dict(settings):
        names = sorted(k for k in kept.keys() | settings.keys() if kept.get(k) != settings.get(k))
        changes = ", ".join(f"{k}: {kept.get(k)!r}, not {settings.get(k)!r}" for k in names)
        raise GenerationError(
            f"{folder} holds records made with other settings ({changes}). "
            "Choose another folder, the same settings, or delete this folder."
        )
    if not kept and (folder / MANIFEST).exists():
        raise GenerationError(
            f"{folder} holds a manifest but no {SETTINGS}, so how its records were made is "
            "unknown. Choose another folder."
        )
    for partial in folder.rglob(".*.partial"):
        partial.unlink(missing_ok=True)
    if not kept:
        write_json(folder / SETTINGS, settings)


def write_results(folder: Path, manifest: pd.DataFrame, skipped: list[dict[str, str]]) -> None:
    """Write the manifest and the list of what was skipped, and hang that list on the manifest."""
    write_manifest(manifest, folder / MANIFEST)
    if skipped:
        write_bytes(folder / SKIPPED, pd.DataFrame(skipped).to_csv(index=False).encode())
    else:
        (folder / SKIPPED).unlink(missing_ok=True)
    manifest.attrs["skipped"] = skipped


def safe_name(text: str, digest: str) -> str:
    """Return a folder name that is readable and, because it ends in a digest, like no other."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:64]
    return f"{readable.removesuffix(digest[:12]).rstrip('-')}-{digest[:12]}".lstrip("-")


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def show_progress(items: Iterable[Any], total: int, what: str, progress: bool) -> Iterable[Any]:
    """Count items on standard error, if that is a terminal."""
    return tqdm(items, total=total, desc=what, disable=None if progress else True)
