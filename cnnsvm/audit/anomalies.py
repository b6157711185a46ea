"""Anomalies of the rows, the files and the masks of a data set, each under a check."""

from collections.abc import Iterable

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

#: With the keys ``check`` (out of `CHECKS`), ``path``, ``source_id`` and ``reason``.
Anomaly = dict[str, str]


def list_anomalies(
    check: str, rows: pd.DataFrame, reasons: Iterable[str], column: str = "path"
) -> list[Anomaly]:
    """List rows under a check, with a reason each."""
    return [
        {"check": check, "path": str(path), "source_id": str(source), "reason": str(reason)}
        for path, source, reason in zip(rows[column], rows["source_id"], reasons, strict=True)
    ]


def readable(
    check: str, found: pd.DataFrame, anomalies: list[Anomaly], column: str = "path"
) -> pd.DataFrame:
    """Add the rows that have a ``problem`` to ``anomalies`` and return the rest."""
    bad = found[found["problem"].notna()]
    anomalies += list_anomalies(check, bad, bad["problem"], column)
    return found.drop(index=bad.index, columns="problem")


def file_anomalies(files: pd.DataFrame) -> list[Anomaly]:
    """List images that are tiny, copies, or not as large as the original of their record."""
    sizes = files["width"].astype(str) + "x" + files["height"].astype(str)
    tiny = files[["width", "height"]].min(axis=1) < MIN_SIDE
    originals = files[files["label"] == 0].drop_duplicates("record")
    expected = files["record"].map(
        dict(zip(originals["record"], sizes[originals.index], strict=True))
    )
    other = files["label"].eq(1) & expected.notna() & (sizes != expected)
    texts = [f"{a}, its original {b}" for a, b in zip(sizes[other], expected[other], strict=True)]
    return [
        *list_anomalies("tiny images", files[tiny], sizes[tiny]),
        *_copies(files),
        *list_anomalies("sizes within a record", files[other], texts),
    ]


def source_anomalies(rows: pd.DataFrame) -> list[Anomaly]:
    """List sources that have one class only, or several splits."""
    sources = rows.groupby("source_id")
    once = rows.drop_duplicates("source_id").assign(path="")
    n_labels = once["source_id"].map(sources["label"].nunique())
    lonely = once[(n_labels == 1) & (rows["label"].nunique() == 2)]
    splits = once["source_id"].map(sources["split"].unique())
    texts = splits.map(lambda found: ", ".join(sorted(filter(None, found))))
    several = once[texts.str.contains(", ")]
    return [
        *list_anomalies(
            "one class only", lonely, lonely["label"].map({0: "only real", 1: "only fake"})
        ),
        *list_anomalies("several splits", several, texts[several.index]),
    ]


def mask_anomalies(files: pd.DataFrame, masks: pd.DataFrame) -> list[Anomaly]:
    """List fakes without a mask, and those whose mask is of another size."""
    fakes = files[files["label"] == 1]
    # an engine that regenerates a whole image whatever the mask gives fakes that have none
    whole = fakes["variant"].eq("regenerated") & fakes["mask_schema"].eq(UNSTATED)
    without = fakes[fakes["mask_path"].isna() & ~whole]
    if len(without) == len(fakes):  # the data set has none: no anomaly of one of them
        without = without.iloc[:0]
    wrong = masks[masks["mask_width"].ne(masks["width"]) | masks["mask_height"].ne(masks["height"])]
    columns = (wrong[name] for name in ("mask_width", "mask_height", "width", "height"))
    texts = [f"mask {a:g}x{b:g}, fake {c}x{d}" for a, b, c, d in zip(*columns, strict=True)]
    return [
        *list_anomalies("fakes without a mask", without, ["no mask is named"] * len(without)),
        *list_anomalies("masks of another size", wrong, texts),
    ]


def _copies(files: pd.DataFrame) -> list[Anomaly]:
    """List files whose content came before, apart those that leak."""
    again = files[files["sha256"].notna() & files.duplicated("sha256")]
    first = files.drop_duplicates("sha256").set_index("sha256").loc[again["sha256"]]
    source, label = (
        again[name].to_numpy() != first[name].to_numpy() for name in ("source_id", "label")
    )
    where = np.where(source, ", another source", "") + np.where(label, ", the other class", "")
    texts = pd.Series("the content of " + first["path"].to_numpy() + where, again.index)
    leaks = source | label
    return [
        *list_anomalies("leaking copies", again[leaks], texts[leaks]),
        *list_anomalies("identical files", again[~leaks], texts[~leaks]),
    ]
