"""Build records: source -> mask -> engine -> original, masks and inpaintings on disk."""

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import make_manifest, write_manifest
from cnnsvm.data.mask_shapes import MISSION_SCHEMAS
from cnnsvm.generation.engines import Engine
from cnnsvm.generation.masks import MaskSchema
from cnnsvm.generation.post_processing import PostProcessing
from cnnsvm.generation.recipe import Recipe, make_recipe
from cnnsvm.generation.record import at_file_size, draw_panel, make_record
from cnnsvm.generation.sources import Source, SourceInput, find_sources, skip
from cnnsvm.generation.store import (
    GenerationError,
    Shard,
    check_owners,
    claim_folder,
    forget_record,
    is_finished,
    map_in_threads,
    merge_shards,
    note_shard,
    write_errors,
    write_results,
)
from cnnsvm.io.files import FULL, clear_partials
from cnnsvm.io.progress import show_progress

logger = logging.getLogger(__name__)

N_SAMPLES = 8  # sources that the needed space is estimated from
_BLEND_SHARE = 0.1  # bytes a pixel of the weights of a soft edge, as PNG
_MASK_SHARE = 0.005  # of a mask; measured: 0.001 (halves) to 0.004 (strokes)
_Outcome = tuple[list[dict[str, Any]], list[str]] | ImageError


def build(
    sources: SourceInput,
    folder: str | os.PathLike[str],
    *,
    engine: str | Engine = "opencv-telea",
    schemas: Sequence[str | MaskSchema] | str = MISSION_SCHEMAS,
    variants: Sequence[str] | str = "spliced",
    edge: str = "hard",
    post_processing: PostProcessing | str = "png",
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
    ``mask_<schema>.png`` and ``group_<schema>.png`` (the three side by side). Original and
    inpainting pass the same code: decoded, resized to the working size and back, encoded.
    ``spliced`` pastes the engine's output into the original inside the mask; outside, the two are
    equal bit for bit before they are encoded. ``regenerated`` is the whole output. With both, the
    regenerated fakes are ``regenerated_<schema>``. An engine that ignores the mask runs once a
    source and gives one regenerated fake without a mask.

    A source that was a JPEG keeps its 8x8 grid outside the mask and loses it inside, so evaluate
    with a lossy post-processing too.

    What is drawn depends on ``random_state``, the content of the source and the schema only. (A
    neural engine's grey levels may differ by one or two between devices and batch sizes.) A
    repeated call resumes. One process at a time may write to a folder, or one a shard.

    Parameters
    ----------
    sources : manifest, folder, path or paths
        Of a manifest the rows of label 0, each a record with the row's ``source_id`` as group
        and, for an engine that takes prompts, its ``prompt``.
    folder : path
        Gets the records, ``manifest.parquet`` and, if something failed, ``errors.csv``. An
        interrupted call lists what it made in ``manifest-unfinished.parquet``.
    engine : str or Engine
        See `cnnsvm.generation.engines`.
    schemas : sequence of names or of MaskSchema
        See `cnnsvm.generation.masks`.
    variants : {"spliced", "regenerated", "both"}
    edge : str
        How spliced fakes are pasted: "hard", or "blur:R" with a Gaussian of R pixels. Of a soft
        edge the mask holds the fully repainted pixels only; ``blend_<schema>.png`` holds the
        weights (255 repainted, 0 untouched).
    post_processing : PostProcessing or its text
        Where it names no working size, the engine's own is taken if it has one.
    prompt : str or None
        For sources without one of their own; None takes the engine's.
    shard : str ``"i/n"``
        Make one of ``n`` parts. The last one writes ``manifest.parquet``.
    panels : bool
        Write the ``group`` images.
    random_state : int, at least 0
    n_jobs : int or None
        Threads, as in joblib: None is 1, -1 one a core.
    skip_bad : bool
        Report a source or mask that cannot be used and go on; False raises.
    check_space : bool
        Refuse to start if the disk has less room than the records will need.
    progress : bool

    Returns
    -------
    DataFrame
        The manifest (of the shard, unless it was the last). Besides the standard columns:
        ``seed``, ``history`` (the post-processing), ``record``, ``source_format``,
        ``resized_from`` (where the record has another size than its source) and the engine's
        details. ``attrs["skipped"]`` lists failures as dicts of ``path`` and ``reason``.

    Raises
    ------
    GenerationError
        If a parameter is wrong, every source is bad, the disk is or gets full, or the folder
        holds records of other settings. EngineError and SchemaError are ValueErrors as well.
    ImageError
        If a source is bad and ``skip_bad`` is False.
    """
    recipe = make_recipe(
        engine, schemas, variants, edge, post_processing, prompt, random_state, panels
    )
    part = Shard.of(shard)
    root = Path(folder).absolute()
    found, errors = find_sources(sources, root, skip_bad=skip_bad, companions=recipe.finders)
    own = [source for source in found if part.holds(source.sha256)]
    ready = [source for source in own if is_finished(root / source.record)]
    finished = {source.record for source in ready}
    rest = [source for source in own if source.record not in finished]
    claim_folder(root, recipe.settings())
    if part.count == 1:
        clear_partials(root)
    if check_space:
        _check_space(rest, root, recipe, len(ready))
    rows = _Rows(skip_bad, errors if part.index == 1 else [])  # bad files belong to no shard
    order = [*ready, *rest]
    outcomes = map_in_threads(lambda source: _try_record(source, root, recipe), order, n_jobs)
    try:
        with closing(outcomes):
            shown = show_progress(outcomes, len(own), "records", progress, ready=len(ready))
            for source, outcome in zip(order, shown, strict=True):
                rows.add(source, outcome)
        return _finish(rows, own, found, root, part)
    except BaseException as error:
        _keep(rows.in_order(own), root / part.unfinished)
        if isinstance(error, OSError) and error.errno in FULL:
            raise _disk_is_full(root, rows, len(own), error) from error
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
        """Add the outcome of a source."""
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


def _try_record(source: Source, root: Path, recipe: Recipe) -> _Outcome:
    # one bad source is an answer; a full disk or a broken engine stops the build
    try:
        return make_record(source, root, recipe)
    except ImageError as error:
        forget_record(root / source.record)  # no original without its fakes
        return error


def _disk_is_full(root: Path, rows: _Rows, n_records: int, error: OSError) -> GenerationError:
    return GenerationError(
        f"the disk of {root} is full after {rows.n_records} of {n_records} records ({error}). Free "
        "some space and run the same again: it resumes."
    )


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
    note_shard(root, part, [(source.sha256, source.source_id) for source in found])
    merged = merge_shards(root, part.count)
    if merged is None:
        logger.info("shard %d of %d is made; others are missing", part.index, part.count)
    return manifest if merged is None else merged


def _to_manifest(rows: list[dict[str, Any]]) -> pd.DataFrame:
    manifest = make_manifest(rows)
    if rows:
        manifest["seed"] = manifest["seed"].astype("Int64")
    return manifest


def _check_space(sources: Sequence[Source], root: Path, recipe: Recipe, n_ready: int) -> None:
    """Log what the records to be made will take, and refuse if the disk has less."""
    needed = estimate_bytes(sources, recipe)
    free = shutil.disk_usage(root).free
    logger.info(
        "%d records to make, %d ready; about %s more in %s, %s free",
        len(sources),
        n_ready,
        format_bytes(needed),
        root,
        format_bytes(free),
    )
    if needed > free:
        raise GenerationError(
            f"{len(sources)} records need about {format_bytes(needed)} and {root} has "
            f"{format_bytes(free)} free. Free some, choose a smaller codec such as jpeg:90, "
            "leave the group images out (panels=False), make shards on several disks, or switch "
            "this check off (check_space=False)."
        )


def estimate_bytes(sources: Sequence[Source], recipe: Recipe) -> int:
    """Estimate the bytes that records will take, from up to eight of their sources.

    A fake counts as many bytes as its original, an unreadable source none.
    """
    step = max(len(sources) // N_SAMPLES, 1)
    sampled, n_pixels = 0.0, 0
    for source in sources[::step][:N_SAMPLES]:
        try:
            sampled += _record_bytes(at_file_size(load_image(source.path), source, recipe), recipe)
        except ImageError:
            continue
        n_pixels += source.size[0] * source.size[1]
    total = sum(source.size[0] * source.size[1] for source in sources)
    return round(sampled / n_pixels * total) if n_pixels else 0


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes with a decimal unit, such as ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _record_bytes(image: np.ndarray, recipe: Recipe) -> float:
    fakes = recipe.fakes
    share = _MASK_SHARE + (_BLEND_SHARE if recipe.blur else 0.0)
    masks = len({fake.mask for fake in fakes} - {None}) * share * image[:, :, 0].size
    n_bytes = len(recipe.post_processing.encode(image)) * (1 + len(fakes)) + masks
    if recipe.panels:
        shown = [("", image)] * (1 + len(recipe.variants))
        n_groups = len({fake.schema for fake in fakes})
        n_bytes += n_groups * len(PostProcessing().encode(draw_panel(shown)))
    return n_bytes
