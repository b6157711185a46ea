"""What the table itself tells: classes, splits and copies."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from cnnsvm.audit.check import LEAK, NOT_CHECKED, PASS, WARNING, Check
from cnnsvm.data.images import load_image
from cnnsvm.data.near_duplicates import DuplicatePair, find_near_duplicates, pick_paths

#: Share of the rarer class below which accuracy says little.
RARE = 0.1
#: Correlation of thumbnails from which two pictures are one. Copies that were halved, squared or
#: saved as JPEG 50 reach 0.98; of 192 pairs of CIFAR-10 pictures whose hashes are within 6 bits,
#: those above 0.95 are copies by eye, those below 0.9 merely have one composition.
COPY = 0.95
#: Share of the sources that have a copy from which results change.
MANY = 0.01
_THUMBNAIL = 32
_MOST_COMPARED = 5000
_LISTED = 50


@dataclass(frozen=True)
class Copies:
    """Sources that show one picture under several names.

    Parameters
    ----------
    pairs : list of DuplicatePair
    correlation : list of float in [-1, 1]
        Of the thumbnails; 1 where files are identical, nan where it was not measured.
    """

    pairs: list[DuplicatePair]
    correlation: list[float]

    def select(self, kind: str) -> list[DuplicatePair]:
        """Return the pairs that are ``identical``, a ``copy``, or merely ``alike``."""
        return [p for p, c in zip(self.pairs, self.correlation, strict=True) if kind == _kind(p, c)]


def find_copies(manifest: pd.DataFrame, n_jobs: int | None = None) -> Copies:
    """Find sources that show one picture, and compare what the hashes cannot tell apart.

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    pairs = find_near_duplicates(manifest, n_jobs=n_jobs)
    paths = dict(zip(dict.fromkeys(manifest["source_id"]), pick_paths(manifest), strict=True))
    near = [pair for pair in pairs if not pair.identical][:_MOST_COMPARED]
    needed = list(dict.fromkeys(s for pair in near for s in (pair.first, pair.second)))
    made = Parallel(n_jobs=n_jobs or -1, prefer="threads")(
        delayed(_thumbnail)(paths[source]) for source in needed
    )
    thumbnails = dict(zip(needed, made, strict=True))
    return Copies(pairs, [_correlation(pair, thumbnails) for pair in pairs])


def check_balance(manifest: pd.DataFrame) -> Check:
    """Count classes, overall, by split and by source."""
    n_real, n_fake = (int((manifest["label"] == label).sum()) for label in (0, 1))
    classes = manifest.groupby("source_id")["label"].nunique()
    n_single, n_sources = int((classes == 1).sum()), len(classes)
    problems = {}
    if not n_real or not n_fake:
        problems[f"all images are {'fake' if n_fake else 'real'}"] = "Add the other class."
    elif min(n_real, n_fake) < RARE * len(manifest):
        problems["one class is rare: always naming the other is right most of the time"] = (
            "Judge by balanced accuracy and ROC AUC, not by accuracy."
        )
    if n_real and n_fake and n_single == n_sources:
        problems["no source has both classes, so what pictures show may differ by class too"] = (
            "If fakes were made from these originals, name their sources (--groups)."
        )
    elif n_real and n_fake and n_single:
        problems[f"{n_single} of {n_sources} sources have one class only"] = (
            "Give each fake the source_id of its original; drop the others if it is missing."
        )
    counts = f"{n_real} real and {n_fake} fake images of {n_sources} sources"
    details = {
        "n_real": n_real,
        "n_fake": n_fake,
        "n_sources": n_sources,
        "n_sources_of_one_class": n_single,
        "by_split": _by_split(manifest),
    }
    if not problems:
        return Check("balance", PASS, f"{counts}.", details=details)
    summary, remedy = f"{counts}; {'; '.join(problems)}.", " ".join(problems.values())
    return Check("balance", WARNING, summary, remedy, details=details)


def check_splits(manifest: pd.DataFrame, copies: Copies) -> Check:
    """Look for sources and copies on both sides of the splits that the manifest names."""
    named = manifest[manifest["split"].notna()]
    if named["split"].nunique() < 2:
        reason = "the manifest names no two splits; folds are made by source_id."
        return Check("splits", NOT_CHECKED, reason)
    places = named.groupby("source_id")["split"].agg(lambda values: sorted(set(values)))
    straddling = [str(source) for source, names in places.items() if len(names) > 1]
    across = {
        kind: [p for p in copies.select(kind) if _apart(p, places)]
        for kind in ("identical", "copy", "alike")
    }
    found = [f"{len(straddling)} of {len(places)} sources lie in several splits"]
    found += [f"{len(pairs)} {_WORDS[kind]} across splits" for kind, pairs in across.items()]
    present = [bool(straddling), *(bool(pairs) for pairs in across.values())]
    lacking = [
        name for name, counts in _by_split(named).items() if not counts["real"] * counts["fake"]
    ]
    details = {"straddling": straddling[:_LISTED], "n_straddling": len(straddling)}
    details |= {kind: _listed(pairs) for kind, pairs in across.items()}
    told = [text for text, is_there in zip(found, present, strict=True) if is_there]
    told += [f"split {', '.join(lacking)} lacks a class"] if lacking else []
    if not told:
        summary = f"no source and no copy lies in two of {named['split'].nunique()} splits."
        return Check("splits", PASS, summary, details=details)
    remedy = "Put a source, all that was made from it and its copies into one split."
    return Check(
        "splits",
        LEAK if any(present[:3]) else WARNING,
        "; ".join(told) + _example(straddling) + ".",
        remedy,
        details=details,
    )


def check_duplicates(manifest: pd.DataFrame, copies: Copies) -> Check:
    """Judge pictures that occur under several sources, which no grouped fold keeps together."""
    n_sources = manifest["source_id"].nunique()
    by_kind = {kind: copies.select(kind) for kind in ("identical", "copy", "alike")}
    certain = [*by_kind["identical"], *by_kind["copy"]]
    n_involved = len({source for pair in certain for source in (pair.first, pair.second)})
    details: dict[str, Any] = {kind: _listed(pairs) for kind, pairs in by_kind.items()}
    details |= {f"n_{kind}": len(pairs) for kind, pairs in by_kind.items()}
    if not copies.pairs:
        summary = f"no two of {n_sources} sources look alike."
        return Check("duplicates", PASS, summary, details=details)
    told = [f"{len(pairs)} {_WORDS[kind]}" for kind, pairs in by_kind.items() if pairs]
    leaks = bool(by_kind["identical"]) or (bool(certain) and n_involved >= MANY * n_sources)
    first = (certain or by_kind["alike"])[0]
    summary = (
        f"{', '.join(told)} under different source_ids, {n_involved} of {n_sources} sources with "
        f"a sure copy; the first: {first.first}, {first.second}."
    )
    remedy = (
        "Give both one source_id (cnnsvm.data.readers.merge_near_duplicates does; "
        "experiments/cv.py "
        "and cnnsvm fit call it), or drop one."
    )
    if not certain:
        remedy = "Look at the pairs. " + remedy
    return Check("duplicates", LEAK if leaks else WARNING, summary, remedy, details=details)


_WORDS = {
    "identical": "identical file pairs",
    "copy": "pairs of near copies",
    "alike": "pairs that look alike",
}


def _kind(pair: DuplicatePair, correlation: float) -> str:
    if pair.identical:
        return "identical"
    return "copy" if correlation >= COPY else "alike"


def _apart(pair: DuplicatePair, places: "pd.Series[Any]") -> bool:
    sides = [set(places.get(source, [])) for source in (pair.first, pair.second)]
    return bool(sides[0] and sides[1]) and len(sides[0] | sides[1]) > 1


def _listed(pairs: Sequence[DuplicatePair]) -> list[list[str]]:
    return [[str(pair.first), str(pair.second)] for pair in pairs[:_LISTED]]


def _example(names: Sequence[str]) -> str:
    return f" (the first source: {names[0]})" if names else ""


def _by_split(manifest: pd.DataFrame) -> dict[str, dict[str, int]]:
    counts = manifest[manifest["split"].notna()].groupby(["split", "label"]).size()
    return {
        str(name): {"real": int(counts.get((name, 0), 0)), "fake": int(counts.get((name, 1), 0))}
        for name in counts.index.get_level_values(0).unique()
    }


def _thumbnail(path: str) -> np.ndarray:
    image = Image.fromarray(load_image(path))
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS), np.float64)


def _correlation(pair: DuplicatePair, thumbnails: dict[Hashable, np.ndarray]) -> float:
    if pair.identical:
        return 1.0
    if pair.first not in thumbnails or pair.second not in thumbnails:
        return float("nan")
    a, b = (thumbnails[source].ravel() for source in (pair.first, pair.second))
    return float(np.corrcoef(a, b)[0, 1])
