"""Folders of records on disk: complete files, one set of settings a folder, shards, threads."""

import logging
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import effective_n_jobs

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import describe_file, read_manifest, write_manifest
from cnnsvm.data.readers.folder import RECORD, SETTINGS
from cnnsvm.io.files import clear_partials, read_json, text_hash, write_json, write_text
from cnnsvm.io.tables import to_csv

logger = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"
ERRORS = "errors.csv"
_SHARD = re.compile(r"(\d+)/(\d+)")
_AHEAD = 16  # items a thread that are begun together

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
    """Describe the images of a finished record: width, height, format and sha256 by name.

    A file whose length and modification time are as noted counts as unchanged, so that a large
    build resumes without reading it; any other file is read and compared. None if the record is not
    finished, a file has changed, or it was made of something else; its own images are removed then.
    """
    kept = read_json(folder / RECORD)
    if not kept:
        return None
    files: dict[str, Facts] = kept.get("files", {})
    known = _is_made_of(kept.get("made_of"), made_of)
    if not known:
        logger.info("%s was made of something else; it is made again", folder)
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
    """Tell whether a record is marked as finished, without reading its images."""
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
    """Note the settings of a folder; a `GenerationError` if it holds records of others."""
    kept = read_json(folder / SETTINGS)
    has_manifest = (folder / MANIFEST).exists()
    has_records = has_manifest or next(folder.glob(f"*/{RECORD}"), None) is not None
    if kept and kept != dict(settings) and has_records:
        names = sorted(k for k in kept.keys() | settings.keys() if kept.get(k) != settings.get(k))
        changes = ", ".join(
            f"{k}: {kept.get(k)!r:.120}, not {settings.get(k)!r:.120}" for k in names
        )
        raise GenerationError(
            f"{folder} holds records made with other settings ({changes}). "
            "Choose another folder, the same settings, or delete this folder."
        )
    if not kept and has_manifest:
        raise GenerationError(
            f"{folder} holds a manifest but no {SETTINGS}, so how its records were made is "
            "unknown. Choose another folder."
        )
    if kept != dict(settings):
        write_json(folder / SETTINGS, settings)


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
        write_text(path, to_csv(pd.DataFrame(errors)))
    else:
        path.unlink(missing_ok=True)


def safe_name(text: str, digest: str) -> str:
    """Return a folder name that is readable and, because it ends in a digest, like no other."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:64]
    return f"{readable.removesuffix(digest[:12]).rstrip('-')}-{digest[:12]}".lstrip("-")


def map_in_threads(
    function: Callable[[Any], Any], items: Sequence[Any], n_jobs: int | None = None
) -> Generator[Any, None, None]:
    """Apply a function to items on threads and yield the results in their order.

    An error is raised after the results before it. Whatever ends the iteration, no item is begun
    later and those begun are waited for, so that no file is written after the caller gave up.
    """
    n_threads = effective_n_jobs(n_jobs)
    if n_threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, len(items), _AHEAD * n_threads):
            yield from pool.map(function, items[start : start + _AHEAD * n_threads])


def check_owners(rows: Iterable[Mapping[str, Any]], owners: dict[str, str]) -> None:
    """Refuse (`ImageError`) the rows of a source if another one already gave one of its images.

    ``owners`` maps the sha256 of each image so far to its ``source_id``; the rows' are added.
    """
    rows = list(rows)
    for row in rows:
        owner = owners.get(row["sha256"], row["source_id"])
        if owner != row["source_id"]:
            raise ImageError(
                f"source {row['source_id']!r} gives the same pixels as source {owner!r}; one "
                "image under two sources leaks between folds. Give both one source_id or drop one."
            )
    owners.update((row["sha256"], row["source_id"]) for row in rows)


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` of the sources, counted from 1.

    The part of a source follows from its content alone, so every process finds the same split
    and copies of a file fall into one part.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def of(cls, text: "Shard | str") -> "Shard":
        """Parse ``i/n`` with 1 <= i <= n (`GenerationError`)."""
        if isinstance(text, Shard):
            return text
        found = _SHARD.fullmatch(text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise GenerationError(
                f"a shard is i/n with 1 <= i <= n, got {text!r}. Write for example 1/4, and run "
                "2/4, 3/4 and 4/4 too."
            )
        return cls(int(found[1]), int(found[2]))

    def holds(self, sha256: str) -> bool:
        """Tell whether a source of this content belongs to the shard."""
        return int(sha256[:16], 16) % self.count == self.index - 1

    @property
    def names(self) -> tuple[str, str]:
        """Names of the shard's manifest and list of errors."""
        part = "" if self.count == 1 else f"-{self.index}-of-{self.count}"
        return f"manifest{part}.parquet", f"errors{part}.csv"

    @property
    def note(self) -> str:
        """Name of the file that says which sources the shards were made of."""
        return f"shard-{self.index}-of-{self.count}.json"

    @property
    def unfinished(self) -> str:
        """Name of the manifest of a call that was interrupted."""
        return f"{Path(self.names[0]).stem}-unfinished.parquet"


def note_shard(folder: Path, shard: Shard, sources: Sequence[tuple[str, str]]) -> None:
    """Note that a shard is made, and of which sources (sha256, source_id) all of them are."""
    known = sorted(f"{sha256} {source_id}" for sha256, source_id in sources)
    write_json(folder / shard.note, {"sources": text_hash("\n".join(known))})


def merge_shards(folder: Path, count: int) -> pd.DataFrame | None:
    """Join the manifests of all shards, in their order, into ``manifest.parquet``.

    Returns None while a shard is missing or was made of other sources.
    """
    shards = [Shard(index, count) for index in range(1, count + 1)]
    notes = [read_json(folder / shard.note) for shard in shards]
    if not all(notes) or any(note != notes[0] for note in notes):
        return None
    errors: list[dict[str, str]] = []
    tables = []
    owners: dict[str, str] = {}
    for manifest_name, errors_name in (shard.names for shard in shards):
        if (folder / errors_name).exists():
            errors += _list_rows(
                pd.read_csv(folder / errors_name, dtype=str, encoding_errors="surrogateescape")
            )
        table = read_manifest(folder / manifest_name, check=False)
        if table.empty:  # few sources, many shards
            continue
        for _, rows in table.groupby("record", sort=False):
            try:
                check_owners(_list_rows(rows), owners)
                tables.append(rows)
            except ImageError as error:
                errors.append({"path": str(rows["path"].iloc[0]), "reason": str(error)})
    if not tables:
        raise GenerationError(f"{folder}: none of the sources in {count} shards can be used.")
    manifest = pd.concat(tables, ignore_index=True)
    manifest["seed"] = manifest["seed"].astype("Int64")
    write_results(folder, manifest, errors)
    return manifest


def _list_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
