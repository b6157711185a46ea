"""The images that a report on a data set shows: some of every kind, fakes beside originals."""

import os
from collections.abc import Mapping
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.report.model import Exhibit, Gallery, Section, Thumbnail
from cnnsvm.report.render import Loader, thumbnail

_MAX_KINDS, _MAX_EXAMPLES, _MAX_OF_A_KIND = 24, 36, 12


def choose_examples(found: Mapping[str, Any], random_state: int = 0) -> list[dict[str, Any]]:
    """Pick decoded images at random, of every kind of fake and of sources without any.

    Returns
    -------
    list of dict
        One a kind, the largest first: ``kind``, ``total`` (decoded images of it) and
        ``records``, dicts of ``source_id`` and the paths ``original``, ``mask`` and ``fake``
        (None where there is none).
    """
    pixels = found["pixels"]
    fakes = pixels[pixels["label"] == 1]
    alone = pixels[~pixels["source_id"].isin(fakes["source_id"])]
    groups = fakes.groupby(["variant", "engine", "mask_schema"])
    kinds = [("{} · engine {} · mask {}".format(*names), rows) for names, rows in groups]
    kinds.sort(key=lambda kind: -len(kind[1]))
    kinds = [("sources without fakes", alone)] * bool(len(alone)) + kinds[:_MAX_KINDS]
    originals = _find_originals(found["files"])
    most = max(min(_MAX_EXAMPLES // max(len(kinds), 1), _MAX_OF_A_KIND), 1)
    examples = []
    for name, rows in kinds:
        mixed = rows.sample(frac=1, random_state=random_state)
        # several of one source only where there are too few sources
        again = mixed.groupby("source_id").cumcount().sort_values(kind="stable")
        chosen = mixed.loc[again.index[:most]].to_dict("records")
        records = [_paths_of(row, originals) for row in chosen]
        examples.append({"kind": name, "total": len(rows), "records": records})
    return examples


def examples_section(examples: list[dict[str, Any]], loader: Loader) -> Section:
    """Show examples as thumbnails, each fake beside its original and its mask."""
    roles = ("original", "mask", "fake")
    records = [record for example in examples for record in example["records"]]
    paths = sorted({record[role] for record in records for role in roles if record[role]})
    jobs = (delayed(thumbnail)(path, loader) for path in paths)
    thumbs = dict(zip(paths, Parallel(n_jobs=-1, prefer="threads")(jobs), strict=True))
    galleries = []
    for example in examples:
        shown = [role for role in roles if any(record[role] for record in example["records"])]
        exhibits = [
            Exhibit(
                [
                    Thumbnail(thumbs.get(record[r]), f"{r} of {record['source_id']}", r)
                    for r in shown
                ],
                record["source_id"],
            )
            for record in example["records"]
        ]
        counted = f"{len(exhibits)} of {example['total']:,}, drawn at random"
        note = counted if len(exhibits) < example["total"] else f"all {len(exhibits)}"
        galleries.append(Gallery(exhibits, example["kind"], note))
    return Section("Images", galleries)


def _find_originals(files: pd.DataFrame) -> dict[Any, str]:
    """Map a record, and a record with a folder, to its original where there is only one."""
    real = files[files["label"] == 0]
    real = real.assign(folder=real["path"].map(os.path.dirname))
    single = real.drop_duplicates("record", keep=False)
    beside = real.drop_duplicates(["record", "folder"], keep=False)
    keys = [*single["record"], *zip(beside["record"], beside["folder"], strict=True)]
    return dict(zip(keys, [*single["path"], *beside["path"]], strict=True))


def _paths_of(row: Mapping[Any, Any], originals: Mapping[Any, str]) -> dict[str, Any]:
    paths = {"original": row["path"], "mask": None, "fake": None}
    if row["label"] == 1:
        record, folder = row["record"], os.path.dirname(row["path"])
        original = originals.get((record, folder), originals.get(record))
        paths = {"original": original, "mask": row["mask_path"], "fake": row["path"]}
    return {"source_id": row["source_id"], **paths}
