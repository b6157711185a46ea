"""Several data sets as one: whose sources are the same, and which are never trained on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cnnsvm.data.readers import merge_near_duplicates

_PLACE = "data set"


def join_manifests(
    manifests: Sequence[pd.DataFrame], externals: Mapping[str, pd.DataFrame] | None = None
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Put manifests under each other, and find the sources that they share.

    Parameters
    ----------
    manifests : sequence of DataFrame
        Images of one ``source_id`` are of one source, whichever manifest they are in; a
        ``record`` is of one manifest.
    externals : mapping of str to DataFrame, optional
        Data sets whose ``source_id`` has nothing to do with those of the manifests.

    Returns
    -------
    (manifest, externals)
        The manifests as one, and each external data set. Sources that look alike, within or
        across any of them, have one ``source_id`` (`cnnsvm.data.readers.merge_near_duplicates`).

    Raises
    ------
    ValueError
        If there is no manifest, or one file is in two.
    ImageError
        If an image cannot be read.
    """
    if not len(manifests):
        raise ValueError("there is no manifest to join; give at least one.")
    others = externals or {}
    own = [table.assign(**{_PLACE: ""}) for table in manifests]
    if len(own) > 1:
        own = [_with_records(table, number) for number, table in enumerate(own)]
    far = [
        table.assign(**{_PLACE: name}, source_id=[f"{name}:{s}" for s in table["source_id"]])
        for name, table in others.items()
    ]
    whole = pd.concat([*own, *far], ignore_index=True)
    twice = whole.loc[whole["path"].duplicated(), "path"]
    if len(twice):
        raise ValueError(
            f"{twice.iloc[0]} is in two of the data sets, or in one twice. Give each once, "
            "and to train on or to judge, not to both."
        )
    merged = merge_near_duplicates(whole, n_jobs=-1)
    parts = {
        name: merged[merged[_PLACE] == name].drop(columns=_PLACE).reset_index(drop=True)
        for name in ("", *others)
    }
    return parts.pop(""), parts


def _with_records(table: pd.DataFrame, number: int) -> pd.DataFrame:
    records = table["record"] if "record" in table else table["source_id"]
    return table.assign(record=[f"{number}:{record}" for record in records])


def draw_sources(records: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Draw ``most`` sources of a manifest, or take all if there are no more."""
    sources = records["source_id"].unique()
    drawn = np.random.default_rng(seed).permutation(sources)[:most]
    return records[records["source_id"].isin(drawn)]
