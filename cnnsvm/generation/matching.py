"""Rewrite records made elsewhere so that originals and fakes share one post-processing."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import REQUIRED, describe_file, make_manifest
from cnnsvm.data.mask_files import read_mask_levels
from cnnsvm.data.readers.folder import RECORD
from cnnsvm.generation.post_processing import PostProcessing
from cnnsvm.generation.sources import skip
from cnnsvm.generation.store import (
    GenerationError,
    check_owners,
    claim_folder,
    forget_record,
    map_in_threads,
    read_record,
    safe_name,
    start_record,
    write_record,
    write_results,
)
from cnnsvm.io.files import clear_partials, text_hash, write_bytes
from cnnsvm.io.progress import show_progress

Size = tuple[int, int]
Row = dict[str, Any]
Skips = list[tuple[str, ImageError]]

_NEW = {"path", "mask_path", "width", "height", "format", "sha256", "history"}
_NEAREST = PostProcessing(resample="nearest")


@dataclass(frozen=True)
class _File:
    """A file of a record: its present path, size and hash, and its new path."""

    path: str
    size: Size
    sha256: str
    new: Path


@dataclass(frozen=True)
class _Item:
    """An image of a record with its manifest row, the row's position, and its mask if any."""

    position: int
    row: Row
    image: _File
    mask: _File | None


def match_post_processing(
    manifest: pd.DataFrame,
    folder: str | os.PathLike[str],
    post_processing: PostProcessing | str,
    *,
    n_jobs: int | None = None,
    skip_bad: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Rewrite every image of a manifest through one code path.

    The originals of a record are resized to the size of its fakes; then all images are resized to
    the working size and back, if there is one, and encoded with one codec and quality. Masks are
    copied, or resized by nearest neighbour. A record is what shares the column ``record``, or
    ``source_id`` where there is none. A repeated call resumes: records already made of the same
    files are not made again. One process at a time may write to a folder.

    ``<record>/<name>``, ``manifest.parquet`` and ``errors.csv`` go to ``folder``; ``n_jobs``
    threads work as in joblib. ``skip_bad`` reports what cannot be used and goes on; else an
    ImageError is raised. A GenerationError says that columns are missing, nothing is left, or the
    folder holds records of other settings.

    Returns the rows in their order with new path, mask_path, width, height, format, sha256 and
    ``history`` (the post-processing). ``attrs["skipped"]`` lists the missing rows as dicts of
    ``path`` and ``reason``: an unreadable image alone; with a bad original, or fakes of several
    sizes, the whole record.
    """
    parsed = PostProcessing.of(post_processing)
    records = _split_records(manifest)
    root = Path(folder).absolute()
    _check_elsewhere(manifest, root)
    claim_folder(root, {"made_by": "match_histories", "history": str(parsed)})
    clear_partials(root)
    outcomes = map_in_threads(
        lambda item: _rewrite_record(item[1], root / item[0], parsed), list(records.items()), n_jobs
    )
    made: dict[int, Row] = {}
    skipped: list[dict[str, str]] = []
    owners: dict[str, str] = {}
    with closing(outcomes):
        for done, bad in show_progress(outcomes, len(records), "records", progress):
            for path, error in bad:
                skip(skipped, path, error, skip_bad)
            try:
                check_owners(done.values(), owners)
                made |= done
            except ImageError as error:
                for position in done:
                    skip(skipped, str(manifest["path"].iloc[position]), error, skip_bad)
    if not made:
        raise GenerationError(
            f"none of {len(manifest)} images can be used. First: {skipped[0]['reason']}"
        )
    table = make_manifest(made[position] for position in sorted(made))
    kept = {c: manifest[c].dtype for c in manifest.columns if c not in _NEW}
    table = table.astype(kept)
    write_results(root, table, skipped)
    return table


def _check_elsewhere(manifest: pd.DataFrame, root: Path) -> None:
    inside = [p for p in manifest["path"].map(str) if Path(p).absolute().is_relative_to(root)]
    if inside:
        raise GenerationError(
            f"{len(inside)} of {len(manifest)} images lie in {root}, where they would be written "
            f"over, the first is {inside[0]}. Choose another folder."
        )


def _split_records(manifest: pd.DataFrame) -> dict[str, dict[int, Row]]:
    """Sort the rows, by their position, into records by the name of the record's folder."""
    missing = [column for column in REQUIRED if column not in manifest]
    if missing or manifest.empty:
        raise GenerationError(
            f"a manifest needs rows and the columns {', '.join(REQUIRED)}; "
            f"got {len(manifest)} rows, missing: {', '.join(missing) or 'none'}."
        )
    records: dict[str, dict[int, Row]] = {}
    for position, row in enumerate(manifest.to_dict("records")):
        name = row.get("record")
        key = f"{row['source_id']}/{name}" if isinstance(name, str) else str(row["source_id"])
        folder = safe_name(key, text_hash(key))
        records.setdefault(folder, {})[position] = {str(k): v for k, v in row.items()}
    return records


def _rewrite_record(
    rows: Mapping[int, Row], folder: Path, post_processing: PostProcessing
) -> tuple[dict[int, Row], Skips]:
    """Return the new rows by position, and the path and error of what cannot be used."""
    items, bad = _describe(rows, folder, post_processing)
    try:
        originals = {row["path"] for row in rows.values() if row["label"] == 0}
        for path, error in bad:
            if path in originals:
                raise ImageError(f"the original {path} cannot be used: {error}") from error
        size = _common_size(items)
        made = _rewrite(items, folder, size, post_processing, bad)
    except ImageError as error:
        named = dict(bad)
        return {}, [(row["path"], named.get(row["path"], error)) for row in rows.values()]
    return made, bad


def _describe(
    rows: Mapping[int, Row], folder: Path, post_processing: PostProcessing
) -> tuple[list[_Item], Skips]:
    items: list[_Item] = []
    bad: Skips = []
    taken = {RECORD}
    masks: dict[str, _File] = {}
    for position, row in rows.items():
        try:
            image = _file(row["path"], folder, post_processing.suffix, taken)
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
    items: list[_Item], folder: Path, size: Size | None, post_processing: PostProcessing, bad: Skips
) -> dict[int, Row]:
    # sizes and names follow from these files and their order
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
            done = [item for item in items if _rewrite_item(item, size, post_processing, bad)]
        except ImageError:
            forget_record(folder)  # no fakes without their original
            raise
        if not bad:  # what was bad is tried, and reported, again
            new = {file.new.name for item in done for file in (item.image, item.mask) if file}
            write_record(folder, sorted(new), made_of)
    return {item.position: _new_row(item, post_processing) for item in done}


def _rewrite_item(
    item: _Item, size: Size | None, post_processing: PostProcessing, bad: Skips
) -> bool:
    try:
        image = post_processing.resize(load_image(item.image.path), size or item.image.size)
        content = post_processing.encode(post_processing.apply(image))
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
    levels = read_mask_levels(mask.path)  # before copying too: a damaged mask is no mask
    if mask.size == size:
        return Path(mask.path).read_bytes()
    return _NEAREST.encode(_NEAREST.resize(levels, size))


def _new_row(item: _Item, post_processing: PostProcessing) -> Row:
    new = {"path": str(item.image.new), "mask_path": item.mask and str(item.mask.new)}
    return {**item.row, **new, **describe_file(item.image.new), "history": str(post_processing)}
