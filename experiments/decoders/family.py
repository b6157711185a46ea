"""Records by a whole family of engines, so that a detector learns more than one fingerprint."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cnnsvm.data.manifest import make_manifest
from cnnsvm.data.mask_shapes import MASK_SCHEMAS
from cnnsvm.generation.build import build
from decoders.reduction import write_reduced

logger = logging.getLogger(__name__)


def build_family(
    originals: pd.DataFrame,
    folder: str | os.PathLike[str],
    engines: Sequence[str],
    *,
    only_spliced: Sequence[str] = (),
    schemas: Sequence[str] = tuple(MASK_SCHEMAS),
    reduced: bool = True,
    random_state: int = 0,
) -> pd.DataFrame:
    """Repaint every original by every engine, whole and spliced.

    Mask schemas are dealt to the engines in turn, one each. With ``reduced``, every second
    original of an engine is taken from a reduced copy (`write_reduced`), and the next engine
    takes the others, so that half of the fakes never had the original's JPEG grid beside them.
    Engines of finished files (``file:...``) take the originals as they are.

    Parameters
    ----------
    originals : DataFrame
        A manifest; its rows of label 0 are repainted.
    folder : path
        Gets a folder of records for each engine; what is there already is not made again.
    engines : sequence of str
        See `cnnsvm.generation.engines`.
    only_spliced : sequence of str
        Engines of which no ``regenerated`` fakes are made.
    schemas : sequence of str
        See `cnnsvm.generation.masks`.
    reduced : bool
    random_state : int

    Returns
    -------
    DataFrame
        One manifest of everything, each record named by its engine's place too. Within a source
        the images that are not reduced come first, each kind in the order of the engines, so that
        a detector that pairs a source's images in their order sets fakes beside originals of
        their own size (with ``only_spliced``, some whole ones beside others).
    """
    target = Path(folder)
    real = originals[originals["label"] == 0].reset_index(drop=True)
    copies = real
    if reduced:
        names = real["source_id"].astype(str).tolist()
        copies = write_reduced(
            real["path"].tolist(), names, target / "reduced", random_state=random_state
        )
    parts = []
    for k, engine in enumerate(engines):
        is_file = engine.startswith("file:")
        taken = [
            copies if reduced and (i + k) % 2 and not is_file else real for i in range(len(real))
        ]
        sources = make_manifest(
            [
                table.iloc[i][["path", "label", "source_id"]].to_dict()
                | {"reduced": reduced and table is copies}
                for i, table in enumerate(taken)
            ]
        )
        logger.info("engine %d of %d: %s", k + 1, len(engines), engine)
        made = build(
            sources,
            target / f"engine_{k:02d}",
            engine=engine,
            schemas=[schemas[k % len(schemas)]],
            variants="spliced" if engine in only_spliced else "both",
            panels=False,
            n_jobs=-1,
            random_state=random_state,
        )
        # one source is a record of each engine, and their fakes may differ in size
        record = f"engine_{k:02d}-" + made["record"].astype(str)
        reduced_rows = made["reduced"].astype(bool)
        parts.append(made.assign(record=record, reduced=reduced_rows, order=k))
    whole = pd.concat(parts, ignore_index=True)
    ordered = whole.sort_values(["source_id", "reduced", "order", "variant"], kind="stable")
    return ordered.drop(columns="order").reset_index(drop=True)
