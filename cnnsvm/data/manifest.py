"""The manifest: one row an image, and the checks that keep bad rows out of results.

In memory a manifest is a ``pandas.DataFrame`` whose ``path`` and ``mask_path`` are absolute, so
that any part of it can be used on its own. On disk (Parquet or CSV) they are relative to the
folder that holds the manifest, so that the folder can move.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.images import ImageError, image_hash, read_header
from cnnsvm.io.files import replacing

_IDENTITY = ["path", "label", "source_id"]
_MAKING = ["variant", "engine", "mask_schema", "mask_path", "split"]
_FILE = ["width", "height", "format", "sha256"]
COLUMNS = [*_IDENTITY, *_MAKING, *_FILE]
GENERATED_COLUMNS = ("seed", "prompt", "model_id", "model_revision")
REQUIRED = tuple(_IDENTITY)
VARIANTS = ("original", "regenerated", "spliced")


class ManifestError(ValueError):
    """A manifest that may not be used; the message lists rows, rules and remedies."""


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read width, height (pixels, upright), format and SHA-256 of an image without decoding it.

    Raises
    ------
    ImageError
        If the file is missing or its header is not that of an image.
    """
    header = read_header(path)
    width, height = header.upright_size
    return {"width": width, "height": height, "format": header.format, "sha256": image_hash(path)}


def make_row(
    path: str | os.PathLike[str],
    label: int,
    source_id: str,
    facts: Mapping[str, Any] | None = None,
    **values: Any,
) -> dict:
    """Build one manifest row, with what the file itself tells filled in.

    Parameters
    ----------
    path : path of the image
    label : {0, 1}
        0 real, 1 fake.
    source_id : str
        Name of the untouched image that this one is or was made from.
    facts : mapping or None
        What `describe_file` says of the image, if that is known; None reads the file.
    **values
        Any other column; ``variant`` is "original" for label 0 unless given.
    """
    row = dict.fromkeys(COLUMNS)
    row.update(path=str(Path(path).absolute()), label=label, source_id=str(source_id))
    row["variant"] = "original" if label == 0 else "regenerated"
    known = describe_file(path) if facts is None else facts
    row.update({name: known[name] for name in _FILE})
    row.update(values)
    return row


def make_manifest(rows: Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """Collect rows into a table with every column of the manifest, in the standard order."""
    table = pd.DataFrame(list(rows))
    for column in COLUMNS:
        if column not in table:
            table[column] = None
    extra = [column for column in table.columns if column not in COLUMNS]
    return table[[*COLUMNS, *extra]]


def read_manifest(path: str | os.PathLike[str], *, check: bool = True) -> pd.DataFrame:
    """Read a manifest and make its paths absolute.

    Parameters
    ----------
    path : path ending in .parquet or .csv
    check : bool
        Refuse bad rows (see `find_bad_rows`). Paths that leave the folder are refused always.

    Returns
    -------
    DataFrame

    Raises
    ------
    ManifestError
        If a column is missing or a row is bad; with the row number, the rule and the remedy.
    """
    file = Path(path)
    table = _read_table(file)
    missing = [column for column in REQUIRED if column not in table]
    if missing:
        raise ManifestError(
            f"{file}: column(s) {', '.join(missing)} missing; a manifest needs at least "
            f"{', '.join(REQUIRED)}. Found: {', '.join(map(str, table.columns))}."
        )
    root = file.parent.resolve()
    outside = [
        _problem(i, value, rule)
        for column in ("path", "mask_path")
        if column in table
        for i, value in enumerate(table[column])
        if isinstance(value, str) and (rule := _misplaced(root, value))
    ]
    if outside:
        raise ManifestError(_summary(outside, str(file)))
    table = _with_file_facts(_with_absolute_paths(_with_defaults(table), root))
    if check:
        check_manifest(table, str(file))
    return table


def write_manifest(manifest: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a manifest atomically, its paths relative to the folder it is written in.

    Raises
    ------
    ManifestError
        If a row's file lies outside that folder.
    """
    file = Path(path)
    root = file.parent.resolve()
    table = manifest.copy()
    for column in table.columns.intersection(["path", "mask_path"]):
        table[column] = [_relative(root, value, i) for i, value in enumerate(manifest[column])]
    if file.suffix not in (".parquet", ".csv"):
        raise ManifestError(f"{file}: a manifest ends in .parquet or .csv.")
    with replacing(file) as partial:
        if file.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            table.to_csv(partial, index=False)
    return file


def find_bad_rows(manifest: pd.DataFrame) -> list[tuple[int, str]]:
    """List what is wrong with the rows of a manifest.

    Parameters
    ----------
    manifest : DataFrame with absolute paths

    Returns
    -------
    list of (position, problem)
        ``position`` counts rows from 0; the problem counts them from 1, names the file and gives
        the rule and the remedy.
    """
    problems = [*_bad_values(manifest), *_bad_files(manifest), *_duplicates(manifest)]
    return sorted(problems)


def check_manifest(manifest: pd.DataFrame, name: str = "manifest") -> None:
    """Raise a `ManifestError` that lists the bad rows, if there are any."""
    problems = find_bad_rows(manifest)
    if problems:
        raise ManifestError(_summary(problems, name))


def _read_table(file: Path) -> pd.DataFrame:
    if file.suffix not in (".parquet", ".csv"):
        raise ManifestError(f"{file}: a manifest ends in .parquet or .csv.")
    if not file.is_file():
        raise ManifestError(f"{file}: no such manifest. Check the path.")
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        text = {"path": str, "source_id": str, "mask_path": str, "sha256": str}
        return pd.read_csv(file, dtype=text, keep_default_na=False, na_values=[""])
    except Exception as error:
        raise ManifestError(f"{file}: cannot be read as a table ({error}).") from error


def _with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    table = make_manifest(table.to_dict("records"))
    # One bad label makes a CSV column text: the good ones are numbers all the same.
    table["label"] = [int(v) if v in ("0", "1") else v for v in table["label"].astype(object)]
    unnamed = table["variant"].isna()
    table.loc[unnamed, "variant"] = [
        "original" if label == 0 else "regenerated" for label in table.loc[unnamed, "label"]
    ]
    return table


def _with_absolute_paths(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    for column in ("path", "mask_path"):
        table[column] = [
            str(root / value) if isinstance(value, str) and value else None
            for value in table[column]
        ]
    return table


def _with_file_facts(table: pd.DataFrame) -> pd.DataFrame:
    """Fill in what a hand-made manifest leaves out; without hashes no duplicate is found."""
    rows = table.to_dict("records")
    for row in rows:
        missing = [name for name in _FILE if pd.isna(row[name])]
        if missing and isinstance(row["path"], str):
            with suppress(ImageError):  # missing files are reported with the other bad rows
                facts = describe_file(row["path"])
                row.update({name: facts[name] for name in missing})
    return make_manifest(rows)


def _misplaced(root: Path, value: str) -> str | None:
    """Say what is wrong with where a path of a manifest leads, if anything is."""
    if Path(value).is_absolute():
        return (
            f"is absolute. Write it relative to the manifest's folder {root}, with the file in it."
        )
    if not (root / value).resolve().is_relative_to(root):
        return f"leaves the manifest's folder {root}. Move the file inside it."
    return None


def _relative(root: Path, value: Any, position: int) -> str | None:
    if not isinstance(value, str):
        return None
    path = Path(value).resolve()
    if not path.is_relative_to(root):
        rule = f"lies outside {root}, where the manifest is written. Write it above its images."
        raise ManifestError(_problem(position, value, rule)[1])
    return path.relative_to(root).as_posix()


def _problem(position: int, name: Any, rule: str) -> tuple[int, str]:
    return position, f"row {position + 1} ({name}): {rule}"


def _bad_values(manifest: pd.DataFrame) -> list[tuple[int, str]]:
    problems = []
    columns = [manifest[c] for c in ("path", "label", "source_id", "variant")]
    for i, (path, label, source, variant) in enumerate(zip(*columns, strict=True)):
        known = not pd.isna(label) and label in (0, 1)
        if not known:
            rule = f"label must be 0 (real) or 1 (fake), got {label!r}. Correct the label."
            problems.append(_problem(i, path, rule))
        if pd.isna(source) or not str(source).strip():
            problems.append(_problem(i, path, "source_id is empty. Name the untouched source."))
        if pd.isna(variant) or variant not in VARIANTS:
            rule = f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}."
            problems.append(_problem(i, path, rule))
        elif known and (variant == "original") != (label == 0):
            rule = f"label {label} contradicts variant {variant!r}: only originals have label 0."
            problems.append(_problem(i, path, rule))
    return problems


def _bad_files(manifest: pd.DataFrame) -> list[tuple[int, str]]:
    problems = []
    for column in ("path", "mask_path"):
        for i, value in enumerate(manifest[column]):
            if column == "mask_path" and not isinstance(value, str):
                continue
            if not isinstance(value, str) or not Path(value).is_file():
                rule = f"{column} names no file. Restore the file or drop the row."
                problems.append(_problem(i, value, rule))
            elif column == "path" and _has_changed(value, manifest["sha256"].iloc[i]):
                rule = "sha256 is not that of the file. Restore the file, or empty the column."
                problems.append(_problem(i, value, rule))
    return problems


def _has_changed(path: str, digest: Any) -> bool:
    if not isinstance(digest, str):
        return False
    return image_hash(path) != digest.lower()


def _duplicates(manifest: pd.DataFrame) -> list[tuple[int, str]]:
    problems = []
    first_path: dict[Any, int] = {}
    first_hash: dict[str, tuple[int, Any]] = {}
    rows = zip(manifest["path"], manifest["sha256"], manifest["source_id"], strict=True)
    for i, (path, digest, source) in enumerate(rows):
        if first_path.setdefault(path, i) != i:
            rule = f"the same file as row {first_path[path] + 1}. Drop one of the two."
            problems.append(_problem(i, path, rule))
        if isinstance(digest, str):
            row, other = first_hash.setdefault(digest, (i, source))
            if str(other) != str(source):
                rule = (
                    f"same content as row {row + 1} but source_id {source!r} is not {other!r}; one "
                    "image under two sources leaks between folds. Give both one source_id."
                )
                problems.append(_problem(i, path, rule))
    return problems


def _summary(problems: list[tuple[int, str]], name: str, most: int = 10) -> str:
    lines = [f"{name}: {len(problems)} bad row(s)."]
    lines += [f"  {text}" for _, text in problems[:most]]
    if len(problems) > most:
        lines.append(f"  and {len(problems) - most} more.")
    return "\n".join(lines)
