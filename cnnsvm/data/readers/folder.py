"""Folders of loose images: a Real/Fake tree, or untouched sources only."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pandas as pd

from cnnsvm.data.manifest import DatasetError, MissingDataError, Reader, describe_files
from cnnsvm.data.readers.class_names import (
    BESIDE_FAKES,
    CLASSES,
    FAKE,
    IS_MASK,
    MASK,
    REAL,
    class_of_folder,
    find_class_folders,
    is_no_source,
    labelling_column,
    plain_name,
    words_of,
)
from cnnsvm.data.readers.deepfakeart import find_record_folders
from cnnsvm.data.scanning import SUFFIXES, folder_names, list_images, scan_images
from cnnsvm.io.files import read_json

logger = logging.getLogger(__name__)

T = TypeVar("T")
Groups = str | os.PathLike[str] | re.Pattern[str] | None

SPLITS = {"train": "train", "test": "test", "valid": "valid", "validation": "valid", "val": "valid"}
#: What `cnnsvm.generation` writes beside records, and which functions of it do.
SETTINGS = "settings.json"
RECORD = "record.json"
MAKERS = ("build", "match_histories")


def read_folder(
    root: str | os.PathLike[str],
    groups: Groups = None,
    *,
    variant: str = "regenerated",
    engine: str = "unknown",
    skip_bad: bool = False,
) -> pd.DataFrame:
    """Read a tree whose folders are named Real and Fake, or as other data sets name them.

    The class folders may lie in or hold folders named Train, Test, Valid or Validation, in any
    case: ``Train/Real``, ``Real/Train``, ``0_real``, ``nature`` beside ``ai``, ``Au`` beside ``Tp``
    and CIFAKE's ``test/FAKE`` all work (`CLASSES`, `BESIDE_FAKES`), and so does ``real_images``
    beside ``fake_images``, unless a folder around them has one of the names itself. Masks, by
    their folder or as ``a_mask.png``, are left out.

    Parameters
    ----------
    root : path
    groups : None, regular expression, or path of a CSV table
        None takes each file for a source of its own, named by its relative path: right only when
        no fake was made from a real image of the tree. A regular expression is searched in the
        file's name (not its folders) and names the source by its group ``source`` or else its
        only group. A path, or a string that ends in ``.csv``, is a table with the columns
        ``path`` (relative to ``root``) and ``source_id``.
    variant, engine : str
        What the manifest says of the fakes.
    skip_bad : bool
        Leave out files whose header is not that of an image, and list them in
        ``attrs["skipped"]`` as {path, reason}; otherwise the first is an `ImageError`.

    Returns
    -------
    DataFrame
        Manifest with absolute paths; ``split`` is train, test, valid or None.

    Raises
    ------
    DatasetError
        If there are no images, a class is missing, a path names both classes, or ``groups`` is
        malformed or leaves an image without a source.
    """
    folder = _check_folder(root)
    files, _ = _list_files(folder)
    classes = CLASSES | (BESIDE_FAKES if FAKE in find_class_folders(folder).values() else {})
    named = {file: _class_of_file(file, folder, classes) for file in files}
    labels = {file: label for file, label in named.items() if label in (REAL, FAKE)}
    _check_classes(folder, labels.values())
    n_masks = list(named.values()).count(MASK)
    for n, what in ((n_masks, "masks"), (len(files) - len(labels) - n_masks, "neither class")):
        if n:
            logger.warning("%s: left out %d image(s) in folders of %s.", folder, n, what)
    if groups is None:
        _warn_of_namesakes(labels)
    making: dict[str, Any] = {"variant": variant, "engine": engine}
    described = [
        (file, label, {"split": _named(file, folder, SPLITS)} | (making if label else {}))
        for file, label in labels.items()
    ]
    return _to_manifest(folder, described, groups, skip_bad)


def read_sources(
    root: str | os.PathLike[str], groups: Groups = None, *, skip_bad: bool = False
) -> pd.DataFrame:
    """Read a folder of untouched images, to generate from, with parameters as in `read_folder`.

    Returns
    -------
    DataFrame
        Manifest with absolute paths, all label 0. Records that `cnnsvm.generation` made are left
        out.

    Raises
    ------
    DatasetError
        If there are no images, or none but records, a folder or file is named as those of fakes or
        masks are, or ``groups`` is malformed or leaves an image without a source.
    """
    folder = _check_folder(root)
    if find_record_folders(folder):  # else masks and inpaintings would pass for sources
        raise DatasetError(
            f"{folder}: holds records, whose masks and fakes are no sources. Read it with "
            "read_records(..., only_originals=True)."
        )
    names = (folder.name, *folder_names(folder))
    suspect = [name for name in names if words_of(name) & {FAKE, MASK}]
    above = plain_name(folder.parent.name)
    suspect += [above] if CLASSES.get(above) in (FAKE, MASK) else []
    if suspect:
        raise DatasetError(
            f"{folder}: is, lies in or holds a folder named {suspect[0]}, so not all is untouched. "
            "Give the folder of the untouched images alone, read the tree with read_folder, or "
            "rename what is untouched."
        )
    files, tables = _list_files(folder)
    files = drop_records(files)
    if not files:
        raise DatasetError(
            f"{folder}: all images in it are records that were made here. Give their manifest, or "
            "a folder of untouched images."
        )
    fakes = [file for file in files if is_no_source(file.stem)]
    if fakes:
        raise DatasetError(
            f"{folder}: {len(fakes)} of {len(files)} images are named like masks or fakes, the "
            f"first is {fakes[0].name}. Move them away, or rename what is untouched."
        )
    _check_tables(folder, files, [*tables, *folder.parent.glob("*.csv")])
    return _to_manifest(folder, [(file, 0, {}) for file in files], groups, skip_bad)


def _check_tables(folder: Path, files: Sequence[Path], tables: Iterable[Path]) -> None:
    """Refuse sources that a table in or beside their folder tells apart as real and fake."""
    names = {name for file in files for name in (file.name, file.stem)}
    for table in tables:
        if column := labelling_column(table, names):
            raise DatasetError(
                f"{folder}: the column {column!r} of {table} labels these images, so not all of "
                "them may be untouched. Make it a manifest (path, label, source_id), or move it "
                "away if all are."
            )


def _class_of_file(file: Path, folder: Path, classes: Mapping[str, int]) -> int | None:
    """Return the class that the folders of a file are named as, else that their words say."""
    if IS_MASK.search(file.stem.casefold()):
        return MASK
    said = _named(file, folder, classes)
    if said is not None:
        return said
    parts = {part: class_of_folder(part, {}) for part in file.relative_to(folder).parts[:-1]}
    return _named(file, folder, {plain_name(k): v for k, v in parts.items() if v is not None})


def holds_records(folder: Path) -> bool:
    """Tell whether a folder is one that `cnnsvm.generation` made or is making records in."""
    return read_json(folder / SETTINGS).get("made_by") in MAKERS


def drop_records(paths: Sequence[Path]) -> list[Path]:
    """Leave out the files of records that `cnnsvm.generation` made: they are no sources."""
    folders = {folder for path in paths for folder in (path.parent, path.parent.parent)}
    made = {
        folder: {"files", "made_of"} <= set(read_json(folder / RECORD)) or holds_records(folder)
        for folder in folders
    }
    kept = [path for path in paths if not (made[path.parent] or made[path.parent.parent])]
    if len(kept) < len(paths):
        logger.info("left out %d files of records that were made here", len(paths) - len(kept))
    return kept


def _check_folder(root: str | os.PathLike[str]) -> Path:
    folder = Path(root).absolute()
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: no such folder. Check the path, or unpack the data.")
    return folder


def _list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the images of a folder, and its tables."""
    files, skipped = scan_images(folder)
    if not files:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise DatasetError(f"{folder}: no images below this folder. Read are {suffixes}.")
    others = Counter(f"{path.suffix.lower() or path.name}, {reason}" for path, reason in skipped)
    if others:
        kinds = "; ".join(f"{n} {kind}" for kind, n in others.most_common(5))
        logger.info("%s: skipped %d file(s): %s", folder, others.total(), kinds)
    return files, [path for path, _ in skipped if path.suffix.lower() == ".csv"]


def _to_manifest(
    folder: Path,
    described: Sequence[tuple[Path, int, dict[str, Any]]],
    groups: Groups,
    skip_bad: bool,
) -> pd.DataFrame:
    """Make the manifest of files with their labels and further columns."""
    sources = _name_sources(folder, [file for file, _, _ in described], groups)
    files = (
        {"path": file, "label": label, "source_id": source, **values}
        for (file, label, values), source in zip(described, sources, strict=True)
    )
    return describe_files(files, skip_bad=skip_bad)


def _named(file: Path, folder: Path, names: Mapping[str, T]) -> T | None:
    """Return what the folders that a file lies in say, when they agree."""
    parts = [plain_name(part) for part in file.relative_to(folder).parts[:-1]]
    said = {names[part] for part in parts if part in names}
    if len(said) > 1:
        raise DatasetError(
            f"{file}: its folders name more than one of {', '.join(names)}. Move it so that the "
            "path names one."
        )
    return said.pop() if said else None


def _check_classes(folder: Path, labels: Iterable[int]) -> None:
    found = set(labels)
    missing = [name for name, label in (("Real", REAL), ("Fake", FAKE)) if label not in found]
    if missing:
        raise DatasetError(
            f"{folder}: no images under a folder named {missing[0]}; both Real and Fake are "
            f"needed. Add {folder / missing[0]}, or read untouched images with read_sources."
        )


def _warn_of_namesakes(labels: Mapping[Path, int]) -> None:
    real, fake = ({f.stem for f, label in labels.items() if label == k} for k in (0, 1))
    if real & fake:
        logger.warning(
            "%d fake(s) have the name of a real image, such as %r. If they were made from them, "
            r"name the sources: groups='(.+)\.\w+' takes the file's name.",
            len(real & fake),
            min(real & fake),
        )


def _name_sources(root: Path, files: Sequence[Path], groups: Groups) -> list[str]:
    names = [file.relative_to(root).as_posix() for file in files]
    if groups is None:
        return names
    if isinstance(groups, str) and groups.lower().endswith(".csv"):
        groups = Path(groups)
    if isinstance(groups, os.PathLike):
        sources = _read_table(Path(groups))
        missing = [name for name in names if name not in sources]
        if missing:
            raise DatasetError(
                f"{groups}: no row for {len(missing)} image(s), the first is {missing[0]}. Every "
                f"image needs a row whose path is relative to {root}."
            )
        return [sources[name] for name in names]
    pattern = _compile(groups)
    return [_from_name(file.name, pattern) for file in files]


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


def _read_table(file: Path) -> dict[str, str]:
    if not file.is_file():
        raise MissingDataError(f"{file}: no such table of groups. Check the path.")
    try:
        table = pd.read_csv(
            file, dtype=str, keep_default_na=False, encoding_errors="surrogateescape"
        )
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
        if not source.strip() or name in sources:
            rule = "this path has a row already" if source.strip() else "source_id is empty"
            raise DatasetError(f"{file}: row {number} ({path}): {rule}. Correct the table.")
        sources[name] = source
    return sources


TREE = Reader(
    "a Real/Fake tree  <folder>/Train/Real/a.jpg, <folder>/Train/Fake/b.jpg (Train, Test optional)",
    find_class_folders,
    read_folder,
    ("groups", "variant", "engine", "skip_bad"),
)
SOURCES = Reader(
    "sources           <folder>/a.jpg: untouched images only",
    list_images,
    read_sources,
    ("groups", "skip_bad"),
)
