"""What a localiser is trained on and judged by: the images of a manifest with their truth.

A spliced image is repainted inside its mask. A regenerated one went through the engine whole: its
mask says what the engine was asked to repaint, but every pixel is the engine's. So it has two
readings that are reported apart: against its **mask**, or as repainted **whole**. Images of an
engine that takes no mask have the second alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from cnnsvm.data.images import ImageError
from cnnsvm.evaluation.preparation import Prepared, leave_out_bad
from cnnsvm.localization.masks import load_mask, load_pair

MASK, WHOLE, UNTOUCHED = "mask", "whole", "untouched"
READINGS = (MASK, WHOLE)
ORIGINAL = "original"
UNKNOWN = "unknown"
SAME = (
    "{} regenerated image(s) are file for file their spliced ones, as of an engine that changes "
    "nothing outside the mask; they were left out."
)
NO_MASK = "{} spliced image(s) have no mask file; they were left out."


def with_truth(
    manifest: pd.DataFrame, readings: Sequence[str] = READINGS
) -> tuple[pd.DataFrame, list[str]]:
    """List the images of a manifest with their truth, one row an image and reading.

    ``readings`` are those of regenerated images. The table has the manifest's columns, ``reading``
    ("mask", "whole" or "untouched") and ``kind``, such as "opencv-telea spliced". Where `build`
    blurred an edge, ``mask_path`` names the grey weights of the blend, so that the mask policy
    decides about the edge. Warnings say what was left out; a ValueError that a reading is unknown
    or no repainted image is left.
    """
    for reading in readings:
        if reading not in READINGS:
            raise ValueError(f"readings must be of {', '.join(READINGS)}, got {reading!r}.")
    variant, has_mask = manifest["variant"], manifest["mask_path"].notna()
    spliced = (variant == "spliced") & has_mask
    same = (variant == "regenerated") & _among(manifest, spliced)
    regenerated = (variant == "regenerated") & ~same
    originals = manifest[variant == "original"]
    twice = originals["sha256"].duplicated() & originals["sha256"].notna()  # of joined manifests
    parts = [
        originals[~twice].assign(reading=UNTOUCHED, mask_path=None),
        manifest[spliced].assign(reading=MASK),
    ]
    if MASK in readings:
        parts.append(manifest[regenerated & has_mask].assign(reading=MASK))
    if WHOLE in readings:
        parts.append(manifest[regenerated].assign(reading=WHOLE))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    if not len(table) or (table["variant"] == "original").all():
        raise ValueError(
            f"no repainted image with a truth is left of {len(manifest)} image(s): a spliced one "
            "needs a mask_path, and so does a regenerated one unless it is read as repainted "
            "whole. Make records with cnnsvm build, or take the reading 'whole'."
        )
    table["kind"] = [_kind(row) for row in table.to_dict("records")]
    table["mask_path"] = [_soft_mask(path) for path in table["mask_path"]]
    n_same, n_bare = int(same.sum()), int(((variant == "spliced") & ~has_mask).sum())
    warnings = [text.format(n) for text, n in ((SAME, n_same), (NO_MASK, n_bare)) if n]
    return table, warnings


def masks_of(table: pd.DataFrame) -> list[Any]:
    """Return the masks of a table's images, as `InpaintLocalizer.fit` takes them.

    Paths; None where untouched; all True, an ndarray that takes no memory, where repainted whole.
    """
    return [_mask_of(row) for row in table.to_dict("records")]


def load_truth(row: Any, policy: str = "half") -> np.ndarray:
    """Load which pixels of one row's image are repainted, bool (H, W)."""
    mask = _mask_of(row)
    return np.zeros(_shape(row), dtype=bool) if mask is None else load_mask(mask, policy)


def without_bad_pairs(
    table: pd.DataFrame, policy: str = "half", *, skip_bad: bool = False
) -> Prepared:
    """Read every image of a table and its mask once, before anything long starts.

    What is returned has the table as its ``manifest`` and, with ``skip_bad``, lists what cannot be
    used in ``skipped``; without, that is an ImageError.
    """
    pairs = zip(table["path"], masks_of(table), strict=True)
    found = Parallel(n_jobs=-1, prefer="threads")(
        delayed(_failure)(path, mask, policy) for path, mask in pairs
    )
    bad = {position: reason for position, reason in enumerate(found) if reason is not None}
    prepared = Prepared(table)
    leave_out_bad(prepared, bad, skip_bad, "used with their masks")
    return prepared


def kinds_of(table: pd.DataFrame) -> list[str]:
    """List the kinds of repainted images: spliced first, then by engine."""
    fakes = table[table["variant"] != ORIGINAL]
    keys = fakes[["variant", "engine", "reading", "kind"]].fillna("").drop_duplicates()
    keys["rank"] = (keys["variant"] != "spliced").astype(int)
    return list(keys.sort_values(["rank", "engine", "reading"])["kind"])


def _among(manifest: pd.DataFrame, spliced: pd.Series) -> pd.Series:
    """Tell which images are, to the byte, a spliced one of their own source."""
    keys = [manifest["source_id"].astype(str), manifest["sha256"].fillna("").astype(str)]
    named = keys[0] + "\0" + keys[1]
    return named.isin(named[spliced]) & (keys[1] != "")


def _soft_mask(path: Any) -> Any:
    """Return the weights of a blurred edge that lie beside a mask, else the mask."""
    if not isinstance(path, str):
        return None
    file = Path(path)
    blend = file.with_name(f"blend{file.name.removeprefix('mask')}")
    return str(blend) if file.name.startswith("mask") and blend.is_file() else path


def _kind(row: Any) -> str:
    if row["variant"] == ORIGINAL:
        return ORIGINAL
    engine = UNKNOWN if pd.isna(row["engine"]) else row["engine"]
    reading = f" ({row['reading']})" if row["variant"] == "regenerated" else ""
    return f"{engine} {row['variant']}{reading}"


def _mask_of(row: Any) -> Any:
    if row["reading"] == UNTOUCHED:
        return None
    if row["reading"] == MASK:
        return row["mask_path"]
    return np.broadcast_to(np.True_, _shape(row))


def _shape(row: Any) -> tuple[int, int]:
    return int(row["height"]), int(row["width"])


def _failure(path: Any, mask: Any, policy: str) -> str | None:
    try:
        load_pair(path, mask, policy)
    except ImageError as error:
        return str(error)
    return None
