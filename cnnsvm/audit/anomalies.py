"""What is odd about the rows, the files and the masks of a data set, each under a check."""

from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.generation.sources import MIN_SIDE

UNSTATED = "not stated"
#: What is looked for -> what it means. "(sample)" marks what only decoded images can show.
CHECKS = {
    "unusable rows": "the label is neither 0 nor 1, or the path or the source is missing",
    "left out on reading": "what the reader of the layout could not use",
    "unreadable images": "no such file, no image, or (sample) pixels that cannot be decoded",
    "tiny images": f"a side of less than {MIN_SIDE} pixels",
    "leaking copies": "one content under two sources or classes: no split keeps it apart",
    "identical files": "one content in several rows of one source and class",
    "sizes within a record": "a fake is not as large as its original: size tells the class",
    "one class only": "a source without fakes, or fakes without their original",
    "several splits": "a source in more than one split: what is tested was trained on",
    "fakes without a mask": "though other fakes have one",
    "unreadable masks": "no such file, no image, or (sample) pixels that cannot be decoded",
    "masks of another size": "not as large as the fake",
    "blank masks": "(sample) all black or all white: nothing or everything is repainted",
}
_IDENTITY = ("source_id", "label")

#: With the keys ``check`` (out of `CHECKS`), ``path``, ``source_id`` and ``reason``.
Odd = dict[str, str]


def list_odd(check: str, rows: pd.DataFrame, reasons: Any, column: str = "path") -> list[Odd]:
    """List rows under a check; ``reasons`` is one text for all, or one each."""
    texts = [reasons] * len(rows) if isinstance(reasons, str) else list(reasons)
    return [
        {"check": check, "path": str(path), "source_id": str(source), "reason": str(text)}
        for path, source, text in zip(rows[column], rows["source_id"], texts, strict=True)
    ]


def keep_readable(
    check: str, found: pd.DataFrame, odd: list[Odd], column: str = "path"
) -> pd.DataFrame:
    """Add what has a ``problem`` to ``odd`` and return the rest."""
    bad = found["problem"].notna()
    odd += list_odd(check, found[bad], found.loc[bad, "problem"], column)
    return found[~bad].drop(columns="problem")


def odd_files(files: pd.DataFrame) -> list[Odd]:
    """List images that are tiny, copies, or not as large as the original of their record."""
    sizes = files["width"].astype(str) + "x" + files["height"].astype(str)
    files = files.assign(size=sizes)
    tiny = files[files[["width", "height"]].min(axis=1) < MIN_SIDE]
    originals = files[files["label"] == 0].drop_duplicates("record").set_index("record")
    files["wanted"] = files["record"].map(originals["size"])
    other = files[
        files["label"].eq(1) & files["wanted"].notna() & (files["size"] != files["wanted"])
    ]
    pairs = zip(other["size"], other["wanted"], strict=True)
    texts = [f"{size}, its original {wanted}" for size, wanted in pairs]
    return [
        *list_odd("tiny images", tiny, tiny["size"]),
        *_copies(files),
        *list_odd("sizes within a record", other, texts),
    ]


def odd_sources(rows: pd.DataFrame) -> list[Odd]:
    """List sources that have one class only, or several splits."""
    sources = rows.groupby("source_id")
    once = rows.drop_duplicates("source_id").assign(path="")
    n_labels = once["source_id"].map(sources["label"].nunique())
    lonely = once[(n_labels == 1) & (rows["label"].nunique() == 2)]
    splits = once["source_id"].map(sources["split"].unique())
    texts = splits.map(lambda found: ", ".join(sorted(filter(None, found))))
    several = once[texts.str.contains(", ")]
    return [
        *list_odd("one class only", lonely, lonely["label"].map({0: "only real", 1: "only fake"})),
        *list_odd("several splits", several, texts[several.index]),
    ]


def odd_masks(files: pd.DataFrame, masks: pd.DataFrame) -> list[Odd]:
    """List fakes without a mask, and those whose mask is of another size."""
    fakes = files[files["label"] == 1]
    # an engine that regenerates all of a picture whatever the mask gives fakes that have none
    whole = fakes["variant"].eq("regenerated") & fakes["mask_schema"].eq(UNSTATED)
    without = fakes[fakes["mask_path"].isna() & ~whole]
    if len(without) == len(fakes):  # the data set has none: nothing odd about one of them
        without = without.iloc[:0]
    wrong = masks[masks["mask_width"].ne(masks["width"]) | masks["mask_height"].ne(masks["height"])]
    columns = (wrong[name] for name in ("mask_width", "mask_height", "width", "height"))
    texts = [f"mask {a:g}x{b:g}, fake {c}x{d}" for a, b, c, d in zip(*columns, strict=True)]
    return [
        *list_odd("fakes without a mask", without, "no mask is named"),
        *list_odd("masks of another size", wrong, texts),
    ]


def _copies(files: pd.DataFrame) -> list[Odd]:
    """List files whose content came before, apart those that leak."""
    again = files[files["sha256"].notna() & files.duplicated("sha256")]
    first = files.drop_duplicates("sha256").set_index("sha256").loc[again["sha256"]]
    source, label = (again[name].to_numpy() != first[name].to_numpy() for name in _IDENTITY)
    where = np.where(source, ", another source", "") + np.where(label, ", the other class", "")
    texts = pd.Series("the content of " + first["path"].to_numpy() + where, again.index)
    leaks = source | label
    return [
        *list_odd("leaking copies", again[leaks], texts[leaks]),
        *list_odd("identical files", again[~leaks], texts[~leaks]),
    ]
