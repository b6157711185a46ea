"""Which images of CIFAKE show the same: found once, stored beside the results, counted."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cifake_study.near_duplicates import group_near_duplicates
from cnnsvm.data.readers.cifake import Cifake
from cnnsvm.io.files import replacing

logger = logging.getLogger(__name__)


def with_near_duplicates(cifake: Cifake, folder: Path | None = None) -> Cifake:
    """Give near-duplicates one group (`group_near_duplicates`).

    Parameters
    ----------
    cifake : Cifake
    folder : Path or None
        Stores the groups, named by the images: 100,000 take a minute or two.
    """
    content = hashlib.sha256("".join(cifake.sha256).encode() + "".join(cifake.names).encode())
    file = None if folder is None else folder / f"groups-{content.hexdigest()[:16]}.parquet"
    if file is not None and file.is_file():
        return replace(cifake, groups=pd.read_parquet(file)["group"].to_numpy())
    logger.info("looking for near-duplicates among %d images", len(cifake.images))
    groups = group_near_duplicates(cifake.images, cifake.groups)
    if file is not None:
        with replacing(file) as partial:
            pd.DataFrame({"group": groups}).to_parquet(partial, index=False)
    return replace(cifake, groups=groups)


def count_duplicates(cifake: Cifake) -> pd.DataFrame:
    """Count the images that have a duplicate or near-duplicate.

    Returns
    -------
    DataFrame
        A row for each of "REAL", "FAKE" and, if both splits are there, "train and test":
        ``images``; ``copies``, those with the pixels of another image, of any class; ``near``,
        those in a group with another; ``groups``, in which these are. The last row is about the
        groups that reach into both splits.
    """
    table = cifake.manifest.assign(group=cifake.groups)
    pixels = pd.Series([hashlib.sha256(image.tobytes()).digest() for image in cifake.images])
    table["copied"] = pixels.duplicated(keep=False).to_numpy()
    table["near"] = table.groupby("group")["label"].transform("size") > 1
    rows = {
        name: _count(table[table["label"] == label]) for label, name in enumerate(("REAL", "FAKE"))
    }
    if table["split"].nunique() > 1:
        both = table.groupby("group")["split"].transform("nunique") > 1
        rows["train and test"] = _count(table[both])
    return pd.DataFrame(rows).T


def outside(cifake: Cifake, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Leave those of some rows out that share a group with others."""
    return rows[~np.isin(cifake.groups[rows], cifake.groups[others])]


def _count(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "images": len(rows),
        "copies": int(rows["copied"].sum()),
        "near": int(rows["near"].sum()),
        "groups": int(rows.loc[rows["near"], "group"].nunique()),
    }
