"""Folders of loose images: a Real/Fake tree, or untouched sources only."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from cnnsvm.data.images import SUFFIXES, ImageError, list_images
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.data.readers.deepfakeart import find_record_folders, read_originals
from cnnsvm.data.readers.errors import DatasetError, MissingDataError
from cnnsvm.data.readers.groups import Groups, find_source_ids, refuse_groups
from cnnsvm.io.files import read_json

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLASSES = {"real": 0, "fake": 1}
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
    """Read a tree whose folders are named Real and Fake.

    The class folders may lie in or hold folders named Train, Test, Valid or Validation, in any
    case: ``Train/Real``, ``Real/Train``, ``REAL`` and CIFAKE's ``test/FAKE`` all work.

    Parameters
    ----------
    root : path
    groups : None, regular expression, or path of a CSV table
        What names the source of an image, see `cnnsvm.data.readers.groups.find_source_ids`. With
        None every image is its own source: right only when no fake was made from a real image
        of the tree.
    variant, engine : str
        What to put down for the fakes.
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
        If there are no images, a class is missing, a path names both classes, or ``groups``
        leaves an image without a source.
    """
    folder = check_folder(root)
    files = _list_and_log(folder)
    named = {file: _named(file, folder, CLASSES) for file in files}
    labels = {file: label for file, label in named.items() if label is not None}
    _check_classes(folder, labels.values())
    _log_unclassified(folder, len(files) - len(labels))
    if groups is None:
        _warn_of_namesakes(labels)
    described = []
    sources = find_source_ids(folder, list(labels), groups)
    for (file, label), source in zip(labels.items(), sources, strict=True):
        values: dict[str, Any] = {"split": _named(file, folder, SPLITS)}
        values |= {"variant": variant, "engine": engine} if label else {}
        described.append((file, label, source, values))
    return _to_manifest(described, skip_bad)


def read_sources(
    root: str | os.PathLike[str], groups: Groups = None, *, skip_bad: bool = False
) -> pd.DataFrame:
    """Read a folder of untouched images, to generate from.

    In a DeepfakeArt download, cleaned by ``delete.py`` or not, only the originals are taken and
    the record's folder names the source.

    Parameters
    ----------
    root : path
    groups : None, regular expression, or path of a CSV table
        As in `read_folder`.
    skip_bad : bool
        As in `read_folder`.

    Returns
    -------
    DataFrame
        Manifest with absolute paths, all label 0.

    Raises
    ------
    DatasetError
        If there are no images, or none but records that were made here, a folder is named Fake,
        ``groups`` leaves an image without a source, or ``groups`` is given for records, which
        name their sources themselves.
    """
    folder = check_folder(root)
    if "fake" in find_class_folders(folder):
        raise DatasetError(
            f"{folder}: holds a folder named Fake, so not all of it is untouched. Give the Real "
            "folder alone, or read the tree with read_folder."
        )
    if find_record_folders(folder):  # else masks and inpaintings would pass for sources
        refuse_groups(groups, folder)
        return read_originals(folder)
    files = drop_records(_list_and_log(folder))
    if not files:
        raise DatasetError(
            f"{folder}: all images in it are records that were made here. Give their manifest, or "
            "a folder of untouched images."
        )
    sources = find_source_ids(folder, files, groups)
    return _to_manifest([(f, 0, s, {}) for f, s in zip(files, sources, strict=True)], skip_bad)


def find_class_folders(root: Path) -> set[str]:
    """Return which of the names real and fake the folders below a folder have, in lower case."""
    names = {name.casefold() for _, folders, _ in os.walk(root) for name in folders}
    return names & set(CLASSES)


def holds_records(folder: Path) -> bool:
    """Tell whether a folder is one that `cnnsvm.generation` made or is making records in."""
    return read_json(folder / SETTINGS).get("made_by") in MAKERS


def drop_records(paths: Sequence[Path]) -> list[Path]:
    """Leave out the files of records that `cnnsvm.generation` made: they are no sources."""
    folders = {folder for path in paths for folder in (path.parent, path.parent.parent)}
    made = {folder: _is_made_here(folder) for folder in folders}
    kept = [path for path in paths if not (made[path.parent] or made[path.parent.parent])]
    if len(kept) < len(paths):
        logger.info("left out %d files of records that were made here", len(paths) - len(kept))
    return kept


def _is_made_here(folder: Path) -> bool:
    return {"files", "made_of"} <= set(read_json(folder / RECORD)) or holds_records(folder)


def _to_manifest(
    described: Iterable[tuple[Path, int, str, dict[str, Any]]], skip_bad: bool
) -> pd.DataFrame:
    rows, skipped = [], []
    for file, label, source, values in described:
        try:
            rows.append(make_row(file, label, source, **values))
        except ImageError as error:
            if not skip_bad:
                raise
            skipped.append({"path": str(file), "reason": str(error)})
    manifest = make_manifest(rows)
    manifest.attrs["skipped"] = skipped
    return manifest


def check_folder(root: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a folder, or raise a `MissingDataError`."""
    folder = Path(root).absolute()
    if not folder.is_dir():
        raise MissingDataError(f"{folder}: no such folder. Check the path, or unpack the data.")
    return folder


def _list_and_log(folder: Path) -> list[Path]:
    files = list_images(folder)
    if not files:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise DatasetError(f"{folder}: no images below this folder. Read are {suffixes}.")
    strays = Counter(
        path.suffix.lower() or path.name
        for path in folder.rglob("*")
        if path.is_file() and path.suffix.lower() not in SUFFIXES
    )
    if strays:
        kinds = ", ".join(f"{n} {suffix}" for suffix, n in strays.most_common(5))
        logger.info("%s: ignored %d file(s) that are no images: %s", folder, strays.total(), kinds)
    return files


def _named(file: Path, folder: Path, names: Mapping[str, T]) -> T | None:
    """Return what the folders that a file lies in say, when they agree."""
    parts = [part.casefold() for part in file.relative_to(folder).parts[:-1]]
    said = {names[part] for part in parts if part in names}
    if len(said) > 1:
        raise DatasetError(
            f"{file}: its folders name more than one of {', '.join(names)}. Move it so that the "
            "path names one."
        )
    return said.pop() if said else None


def _check_classes(folder: Path, labels: Iterable[int]) -> None:
    present = set(labels)
    for name, label in CLASSES.items():
        if label not in present:
            raise DatasetError(
                f"{folder}: no images under a folder named {name.title()}; both Real and Fake are "
                f"needed. Add {folder / name.title()}, or read untouched images with read_sources."
            )


def _log_unclassified(folder: Path, n_files: int) -> None:
    if n_files:
        logger.warning("%s: left out %d image(s) under neither Real nor Fake.", folder, n_files)


def _warn_of_namesakes(labels: Mapping[Path, int]) -> None:
    fakes = {file.stem for file, label in labels.items() if label == 1}
    shared = fakes & {file.stem for file, label in labels.items() if label == 0}
    if shared:
        logger.warning(
            "%d fake(s) have the name of a real image, such as %r. If they were made from them, "
            r"name the sources: groups='(.+)\.\w+' takes the file's name.",
            len(shared),
            min(shared),
        )
