"""Build records: source -> mask -> engine -> original, masks and inpaintings on disk."""

import errno
import logging
import os
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.images import ImageError
from cnnsvm.data.manifest import make_manifest, write_manifest
from cnnsvm.data.mask_shapes import MISSION_SCHEMAS
from cnnsvm.generation.engines import Engine
from cnnsvm.generation.masks.schemas import MaskSchema
from cnnsvm.generation.post_processing import History
from cnnsvm.generation.recipe import Recipe, make_recipe
from cnnsvm.generation.record import make_record
from cnnsvm.generation.shards import Shard, merge_shards, note_shard
from cnnsvm.generation.sources import Source, SourceInput, check_owners, find_sources, skip
from cnnsvm.generation.space import check_space as check_free_space
from cnnsvm.generation.store import (
    GenerationError,
    claim_folder,
    forget_record,
    is_finished,
    write_errors,
    write_results,
)
from cnnsvm.generation.threads import map_in_threads
from cnnsvm.io.files import clear_partials
from cnnsvm.io.progress import show_progress

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_Outcome = tuple[list[dict[str, Any]], list[str]] | ImageError


def build(
    sources: SourceInput,
    folder: str | os.PathLike[str],
    *,
    engine: str | Engine = "opencv-telea",
    schemas: Sequence[str | MaskSchema] | str = MISSION_SCHEMAS,
    variants: Sequence[str] | str = "spliced",
    edge: str = "hard",
    history: History | str = "png",
    prompt: str | None = None,
    shard: Shard | str = "1/1",
    panels: bool = True,
    random_state: int = 0,
    n_jobs: int | None = None,
    skip_bad: bool = True,
    check_space: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Make records out of untouched images: each repainted once a mask schema.

    A record is a folder with ``original`` and, for each schema, ``inpainting_<schema>``,
    ``mask_<schema>.png`` and ``group_<schema>.png``, the three side by side. Original and
    inpainting pass the same code: decoded, brought to the working size of the history and back,
    encoded. The engine works at the working size. In ``spliced`` its output is pasted into the
    original inside the mask; outside, the two are equal bit for bit before they are encoded.
    ``regenerated`` is the whole output. With both, the regenerated fakes are
    ``regenerated_<schema>``, made of the same output. An engine that ignores the mask is run once
    a source and gives one regenerated fake, without a schema or a mask.

    A source that was a JPEG keeps its 8x8 grid outside the mask and loses it inside, so judge
    with a lossy history too, by `match_histories` or ``history`` here.

    What is drawn depends on ``random_state``, the content of the source and the schema only: a
    subset of the sources, or another order, gives the same pictures. (A neural engine's grey
    levels may differ by one or two between devices and batch sizes.) A call that was killed can
    be repeated and takes up where it stopped. One process at a time may write to a folder, or
    one a shard.

    Parameters
    ----------
    sources : manifest, folder, path or paths
        Of a manifest the rows of label 0, each a record with the row's ``source_id`` as group
        and, for an engine that takes prompts, its ``prompt``.
    folder : path
        Where the records go; it also gets ``manifest.parquet`` and, if need be, ``errors.csv``,
        both for this call's sources. If a call has to stop, what it made is listed in
        ``manifest-unfinished.parquet``.
    engine : str or Engine
        See `cnnsvm.generation.engines`.
    schemas : sequence of names or of MaskSchema
        See `cnnsvm.generation.masks.schemas`.
    variants : {"spliced", "regenerated", "both"}
        With the OpenCV engines at native size the two are the same, since those engines change
        nothing outside the mask.
    edge : str
        How spliced fakes are pasted: "hard", or "blur:R" with a Gaussian of R pixels. Of a soft
        edge the mask holds the fully repainted pixels only; ``blend_<schema>.png`` holds the
        weights (255 repainted, 0 untouched).
    history : History or its text
        Where it names no working size, the engine's own is taken if it has one.
    prompt : str or None
        For sources without one of their own; None takes the engine's.
    shard : str ``"i/n"``
        Make one of ``n`` parts. When the last of them is made, ``manifest.parquet`` is written.
    panels : bool
        Write the ``group`` images.
    random_state : int, at least 0
    n_jobs : int or None
        Threads; None takes one a core.
    skip_bad : bool
        Report a source, or a mask of it, that cannot be used and go on; False raises.
    check_space : bool
        Refuse to start if the disk has less room than the records will need.
    progress : bool
        Show progress: a bar on a terminal, else now and then a line in the log.

    Returns
    -------
    DataFrame
        The manifest. Besides the standard columns: ``seed``, ``history``, ``record``,
        ``source_format`` (such as JPEG), ``resized_from`` (where the record has another size than
        its source) and what the engine tells of itself. ``attrs["skipped"]`` lists what failed as
        dicts of ``path`` and ``reason``. That of the shard alone, unless it was the last.

    Raises
    ------
    GenerationError
        If a parameter is wrong, every source is bad, the disk is or gets full, or the folder
        holds records of other settings. EngineError and SchemaError are ValueErrors as well.
    ImageError
        If a source is bad and ``skip_bad`` is False.
    """
    recipe = make_recipe(engine, schemas, variants, edge, history, prompt, random_state, panels)
    part = Shard.parse(shard)
    root = Path(folder).absolute()
    finders = [recipe.engine.find_file, *(schema.find_file for schema in recipe.schemas)]
    companions = [find for find in finders if find]
    found, errors = find_sources(sources, root, skip_bad=skip_bad, companions=companions)
    own = [source for source in found if part.holds(source.sha256)]
    ready = [source for source in own if is_finished(root / source.record)]
    finished = {source.record for source in ready}
    rest = [source for source in own if source.record not in finished]
    claim_folder(root, recipe.settings())
    if part.count == 1:
        clear_partials(root)
    if check_space:
        check_free_space(rest, root, recipe, len(ready))
    rows = _Rows(skip_bad, errors if part.index == 1 else [])  # bad files belong to no shard
    outcomes = _outcomes([*ready, *rest], root, recipe, n_jobs)
    try:
        with closing(outcomes):
            shown = show_progress(outcomes, len(own), "records", progress, ready=len(ready))
            for source, outcome in shown:
                rows.add(source, outcome)
        return _finish(rows, own, found, root, part)
    except BaseException as error:
        _keep(rows.in_order(own), root / part.unfinished)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise GenerationError(
                f"the disk of {root} is full after {rows.n_records} of {len(own)} records "
                f"({error}). Free some space and run the same again: finished records are kept "
                "and taken up."
            ) from error
        raise


class _Rows:
    """The manifest rows so far, by source, and what failed."""

    def __init__(self, skip_bad: bool, errors: list[dict[str, str]]) -> None:
        self.skip_bad, self.errors = skip_bad, errors
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._owners: dict[str, str] = {}

    @property
    def n_records(self) -> int:
        return len(self._rows)

    def add(self, source: Source, outcome: _Outcome) -> None:
        """Take in what became of a source."""
        try:
            if isinstance(outcome, ImageError):
                raise outcome
            made, problems = outcome
            check_owners(made, self._owners)
            for problem in problems:
                skip(self.errors, source.path, ImageError(problem), self.skip_bad)
            self._rows[source.record] = made
        except ImageError as error:
            skip(self.errors, source.path, error, self.skip_bad)

    def in_order(self, sources: Sequence[Source]) -> list[dict[str, Any]]:
        """Return the rows in the order of their sources."""
        return [row for source in sources for row in self._rows.get(source.record, [])]


def _outcomes(
    sources: Sequence[Source], root: Path, recipe: Recipe, n_jobs: int | None
) -> Generator[tuple[Source, _Outcome], None, None]:
    made = map_in_threads(lambda source: _try_record(source, root, recipe), sources, n_jobs)
    with closing(made):
        yield from zip(sources, made, strict=True)


def _try_record(source: Source, root: Path, recipe: Recipe) -> _Outcome:
    # one bad source is an answer; a full disk or a broken engine stops the build
    try:
        return make_record(source, root, recipe)
    except ImageError as error:
        forget_record(root / source.record)  # no original without its fakes
        return error


def _keep(rows: list[dict[str, Any]], path: Path) -> None:
    if rows:
        with suppress(OSError):  # on a full disk there may be no room even for this
            write_manifest(_to_manifest(rows), path)


def _finish(
    rows: _Rows, own: Sequence[Source], found: Sequence[Source], root: Path, part: Shard
) -> pd.DataFrame:
    made = rows.in_order(own)
    if not made and part.count == 1:
        write_errors(root / part.names[1], rows.errors)
        raise GenerationError(
            f"none of {max(len(own), len(rows.errors))} sources can be used. First: "
            f"{rows.errors[0]['reason']}"
        )
    manifest = _to_manifest(made)
    write_results(root, manifest, rows.errors, part.names)
    (root / part.unfinished).unlink(missing_ok=True)
    if part.count == 1:
        return manifest
    note_shard(root, part, found)
    merged = merge_shards(root, part.count)
    if merged is None:
        logger.info("shard %d of %d is made; others are missing", part.index, part.count)
    return manifest if merged is None else merged


def _to_manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    manifest = make_manifest(rows)
    if rows:
        manifest["seed"] = manifest["seed"].astype("Int64")
    return manifest
