"""Sources: the untouched images that records are made from."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.images import ImageError, read_header
from cnnsvm.data.manifest import (
    COLUMNS,
    GENERATED_COLUMNS,
    REQUIRED,
    describe_file,
    read_manifest,
)
from cnnsvm.data.readers.folder import drop_records
from cnnsvm.data.scanning import list_images
from cnnsvm.generation.store import GenerationError, safe_name

logger = logging.getLogger(__name__)

MIN_SIDE = 16  # pixels: below, half an image holds less than one block of a codec or an encoder

SourceInput = pd.DataFrame | str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_OF_BUILD = {"history", "record", "resized_from", "source_format", "engine_format"}
_MADE_HERE = {*COLUMNS, *GENERATED_COLUMNS, *_OF_BUILD} - {"split"}


@dataclass(frozen=True)
class Source:
    """An untouched image: its file, group, content and size, and the columns to carry along."""

    path: str
    source_id: str
    sha256: str
    size: tuple[int, int]  # width, height
    format: str  # of the file that it was first known as
    prompt: str | None = None
    carried: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None

    @property
    def record(self) -> str:
        """Name of the record's folder: the group, made safe, and a digest of the content.

        A record that was made before keeps its folder, though its group has another name now.
        """
        return self.folder or safe_name(self.source_id, self.sha256)


def find_sources(
    sources: SourceInput,
    outside: Path,
    *,
    skip_bad: bool = True,
    companions: Sequence[Callable[[str], Path]] = (),
) -> tuple[list[Source], list[dict[str, str]]]:
    """List the sources among images, no two of the same content, and what had to be skipped.

    Of a manifest the rows of label 0 count, each with its ``source_id``, ``split``, ``prompt`` and
    other columns; a file on its own gets its stem and a digest of its content as ``source_id``.
    Images in the folder ``outside``, that of the records, are no sources, nor are the masks and
    finished repaintings that ``companions`` find. A GenerationError is raised if there is nothing
    to choose from, and an ImageError if a file is bad and ``skip_bad`` is False.
    """
    found: dict[str, Source] = {}
    # records that are there, by the digest that their names end in
    places = [place for place in outside.glob("*") if place.is_dir()]
    folders = {place.name[-12:]: place.name for place in places}
    skipped = list(sources.attrs.get("skipped", [])) if isinstance(sources, pd.DataFrame) else []
    if skipped and not skip_bad:
        raise ImageError(skipped[0]["reason"])
    candidates = _candidates(sources, outside, skipped)
    beside = _companions((path for path, _, _ in candidates), companions)
    for path, source_id, carried in candidates:
        if os.path.normpath(path) in beside:
            logger.info("%s belongs to another image and is no source", path)
            continue
        try:
            facts = _describe_source(path, source_id, found)
        except ImageError as error:
            skip(skipped, path, error, skip_bad)
            continue
        digest = facts["sha256"]
        prompt, origin = carried.pop("prompt", None), carried.pop("source_format", None)
        found[digest] = Source(
            path,
            source_id or f"{Path(path).stem}-{digest[:12]}",
            digest,
            (facts["width"], facts["height"]),
            origin if isinstance(origin, str) else str(read_header(path).coding),
            prompt if isinstance(prompt, str) and prompt.strip() else None,
            carried,
            folders.get(digest[:12]),
        )
    return list(found.values()), skipped


def _describe_source(
    path: str, source_id: str | None, found: Mapping[str, Source]
) -> dict[str, Any]:
    """Describe the file of a source; an `ImageError` says why it is none."""
    if source_id == "":
        raise ImageError(f"{path}: its source_id is empty. Name the untouched source.")
    if Path(path).name.encode(errors="replace") != os.fsencode(Path(path).name):
        raise ImageError(f"{path}: its name is not UTF-8, which a manifest needs. Rename the file.")
    facts = describe_file(path)
    if min(facts["width"], facts["height"]) < MIN_SIDE:
        raise ImageError(
            f"{path}: {facts['width']}x{facts['height']} pixels; a source has at least {MIN_SIDE} "
            "a side. Leave such small images out."
        )
    if same := found.get(facts["sha256"]):
        raise ImageError(
            f"{path}: the same content as {same.path}; one record is enough and two would leak "
            "between folds. Drop one."
        )
    return facts


def skip(skipped: list[dict[str, str]], path: str, reason: Exception, skip_bad: bool) -> None:
    """Add an image to the skipped ones and log it, or raise the reason."""
    if not skip_bad:
        raise reason
    logger.warning("skipped %s: %s", path, reason)
    skipped.append({"path": path, "reason": str(reason)})


def _companions(paths: Iterable[str], finders: Sequence[Callable[[str], Path]]) -> set[str]:
    found = set()
    for path in paths if finders else ():
        for find in finders:
            with suppress(ImageError):  # of a file that is its own, the engine says so
                place = os.path.normpath(find(path))
                found |= {place} - {os.path.normpath(path)}
    return found


def _candidates(
    sources: SourceInput, outside: Path, skipped: list[dict[str, str]]
) -> list[tuple[str, str | None, dict[str, Any]]]:
    if isinstance(sources, (str, os.PathLike)):
        place = Path(sources)
        if place.suffix in (".parquet", ".csv"):
            sources = read_manifest(place)
        else:
            sources = drop_records(list_images(place)) if place.is_dir() else [place]
    if isinstance(sources, pd.DataFrame):
        candidates = _manifest_candidates(sources, skipped)
    else:
        candidates = [(os.fspath(path), None, {}) for path in sources]
    kept = [c for c in candidates if not Path(c[0]).absolute().is_relative_to(outside)]
    if not kept:
        first = f" First problem: {skipped[0]['reason']}" if skipped else ""
        raise GenerationError(
            f"no source among {len(candidates) + len(skipped)} images. Pass a folder or paths of "
            f"untouched images outside {outside}, or a manifest with rows of label 0.{first}"
        )
    return kept


def _manifest_candidates(
    manifest: pd.DataFrame, skipped: list[dict[str, str]]
) -> list[tuple[str, str | None, dict[str, Any]]]:
    missing = [column for column in REQUIRED if column not in manifest]
    if missing:
        raise GenerationError(
            f"a manifest needs the columns {', '.join(REQUIRED)}; {', '.join(missing)} missing."
        )
    own = [column for column in manifest.columns if column not in _MADE_HERE]
    own += [column for column in ("prompt", "source_format") if column in manifest]
    candidates: list[tuple[str, str | None, dict[str, Any]]] = []
    for number, row in enumerate(manifest.to_dict("records"), start=1):
        if row["label"] != 0:
            continue
        if not isinstance(row["path"], (str, os.PathLike)):
            reason = f"row {number} of the manifest has no path. Fill it in or drop the row."
            skipped.append({"path": "", "reason": reason})
            continue
        name = "" if pd.isna(row["source_id"]) else str(row["source_id"]).strip()
        candidates.append((os.fspath(row["path"]), name, {c: row[c] for c in own}))
    return candidates
