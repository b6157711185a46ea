"""The contact sheet of a data set: pictures drawn at random, each fake beside its original."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.data.images import load_image
from cnnsvm.report.markup import Html, element, image, paragraph, section
from cnnsvm.report.render import Loader, thumbnail

_MAX_KINDS, _MAX_EXAMPLES, _MAX_OF_A_KIND = 24, 36, 12


def choose_examples(found: Mapping[str, Any], random_state: int = 0) -> list[dict[str, Any]]:
    """Pick decoded images at random, of every kind of fake and of sources without any.

    Parameters
    ----------
    found : mapping
        As :func:`cnnsvm.audit.exploration.explore` returns it.
    random_state : int

    Returns
    -------
    list of dict
        One a kind, the largest first: ``kind``, ``total`` (decoded images of it) and
        ``records``, dicts of ``source_id`` and the paths ``original``, ``mask`` and ``fake``
        (None where there is none).
    """
    pixels, files = found["pixels"], found["files"]
    fakes = pixels[pixels["label"] == 1]
    alone = pixels[~pixels["source_id"].isin(fakes["source_id"])]
    groups = fakes.groupby(["variant", "engine", "mask_schema"])
    kinds = [("{} · engine {} · mask {}".format(*names), rows) for names, rows in groups]
    kinds.sort(key=lambda kind: -len(kind[1]))
    kinds = [("sources without fakes", alone)] * bool(len(alone)) + kinds[:_MAX_KINDS]
    originals = _find_originals(files)
    most = max(min(_MAX_EXAMPLES // max(len(kinds), 1), _MAX_OF_A_KIND), 1)
    examples = []
    for name, rows in kinds:
        mixed = rows.sample(frac=1, random_state=random_state)
        # several of one source only where there are too few sources
        again = mixed.groupby("source_id").cumcount().sort_values(kind="stable")
        chosen = mixed.loc[again.index[:most]].to_dict("records")
        records = [_find_pictures(row, originals) for row in chosen]
        examples.append({"kind": name, "total": len(rows), "records": records})
    return examples


def contact_sheet(examples: Sequence[Mapping[str, Any]], loader: Loader = load_image) -> Html:
    """Show examples as thumbnails, those of a kind under its name.

    Parameters
    ----------
    examples : sequence of mappings
        As :func:`choose_examples` returns them.
    loader : callable
        Turns a path into uint8 pixels of shape (H, W, 3); a picture that it cannot read gets a
        placeholder.

    Returns
    -------
    Html
        A section; empty without examples.
    """
    roles = ("original", "mask", "fake")
    records = [record for example in examples for record in example["records"]]
    paths = sorted({record[role] for record in records for role in roles if record[role]})
    jobs = (delayed(thumbnail)(path, loader) for path in paths)
    thumbs = dict(zip(paths, Parallel(n_jobs=-1, prefer="threads")(jobs), strict=True))
    parts = []
    for example in examples:
        shown = [role for role in roles if any(record[role] for record in example["records"])]
        cards = [_record(record, shown, thumbs) for record in example["records"]]
        how_many = (
            f"{len(cards)} of {example['total']:,}" if len(cards) < example["total"] else "all"
        )
        look = "sheet" if len(shown) > 1 else "sheet single"
        parts += [
            element("h3", example["kind"], element("span", f" ({how_many})", class_="soft")),
            element("div", *cards, class_=look),
        ]
    return section(
        "Pictures",
        paragraph("Drawn at random from the decoded images.", class_="soft") if parts else "",
        *parts,
    )


def _find_originals(files: pd.DataFrame) -> dict[Any, str]:
    """Map a record, and a record with a folder, to its original where there is only one."""
    real = files[files["label"] == 0]
    real = real.assign(folder=real["path"].map(os.path.dirname))
    single = real.drop_duplicates("record", keep=False)
    beside = real.drop_duplicates(["record", "folder"], keep=False)
    keys = [*single["record"], *zip(beside["record"], beside["folder"], strict=True)]
    return dict(zip(keys, [*single["path"], *beside["path"]], strict=True))


def _find_pictures(row: Mapping[Any, Any], originals: Mapping[Any, str]) -> dict[str, Any]:
    paths = {"original": row["path"], "mask": None, "fake": None}
    if row["label"] == 1:
        record, folder = row["record"], os.path.dirname(row["path"])
        original = originals.get((record, folder), originals.get(record))
        paths = {"original": original, "mask": row["mask_path"], "fake": row["path"]}
    return {"source_id": row["source_id"], **paths}


def _record(
    record: Mapping[str, Any], roles: Sequence[str], thumbs: Mapping[str, bytes | None]
) -> Html:
    pictures = []
    for role in roles:
        data = thumbs.get(record[role])
        missing = f"{role} that cannot be read" if record[role] else f"no single {role}"
        alt = f"{role} of {record['source_id']}"
        picture = element("p", missing) if data is None else image(data, "jpeg", alt)
        pictures.append(element("div", picture, element("span", role), class_=role))
    caption = element("figcaption", element("code", record["source_id"]))
    return element("figure", element("div", *pictures, class_="strip"), caption)
