"""Which images were made from one source: the ``source_id`` of loose files."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from cnnsvm.data.readers.errors import DatasetError, MissingDataError

Groups = str | os.PathLike[str] | re.Pattern[str] | None


def find_source_ids(root: Path, files: Sequence[Path], groups: Groups) -> list[str]:
    """Name the source of every file.

    Parameters
    ----------
    root : Path
        Folder that relative paths start from.
    files : sequence of Path below ``root``
    groups : None, str, compiled pattern or path
        None takes each file for a source of its own, named by its relative path. A regular
        expression is searched in the file's name (not its folders) and names the source by its
        group ``source`` or else its only group. A path (or a string that ends in ``.csv``) is a
        table with the columns ``path`` (relative to ``root``) and ``source_id``.

    Returns
    -------
    list of str, in the order of ``files``

    Raises
    ------
    DatasetError
        If the pattern or the table leaves a file without a source, or is malformed.
    """
    if groups is None:
        return [file.relative_to(root).as_posix() for file in files]
    if isinstance(groups, os.PathLike) or (
        isinstance(groups, str) and groups.lower().endswith(".csv")
    ):
        return _from_table(root, files, Path(groups))
    return [_from_name(file.name, _compile(groups)) for file in files]


def refuse_groups(groups: Groups, name: str | os.PathLike[str]) -> None:
    """Raise a `DatasetError` if groups are given for data that name their sources themselves."""
    if groups is not None:
        raise DatasetError(
            f"{name}: names the source of every image itself, got groups={groups!r} too. Leave "
            "groups out, or change source_id in the table."
        )


def _compile(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DatasetError(
            f"groups={pattern!r} is not a regular expression ({error}). Correct it, or give the "
            "path of a .csv file with the columns path and source_id."
        ) from error
    if "source" not in compiled.groupindex and compiled.groups != 1:
        raise DatasetError(
            f"groups={compiled.pattern!r} has {compiled.groups} groups; it needs exactly one, or "
            r"one named source, such as (?P<source>.+)_\d+."
        )
    return compiled


def _from_name(name: str, pattern: re.Pattern[str]) -> str:
    match = pattern.search(name)
    source = match and match["source" if "source" in pattern.groupindex else 1]
    if not source:
        raise DatasetError(
            f"{name}: the pattern {pattern.pattern!r} finds no source in this name. Widen the "
            "pattern, move the file away, or give the path of a .csv file with the columns path "
            "and source_id."
        )
    return source


def _from_table(root: Path, files: Sequence[Path], table: Path) -> list[str]:
    sources = _read_table(table)
    names = [file.relative_to(root).as_posix() for file in files]
    missing = [name for name in names if name not in sources]
    if missing:
        raise DatasetError(
            f"{table}: no row for {len(missing)} image(s), the first is {missing[0]}. Every image "
            f"needs a row whose path is relative to {root}."
        )
    return [sources[name] for name in names]


def _read_table(file: Path) -> dict[str, str]:
    if not file.is_file():
        raise MissingDataError(f"{file}: no such table of groups. Check the path.")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DatasetError(f"{file}: cannot be read as a CSV table ({error}).") from error
    if not {"path", "source_id"} <= set(table.columns):
        raise DatasetError(
            f"{file}: a table of groups needs the columns path and source_id, "
            f"got {', '.join(table.columns)}."
        )
    sources: dict[str, str] = {}
    rows = zip(table["path"], table["source_id"], strict=True)
    for number, (path, source) in enumerate(rows, start=1):
        name = PurePosixPath(path).as_posix()  # ./a.png and a.png are one file
        if not source.strip():
            raise DatasetError(f"{file}: row {number} ({path}): source_id is empty. Fill it in.")
        if name in sources:
            raise DatasetError(
                f"{file}: row {number} ({path}): this path has a row already. Drop one of the two."
            )
        sources[name] = source
    return sources
