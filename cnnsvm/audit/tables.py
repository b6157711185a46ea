"""What the table itself tells: classes, splits and copies."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.audit.check import Check, DataSet, Verdict, on_threads
from cnnsvm.data.images import image_hash, load_image
from cnnsvm.data.near_duplicates import DuplicatePair, find_near_duplicates, pick_paths

#: Share of the rarer class below which accuracy says little.
RARE = 0.1
#: Correlation of thumbnails from which two images are one. Halved, squared or JPEG 50 copies reach
#: 0.98; of 192 pairs of CIFAR-10 images with near hashes those above 0.95 are copies by eye.
COPY = 0.95
#: Share of the sources that have a copy from which results change.
MANY = 0.01
#: Kinds of pairs of sources, the most certain first, and what they are called.
KINDS = {
    "identical": "identical file pairs",
    "copy": "pairs of near copies",
    "alike": "pairs that look alike",
}
_THUMBNAIL = 32
_MOST_COMPARED = 5000
_LISTED = 50
_MOST_HASHED = 20_000  # images

Copies = Mapping[str, list[DuplicatePair]]


def find_copies(manifest: pd.DataFrame, n_jobs: int | None = None) -> Copies:
    """Find sources that show one image, by kind (`KINDS`), by hashes and then thumbnails."""
    pairs = find_near_duplicates(manifest, n_jobs=n_jobs)
    paths = dict(zip(dict.fromkeys(manifest["source_id"]), pick_paths(manifest), strict=True))
    near = [pair for pair in pairs if not pair.identical][:_MOST_COMPARED]
    needed = list(dict.fromkeys(s for pair in near for s in (pair.first, pair.second)))
    made = on_threads(_thumbnail, [paths[source] for source in needed], n_jobs)
    thumbnails = dict(zip(needed, made, strict=True))
    copies: dict[str, list[DuplicatePair]] = {kind: [] for kind in KINDS}
    for pair in pairs:
        copies[_kind(pair, thumbnails)].append(pair)
    return copies


def check_balance(data: DataSet) -> Check:
    """Count classes, overall, by split and by source."""
    table = data.table
    n_real, n_fake = (int((table["label"] == label).sum()) for label in (0, 1))
    classes = table.groupby("source_id")["label"].nunique()
    n_single, n_sources = int((classes == 1).sum()), len(classes)
    problems = {}
    if not n_real or not n_fake:
        problems[f"all images are {'fake' if n_fake else 'real'}"] = "Add the other class."
    elif min(n_real, n_fake) < RARE * len(table):
        problems["one class is rare: always naming the other is right most of the time"] = (
            "Judge by balanced accuracy and ROC AUC, not by accuracy."
        )
    if n_real and n_fake and n_single == n_sources:
        problems["no source has both classes, so what images show may differ by class too"] = (
            "If fakes were made from these originals, name their sources (--groups)."
        )
    elif n_real and n_fake and n_single:
        problems[f"{n_single} of {n_sources} sources have one class only"] = (
            "Give each fake the source_id of its original; drop the others if it is missing."
        )
    details: dict[str, Any] = {"n_real": n_real, "n_fake": n_fake, "n_sources": n_sources}
    details |= {"n_sources_of_one_class": n_single, "by_split": _by_split(table)}
    counts = f"{n_real} real and {n_fake} fake images of {n_sources} sources"
    summary = "; ".join([counts, *problems]) + "."
    verdict = Verdict.WARNING if problems else Verdict.PASS
    return Check("balance", verdict, summary, " ".join(problems.values()), details=details)


def check_splits(data: DataSet) -> Check:
    """Look for sources and copies on both sides of the splits that the manifest names."""
    named = data.table[data.table["split"].notna()]
    n_splits = named["split"].nunique()
    if n_splits < 2:
        reason = "the manifest names no two splits; folds are made by source_id."
        return Check("splits", Verdict.NOT_CHECKED, reason)
    places = named.groupby("source_id")["split"].agg(lambda values: sorted(set(values)))
    straddling = [str(source) for source, names in places.items() if len(names) > 1]
    copies = {kind: data.copies.get(kind, []) for kind in KINDS}
    across = {kind: [p for p in pairs if _apart(p, places)] for kind, pairs in copies.items()}
    lacking = [name for name, n in _by_split(named).items() if not n["real"] * n["fake"]]
    texts: dict[str, list[Any]] = {
        f"{len(straddling)} of {len(places)} sources lie in several splits": straddling
    }
    texts |= {f"{len(pairs)} {KINDS[kind]} across splits": pairs for kind, pairs in across.items()}
    texts |= {f"split {', '.join(lacking)} lacks a class": lacking}
    found = [text for text, reasons in texts.items() if reasons]
    details = {"straddling": straddling[:_LISTED], "n_straddling": len(straddling)}
    details |= {kind: _listed(pairs) for kind, pairs in across.items()}
    if not found:
        summary = f"no source and no copy lies in two of {n_splits} splits."
        return Check("splits", Verdict.PASS, summary, details=details)
    verdict = (
        Verdict.LEAK if straddling or across["identical"] or across["copy"] else Verdict.WARNING
    )
    example = f" (the first source: {straddling[0]})" if straddling else ""
    remedy = "Put a source, all that was made from it and its copies into one split."
    return Check("splits", verdict, "; ".join(found) + example + ".", remedy, details=details)


def check_duplicates(data: DataSet) -> Check:
    """Judge images that occur under several sources, which no grouped fold keeps together."""
    copies, n_sources = data.copies, data.table["source_id"].nunique()
    certain = [*copies["identical"], *copies["copy"]]
    n_involved = len({source for pair in certain for source in (pair.first, pair.second)})
    details: dict[str, Any] = {kind: _listed(pairs) for kind, pairs in copies.items()}
    details |= {f"n_{kind}": len(pairs) for kind, pairs in copies.items()}
    found = [f"{len(pairs)} {KINDS[kind]}" for kind, pairs in copies.items() if pairs]
    if not found:
        summary = f"no two of {n_sources} sources look alike."
        return Check("duplicates", Verdict.PASS, summary, details=details)
    leaks = bool(copies["identical"]) or (bool(certain) and n_involved >= MANY * n_sources)
    first = (certain or copies["alike"])[0]
    summary = (
        f"{', '.join(found)} under different source_ids, {n_involved} of {n_sources} sources with "
        f"a certain copy; the first: {first.first}, {first.second}."
    )
    remedy = (
        "Give both one source_id (cnnsvm.data.readers.merge_near_duplicates does; "
        "cnnsvm cv and fit call it), or drop one."
    )
    if not certain:
        remedy = "Look at the pairs. " + remedy
    return Check(
        "duplicates", Verdict.LEAK if leaks else Verdict.WARNING, summary, remedy, details=details
    )


def check_labels(data: DataSet) -> Check:
    """Look for fakes that are their original, to the pixel: nothing was repainted in them."""
    table = data.table
    both = table.groupby(["source_id", "width", "height"])["label"].transform("nunique") == 2
    rows = table[both][:_MOST_HASHED]
    hashes = list(on_threads(_pixel_hash, rows["path"].tolist(), -1))
    known = set(zip(rows["source_id"], hashes, rows["label"], strict=True))
    places = zip(rows["source_id"], hashes, rows["label"], rows["path"], strict=True)
    equal = [str(path) for s, h, label, path in places if label == 1 and (s, h, 0) in known]
    details = {"copies": equal[:_LISTED], "n_copies": len(equal), "n_compared": len(rows)}
    if not equal:
        summary = f"none of {len(rows)} images of one source and size is fake and real at once."
        return Check("labels", Verdict.PASS, summary, details=details)
    summary = f"{len(equal)} fake(s) are their original, pixel for pixel; the first: {equal[0]}."
    remedy = "Give them label 0 or leave them out: a classifier is taught, and judged by, errors."
    return Check("labels", Verdict.LEAK, summary, remedy, details=details)


def _pixel_hash(path: str) -> str:
    return image_hash(load_image(path))  # of the pixels, whatever the file


def _kind(pair: DuplicatePair, thumbnails: Mapping[Hashable, np.ndarray]) -> str:
    if pair.identical:
        return "identical"
    if not {pair.first, pair.second} <= thumbnails.keys():
        return "alike"
    a, b = (thumbnails[source].ravel() for source in (pair.first, pair.second))
    return "copy" if float(np.corrcoef(a, b)[0, 1]) >= COPY else "alike"


def _apart(pair: DuplicatePair, places: "pd.Series[Any]") -> bool:
    sides = [set(places.get(source, [])) for source in (pair.first, pair.second)]
    return bool(sides[0] and sides[1]) and len(sides[0] | sides[1]) > 1


def _listed(pairs: Sequence[DuplicatePair]) -> list[list[str]]:
    return [[str(pair.first), str(pair.second)] for pair in pairs[:_LISTED]]


def _by_split(manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    counts = pd.crosstab(manifest["split"], manifest["label"]).reindex(columns=[0, 1], fill_value=0)
    return {str(name): {"real": int(a), "fake": int(b)} for name, a, b in counts.itertuples()}


def _thumbnail(path: str) -> np.ndarray:
    image = Image.fromarray(load_image(path))
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS), np.float64)
