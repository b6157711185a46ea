"""The manifest: one row an image, and the checks that keep bad rows out of results.

In memory a manifest is a ``pandas.DataFrame`` whose ``path`` and ``mask_path`` are absolute, so
that any part of it can be used on its own. On disk (Parquet or CSV) they are relative to the
folder that holds the manifest, so that the folder can move.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cnnsvm.data.images import ImageError, image_hash, read_header
from cnnsvm.io.files import replacing
from cnnsvm.io.tables import to_csv

REQUIRED = ("path", "label", "source_id")
_MAKING = ("variant", "engine", "mask_schema", "mask_path", "split")
_FILE = ("width", "height", "format", "sha256")
COLUMNS = [*REQUIRED, *_MAKING, *_FILE]
GENERATED_COLUMNS = ("seed", "prompt", "model_id", "model_revision")
VARIANTS = ("original", "regenerated", "spliced")
SUFFIXES = (".parquet", ".csv")
_PATHS = ("path", "mask_path")
_SHOWN = 10  # bad rows in a message


class DatasetError(ValueError):
    """A data set that cannot be read as it is; the message says what to change."""


class MissingDataError(DatasetError, FileNotFoundError):
    """A file or folder that should be there is not."""


class ManifestError(DatasetError):
    """A manifest that may not be used; the message lists rows, rules and remedies."""


class Reader(NamedTuple):
    """A layout of data sets that `cnnsvm.data.readers.open_dataset` reads.

    Attributes
    ----------
    layout : str
        What it looks like, for messages: a name of up to 16 letters, and an example.
    recognise : callable
        Maps a folder, or a file, to something true if it has this layout.
    read : callable
        Maps it to its manifest: one row an image, absolute paths, label 0 (real) or 1 (fake).
    options : tuple of str
        Keywords of `open_dataset` that ``read`` takes. Without "groups", the data themselves say
        which images share a source, and groups are refused.
    """

    layout: str
    recognise: Callable[[Path], object]
    read: Callable[..., pd.DataFrame]
    options: tuple[str, ...] = ()


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read width, height (pixels, upright), format and SHA-256 of an image without decoding it.

    An ImageError is raised if the file is missing or its header is not that of an image.
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
) -> dict[str, Any]:
    """Build the manifest row of an image with a label, 0 real or 1 fake.

    ``source_id`` names the untouched image that this one is or was made from; ``facts`` is what
    `describe_file` returns for it, and None reads the file. ``values`` are any other columns;
    ``variant`` is "original" for label 0, else "regenerated", unless given.
    """
    row = dict.fromkeys(COLUMNS)
    row.update(path=str(Path(path).absolute()), label=label, source_id=str(source_id))
    row["variant"] = _default_variant(label)
    known = describe_file(path) if facts is None else facts
    return row | {name: known[name] for name in _FILE} | values


def make_manifest(rows: Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """Collect rows into a table with every column of the manifest, in the standard order."""
    table = pd.DataFrame(list(rows))
    for column in COLUMNS:
        if column not in table:
            table[column] = None
    extra = [column for column in table.columns if column not in COLUMNS]
    return table[[*COLUMNS, *extra]]


def describe_files(files: Iterable[Mapping[str, Any]], *, skip_bad: bool = False) -> pd.DataFrame:
    """Make the manifest of image files.

    Parameters
    ----------
    files : iterable of mapping
        What `make_row` takes of each: ``path``, ``label``, ``source_id`` and further columns.
    skip_bad : bool
        Leave out what is no image, and list it in ``attrs["skipped"]`` as {path, reason};
        otherwise the first is an `ImageError`.
    """
    rows, skipped = [], []
    for file in files:
        try:
            rows.append(make_row(**file))
        except ImageError as error:
            if not skip_bad:
                raise
            skipped.append({"path": str(file["path"]), "reason": str(error)})
    manifest = make_manifest(rows)
    manifest.attrs["skipped"] = skipped
    return manifest


def read_manifest(path: str | os.PathLike[str], *, check: bool = True) -> pd.DataFrame:
    """Read a manifest, make its paths absolute, and fill in what the files themselves tell.

    ``check`` refuses bad rows (see `find_bad_rows`) with row number, rule and remedy
    (`ManifestError`); a missing column and paths that leave the folder always are.
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
    rows = make_manifest(table.to_dict("records")).to_dict("records")
    _refuse([problem for i, row in enumerate(rows) for problem in _misplaced(root, i, row)], file)
    manifest = make_manifest(_complete(row, root) for row in rows)
    if check:
        check_manifest(manifest, str(file))
    return manifest


def write_manifest(manifest: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a manifest atomically, its paths relative to the folder it is written in.

    A ManifestError is raised if a row's file lies outside that folder, or ``path`` does not end in
    .parquet or .csv.
    """
    file = _check_suffix(Path(path))
    root = file.parent.resolve()
    table = manifest.copy()
    for column in table.columns.intersection(list(_PATHS)):
        table[column] = [_relative(root, value, i) for i, value in enumerate(manifest[column])]
    with replacing(file) as partial:
        if file.suffix == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            partial.write_bytes(to_csv(table).encode(errors="surrogateescape"))
    return file


def find_bad_rows(manifest: pd.DataFrame) -> list[tuple[int, str]]:
    """List what is wrong with the rows of a manifest of absolute paths, as (position, problem).

    ``position`` counts rows from 0; the problem counts them from 1, names the file and gives the
    rule and the remedy.
    """
    first_path: dict[Any, int] = {}
    first_hash: dict[str, tuple[int, Any]] = {}
    problems = []
    for i, row in enumerate(manifest.to_dict("records")):
        rules = [*_bad_values(row), *_bad_files(row)]
        same = first_path.setdefault(row["path"], i)
        if same != i:
            rules.append(f"the same file as row {same + 1}. Drop one of the two.")
        if isinstance(row["sha256"], str):
            source = row["source_id"]
            same, other = first_hash.setdefault(row["sha256"], (i, source))
            if str(other) != str(source):
                rules.append(
                    f"same content as row {same + 1} but source_id {source!r} is not {other!r}; "
                    "one image under two sources leaks between folds. Give both one source_id."
                )
        problems += [_problem(i, row["path"], rule) for rule in rules]
    return problems


def check_manifest(manifest: pd.DataFrame, name: str = "manifest") -> None:
    """Raise a `ManifestError` that lists the bad rows, if there are any."""
    _refuse(find_bad_rows(manifest), name)


def _refuse(problems: list[tuple[int, str]], name: str | Path) -> None:
    if problems:
        lines = [f"{name}: {len(problems)} bad row(s)."]
        lines += [f"  {text}" for _, text in problems[:_SHOWN]]
        lines += [f"  and {len(problems) - _SHOWN} more."] if len(problems) > _SHOWN else []
        raise ManifestError("\n".join(lines))


def _problem(position: int, name: Any, rule: str) -> tuple[int, str]:
    return position, f"row {position + 1} ({name}): {rule}"


def _default_variant(label: Any) -> str:
    return "original" if label == 0 else "regenerated"


def _check_suffix(file: Path) -> Path:
    if file.suffix not in SUFFIXES:
        raise ManifestError(f"{file}: a manifest ends in {' or '.join(SUFFIXES)}.")
    return file


def _read_table(file: Path) -> pd.DataFrame:
    if not _check_suffix(file).is_file():
        raise ManifestError(f"{file}: no such manifest. Check the path.")
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        text = dict.fromkeys(("path", "source_id", "mask_path", "sha256"), str)
        return pd.read_csv(
            file,
            dtype=text,
            keep_default_na=False,
            na_values=[""],
            encoding_errors="surrogateescape",
        )
    except Exception as error:
        raise ManifestError(f"{file}: cannot be read as a table ({error}).") from error


def _complete(row: dict[Any, Any], root: Path) -> dict[Any, Any]:
    """Make paths absolute and fill in defaults; without hashes no duplicate would be found."""
    if row["label"] in ("0", "1"):  # one bad label makes a whole CSV column text
        row["label"] = int(row["label"])
    if pd.isna(row["variant"]):
        row["variant"] = _default_variant(row["label"])
    for column in _PATHS:
        value = row[column]
        row[column] = str(root / value) if isinstance(value, str) and value else None
    missing = [name for name in _FILE if pd.isna(row[name])]
    if missing and row["path"]:
        with suppress(ImageError):  # missing files are reported with the other bad rows
            facts = describe_file(row["path"])
            row.update({name: facts[name] for name in missing})
    return row


def _misplaced(root: Path, position: int, row: Mapping[Any, Any]) -> Iterator[tuple[int, str]]:
    """Refuse paths that lead out of the manifest's folder."""
    for value in (row[column] for column in _PATHS):
        if not isinstance(value, str):
            continue
        if Path(value).is_absolute():
            rule = f"is absolute. Write it relative to the manifest's folder {root}, with the file"
            yield _problem(position, value, f"{rule} in it.")
        elif not (root / value).resolve().is_relative_to(root):
            rule = f"leaves the manifest's folder {root}. Move the file inside it."
            yield _problem(position, value, rule)


def _relative(root: Path, value: Any, position: int) -> str | None:
    if not isinstance(value, str):
        return None
    path = Path(value).resolve()
    if not path.is_relative_to(root):
        rule = f"lies outside {root}, where the manifest is written. Write it above its images."
        raise ManifestError(_problem(position, value, rule)[1])
    return path.relative_to(root).as_posix()


def _bad_values(row: Mapping[Any, Any]) -> Iterator[str]:
    label, source, variant = row["label"], row["source_id"], row["variant"]
    known = not pd.isna(label) and label in (0, 1)
    if not known:
        yield f"label must be 0 (real) or 1 (fake), got {label!r}. Correct the label."
    if pd.isna(source) or not str(source).strip():
        yield "source_id is empty. Name the untouched source."
    if pd.isna(variant) or variant not in VARIANTS:
        yield f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}."
    elif known and (variant == "original") != (label == 0):
        yield f"label {label} contradicts variant {variant!r}: only originals have label 0."


def _bad_files(row: Mapping[Any, Any]) -> Iterator[str]:
    path, mask, digest = row["path"], row["mask_path"], row["sha256"]
    if not isinstance(path, str) or not Path(path).is_file():
        yield "path names no file. Restore the file or drop the row."
    elif isinstance(digest, str) and image_hash(path) != digest.lower():
        yield "sha256 is not that of the file. Restore the file, or empty the column."
    if isinstance(mask, str) and not Path(mask).is_file():
        yield f"mask_path {mask} names no file. Restore the file or drop the row."
