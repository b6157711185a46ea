"""Sources: the untouched images that records are made from."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.generation.store import GenerationError, safe_name
from cnnsvm.images import ImageError, list_images
from cnnsvm.records import COLUMNS, GENERATED_COLUMNS, REQUIRED, describe_file

logger = logging.getLogger(__name__)

MIN_SIDE = 16  # pixels: below, half an image holds less than one block of a codec or an encoder

SourceInput = pd.DataFrame | str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_OF_BUILD = {"history", "record", "resized_from", "source_format"}
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

    @property
    def record(self) -> str:
        """Name of the record's folder: the group, made safe, and a digest of the content."""
        return safe_name(self.source_id, self.sha256)


def find_sources(
    sources: SourceInput, outside: Path, *, skip_bad: bool = True
) -> tuple[list[Source], list[dict[str, str]]]:
    """List the sources among images, and what had to be skipped.

    Parameters
    ----------
    sources : manifest, folder, path or paths
        Of a manifest the rows of label 0, each with its ``source_id``, ``split`` and any columns
        of one's own. A file on its own gets its stem and a digest of its content as
        ``source_id``, which hold wherever it lies and whatever lies beside it. A column
        ``prompt`` says what an engine that takes prompts is to paint.
    outside : Path
        Folder of the records; files in it are no sources.
    skip_bad : bool
        Report a file that is no image, is smaller than 16 pixels a side, or the same as an
        earlier one, instead of raising.

    Returns
    -------
    sources : list of Source
        No two of the same content.
    skipped : list of dict with "path" and "reason"

    Raises
    ------
    GenerationError
        If there is nothing to choose from.
    ImageError
        If a file is bad and ``skip_bad`` is False.
    """
    found: dict[str, Source] = {}
    skipped: list[dict[str, str]] = []
    for path, source_id, carried in _candidates(sources, outside):
        try:
            facts = describe_file(path)
            digest, size = facts["sha256"], (facts["width"], facts["height"])
            if min(size) < MIN_SIDE:
                raise ImageError(
                    f"{path}: {size[0]}x{size[1]} pixels; a source has at least {MIN_SIDE} a side. "
                    "Leave such small images out."
                )
            if digest in found:
                raise ImageError(
                    f"{path}: the same content as {found[digest].path}; one record is enough and "
                    "two would leak between folds. Drop one."
                )
        except ImageError as error:
            skip(skipped, path, error, skip_bad)
            continue
        name = source_id or f"{Path(path).stem}-{digest[:12]}"
        prompt = carried.pop("prompt", None)
        text = prompt if isinstance(prompt, str) and prompt.strip() else None
        origin = carried.pop("source_format", None)
        kind = origin if isinstance(origin, str) else facts["format"]
        found[digest] = Source(path, name, digest, size, kind, text, carried)
    return list(found.values()), skipped


def skip(skipped: list[dict[str, str]], path: str, reason: Exception, skip_bad: bool) -> None:
    """Add an image to the skipped ones and log it, or raise the reason."""
    if not skip_bad:
        raise reason
    logger.warning("skipped %s: %s", path, reason)
    skipped.append({"path": path, "reason": str(reason)})


def check_owners(rows: Iterable[Mapping[str, Any]], owners: dict[str, str]) -> None:
    """Refuse the rows of a record if another source already gave one of its pictures.

    Parameters
    ----------
    rows : iterable of manifest rows
        All with one ``source_id``.
    owners : dict of sha256 to source_id
        The pictures so far; those of the record are added to it.

    Raises
    ------
    ImageError
        If a picture belongs to another source.
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


def _candidates(
    sources: SourceInput, outside: Path
) -> list[tuple[str, str | None, dict[str, Any]]]:
    if isinstance(sources, pd.DataFrame):
        candidates = _manifest_candidates(sources)
    elif isinstance(sources, (str, os.PathLike)) and not Path(sources).is_dir():
        candidates = [(os.fspath(sources), None, {})]
    else:
        is_folder = isinstance(sources, (str, os.PathLike))
        paths = list_images(sources) if is_folder else sources  # type: ignore[arg-type]
        candidates = [(os.fspath(path), None, {}) for path in paths]  # type: ignore[union-attr]
    kept = [c for c in candidates if not Path(c[0]).absolute().is_relative_to(outside)]
    if not kept:
        raise GenerationError(
            f"no source among {len(candidates)} images. Pass a folder or paths of untouched "
            f"images outside {outside}, or a manifest with rows of label 0."
        )
    return kept


def _manifest_candidates(manifest: pd.DataFrame) -> list[tuple[str, str | None, dict[str, Any]]]:
    missing = [column for column in REQUIRED if column not in manifest]
    if missing:
        raise GenerationError(
            f"a manifest needs the columns {', '.join(REQUIRED)}; {', '.join(missing)} missing."
        )
    own = [column for column in manifest.columns if column not in _MADE_HERE]
    own += [column for column in ("prompt", "source_format") if column in manifest]
    rows = manifest[manifest["label"] == 0].to_dict("records")
    return [(row["path"], str(row["source_id"]), {c: row[c] for c in own}) for row in rows]
