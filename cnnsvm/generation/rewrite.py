"""Rewrite the files of one record through one history."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import describe_file
from cnnsvm.generation.post_processing import History
from cnnsvm.generation.store import RECORD, forget_record, read_record, start_record, write_record
from cnnsvm.io.files import clear_partials, write_bytes

Size = tuple[int, int]
Row = dict[str, Any]
Skips = list[tuple[str, ImageError]]

_NEAREST = History(resample="nearest")


@dataclass(frozen=True)
class _File:
    """A file of the record, as it is and as it will be called."""

    path: str
    size: Size
    sha256: str
    new: Path


@dataclass(frozen=True)
class _Item:
    """An image of the record with its row, and its mask if it has one."""

    position: int
    row: Row
    image: _File
    mask: _File | None


def rewrite_record(
    rows: Mapping[int, Row], folder: Path, history: History
) -> tuple[dict[int, Row], Skips]:
    """Rewrite the images of one record into a folder.

    Parameters
    ----------
    rows : mapping of position to row
        The manifest rows of the record.
    folder : Path
        Folder of this record alone.
    history : History

    Returns
    -------
    made : dict of position to row
        The new rows.
    bad : list of (path, ImageError)
        The other images, each with the reason.
    """
    items, bad = _describe(rows, folder, history)
    try:
        for path, error in bad:
            _check_no_original(path, error, rows)
        size = _common_size(items)
        made = _rewrite(items, folder, size, history, bad)
    except ImageError as error:
        named = dict(bad)
        return {}, [(row["path"], named.get(row["path"], error)) for row in rows.values()]
    return made, bad


def _describe(rows: Mapping[int, Row], folder: Path, history: History) -> tuple[list[_Item], Skips]:
    items: list[_Item] = []
    bad: Skips = []
    taken = {RECORD}
    masks: dict[str, _File] = {}
    for position, row in rows.items():
        try:
            image = _file(row["path"], folder, history.suffix, taken)
            mask = row.get("mask_path")
            if isinstance(mask, str) and mask not in masks:
                masks[mask] = _file(mask, folder, Path(mask).suffix, taken)
        except ImageError as error:
            bad.append((row["path"], error))
            continue
        items.append(_Item(position, row, image, masks.get(str(mask))))
    return items, bad


def _file(path: str, folder: Path, suffix: str, taken: set[str]) -> _File:
    facts = describe_file(path)
    name = _free_name(Path(path).stem, suffix, taken)
    return _File(path, (facts["width"], facts["height"]), facts["sha256"], folder / name)


def _free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """Return a name that no other file of the record has, even where case does not count."""
    stem, suffix = (re.sub(r"[^A-Za-z0-9._-]+", "_", part) for part in (stem, suffix))
    first = stem.strip("._-")[:64] or "image"
    name, number = f"{first}{suffix}", 1
    while name.lower() in taken:
        number += 1
        name = f"{first}_{number}{suffix}"
    taken.add(name.lower())
    return name


def _check_no_original(path: str, error: ImageError, rows: Mapping[int, Row]) -> None:
    if any(row["path"] == path and row["label"] == 0 for row in rows.values()):
        raise ImageError(f"the original {path} cannot be used: {error}") from error


def _common_size(items: Iterable[_Item]) -> Size | None:
    """Return the size of the fakes, None if there is no fake."""
    fakes = [item for item in items if item.row["label"] != 0]
    sizes = sorted({fake.image.size for fake in fakes})
    if len(sizes) > 1:
        named = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise ImageError(
            f"source {fakes[0].row['source_id']!r}: its fakes have several sizes ({named}), and "
            "an original can match only one. Make each size a record by a column 'record'."
        )
    return sizes[0] if sizes else None


def _rewrite(
    items: list[_Item], folder: Path, size: Size | None, history: History, bad: Skips
) -> dict[int, Row]:
    # sizes and names follow from these files and their order; the history from the whole folder
    made_of = [
        [int(i.row["label"]), i.image.new.name, i.image.sha256, i.mask and i.mask.sha256]
        for i in items
    ]
    done = items
    if read_record(folder, made_of) is None:
        clear_partials(folder)
        planned = [file.new.name for item in items for file in (item.image, item.mask) if file]
        start_record(folder, planned, made_of)
        try:
            done = [item for item in items if _rewrite_item(item, size, history, bad)]
        except ImageError:
            forget_record(folder)  # no fakes without their original
            raise
        if not bad:  # what was bad is tried, and reported, again
            new = {file.new.name for item in done for file in (item.image, item.mask) if file}
            write_record(folder, sorted(new), made_of)
    return {item.position: _new_row(item, history) for item in done}


def _rewrite_item(item: _Item, size: Size | None, history: History, bad: Skips) -> bool:
    try:
        image = history.resize(load_image(item.image.path), size or item.image.size)
        content = history.encode(history.apply(image))
        if item.mask:
            write_bytes(item.mask.new, _mask_content(item.mask, size or item.image.size))
    except ImageError as error:
        if item.row["label"] == 0:
            raise
        bad.append((item.row["path"], error))
        return False
    write_bytes(item.image.new, content)
    return True


def _mask_content(mask: _File, size: Size) -> bytes:
    pixels = load_image(mask.path)  # before copying too: a damaged mask is no mask
    if mask.size == size:
        return Path(mask.path).read_bytes()
    return _NEAREST.encode(_NEAREST.resize(pixels, size)[:, :, 0])


def _new_row(item: _Item, history: History) -> Row:
    new = {"path": str(item.image.new), "mask_path": item.mask and str(item.mask.new)}
    return {**item.row, **new, **describe_file(item.image.new), "history": str(history)}
