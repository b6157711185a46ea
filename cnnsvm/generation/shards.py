"""Shards: several processes or machines that share the making of one folder of records."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import read_manifest
from cnnsvm.generation.sources import Source, check_owners
from cnnsvm.generation.store import ERRORS, MANIFEST, GenerationError, write_results
from cnnsvm.io.files import read_json, text_hash, write_json

_TEXT = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` of the sources, counted from 1.

    Which part a source is in follows from its content alone, so every process finds the same
    split, whatever the order of the files, and copies of a file fall into one part.
    """

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: "Shard | str") -> "Shard":
        """Read ``i/n`` with 1 <= i <= n.

        Raises
        ------
        GenerationError
            If the text is not of that form.
        """
        if isinstance(text, Shard):
            return text
        found = _TEXT.fullmatch(text.strip())
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
        if self.count == 1:
            return MANIFEST, ERRORS
        part = f"-{self.index}-of-{self.count}"
        return tuple(_insert(name, part) for name in (MANIFEST, ERRORS))  # type: ignore[return-value]

    @property
    def note(self) -> str:
        """Name of the file that says which sources the shards were made of."""
        return f"shard-{self.index}-of-{self.count}.json"

    @property
    def unfinished(self) -> str:
        """Name of the manifest of what was made when a call had to stop."""
        return _insert(self.names[0], "-unfinished")


def note_shard(folder: Path, shard: Shard, sources: Sequence[Source]) -> None:
    """Note that a shard is made, and of which sources all of them have to be."""
    known = sorted(f"{source.sha256} {source.source_id}" for source in sources)
    write_json(folder / shard.note, {"sources": text_hash("\n".join(known))})


def merge_shards(folder: Path, count: int) -> pd.DataFrame | None:
    """Join the manifests of all shards, once all of them are there.

    Returns
    -------
    DataFrame or None
        What is then ``manifest.parquet``, in the order of the shards; None while one is missing,
        or was made of other sources.
    """
    shards = [Shard(index, count) for index in range(1, count + 1)]
    notes = [read_json(folder / shard.note) for shard in shards]
    if not all(notes) or any(note != notes[0] for note in notes):
        return None
    errors: list[dict[str, str]] = []
    tables = []
    owners: dict[str, str] = {}
    for shard in shards:
        if (folder / shard.names[1]).exists():
            listed = pd.read_csv(folder / shard.names[1], dtype=str)
            errors += _list_rows(listed)
        table = read_manifest(folder / shard.names[0], check=False)
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


def _insert(name: str, part: str) -> str:
    path = Path(name)
    return f"{path.stem}{part}{path.suffix}"
