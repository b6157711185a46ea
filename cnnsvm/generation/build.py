"""Build records: source -> mask -> engine -> original, masks and inpaintings on disk."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.generation.engines import Engine
from cnnsvm.generation.history import History
from cnnsvm.generation.masks import MISSION_SCHEMAS
from cnnsvm.generation.record import Recipe, make_recipe, make_record
from cnnsvm.generation.sources import Source, SourceInput, check_owners, find_sources, skip
from cnnsvm.generation.store import GenerationError, claim_folder, show_progress, write_results
from cnnsvm.images import ImageError
from cnnsvm.records import make_manifest


def build(
    sources: SourceInput,
    folder: str | os.PathLike[str],
    *,
    engine: str | Engine = "opencv-telea",
    schemas: Sequence[str] = MISSION_SCHEMAS,
    variant: str = "spliced",
    history: History | str = "png",
    random_state: int = 0,
    n_jobs: int | None = None,
    skip_bad: bool = True,
    progress: bool = True,
) -> pd.DataFrame:
    """Make records out of untouched images: each repainted once a mask schema.

    A record is a folder with ``original``, and for each schema ``inpainting_<schema>``,
    ``mask_<schema>.png`` and ``group_<schema>.png``, the three side by side. Original and
    inpainting pass the same code: decoded, brought to the working size of the history and back,
    encoded. The engine works at the working size. In ``spliced`` its output is pasted into the
    original inside the mask; outside, the two are equal bit for bit before they are encoded.

    A source that was a JPEG keeps its 8x8 grid outside the mask and loses it inside, so judge
    with a lossy history too, by `match_histories` or ``history`` here.

    What is drawn depends on ``random_state``, the content of the source and the schema only: a
    subset of the sources, or another order, gives the same pictures. A call that was killed can
    be repeated and takes up where it stopped. One process at a time may write to a folder.

    Parameters
    ----------
    sources : manifest, folder, path or paths
        Of a manifest the rows of label 0, each a record with the row's ``source_id`` as group.
    folder : path
        Where the records go; it also gets ``manifest.parquet`` and, if need be, ``skipped.csv``,
        both for this call's sources.
    engine : str or Engine
        See `cnnsvm.generation.engines`.
    schemas : sequence of names out of ``MASK_SCHEMAS``
    variant : {"spliced", "regenerated"}
        With the OpenCV engines at native size the two are the same, since those engines change
        nothing outside the mask.
    history : History or its text
    random_state : int, at least 0
    n_jobs : int or None
        Threads; None takes one a core.
    skip_bad : bool
        Report a source that cannot be used and go on; False raises.
    progress : bool
        Show progress on standard error if that is a terminal.

    Returns
    -------
    DataFrame
        The manifest, with the columns ``seed``, ``history`` and ``record`` besides the standard
        ones; ``attrs["skipped"]`` lists the skipped sources as dicts of ``path`` and ``reason``.

    Raises
    ------
    GenerationError
        If a parameter is wrong, every source is bad, or the folder holds records of other
        settings.
    ImageError
        If a source is bad and ``skip_bad`` is False.
    """
    recipe = make_recipe(engine, schemas, variant, history, random_state)
    root = Path(folder).absolute()
    found, skipped = find_sources(sources, root, skip_bad=skip_bad)
    claim_folder(root, recipe.settings())
    jobs = (delayed(_try_record)(source, root, recipe) for source in found)
    outcomes = Parallel(n_jobs=n_jobs or -1, prefer="threads", return_as="generator")(jobs)
    rows: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    shown = show_progress(outcomes, len(found), "records", progress)
    for source, outcome in zip(found, shown, strict=True):
        try:
            if isinstance(outcome, ImageError):
                raise outcome
            check_owners(outcome, owners)
            rows += outcome
        except ImageError as error:
            skip(skipped, source.path, error, skip_bad)
    if not rows:
        raise GenerationError(
            f"none of {len(skipped)} sources can be used. First: {skipped[0]['reason']}"
        )
    manifest = make_manifest(rows)
    manifest["seed"] = manifest["seed"].astype("Int64")
    write_results(root, manifest, skipped)
    return manifest


def _try_record(source: Source, root: Path, recipe: Recipe) -> list[dict[str, Any]] | ImageError:
    # a bad source is an answer; anything else (a full disk, a broken engine) stops the build
    try:
        return make_record(source, root, recipe)
    except ImageError as error:
        shutil.rmtree(root / source.record, ignore_errors=True)  # no original without its fakes
        return error
