"""Several evaluations of the same images, compared in pairs.

A run is the folder of an evaluation; what it says of each image is in its ``predictions.csv``.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cnnsvm.data.splits import encode_groups
from cnnsvm.evaluation.bootstrap import BATCH, check_options, match_tables, paired_difference
from cnnsvm.evaluation.metrics import weighted_metrics

#: What is compared, in this order.
COMPARED = ("balanced_accuracy", "roc_auc", "pr_auc", "brier")
PREDICTIONS = "predictions.csv"
_NEEDED = ("path", "source_id", "label", "probability", "prediction")


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> dict[str, pd.DataFrame]:
    """Read what runs said of each image, by the shortest names that tell their folders apart.

    The paths of images become relative to the folder of a run's data, as each run may have a copy.
    A ValueError says that there are fewer than two, or that one holds no predictions.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs at least two runs, got {len(folders)}. Name another.")
    paths = [Path(folder) for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError("a run is named twice: it cannot differ from itself. Name it once.")
    names = [path.resolve().name for path in paths]
    shown = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return {name: _read(path) for name, path in zip(shown, paths, strict=True)}


def _read(folder: Path) -> pd.DataFrame:
    file = folder / PREDICTIONS
    if not file.is_file():
        raise ValueError(
            f"{folder} holds no {PREDICTIONS}. Name the --out folder of a `cnnsvm cv` that "
            "has finished."
        )
    table = pd.read_csv(
        file, dtype={"path": str, "source_id": str}, encoding_errors="surrogateescape"
    )
    missing = [name for name in _NEEDED if name not in table]
    if missing or table.empty:
        what = f"lacks the column(s) {', '.join(missing)}" if missing else "has no row"
        raise ValueError(f"{file} {what}. Run `cnnsvm cv` again.")
    folders = [os.path.dirname(path) for path in table["path"]]
    top = os.path.commonpath(folders) if len(set(map(os.path.isabs, folders))) == 1 else ""
    return table.assign(path=[os.path.relpath(path, top or ".") for path in table["path"]])


def compare_runs(
    runs: Mapping[str, pd.DataFrame],
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> dict[str, Any]:
    """Compare runs in pairs: differences with intervals, and paired tests over sources.

    Parameters
    ----------
    runs : mapping of str to DataFrame
        What `read_runs` returned, at least two.
    n_resamples : int
        Of the bootstrap, and permutations of the test.
    confidence : float in (0, 1)
    random_state : int or None

    Returns
    -------
    dict
        ``runs`` (names), ``n_images``, ``n_sources``, ``confidence``, ``same_folds``, and
        ``pairs``: ``a``, ``b`` and ``metrics``, for each of `COMPARED` its value in ``a`` and
        ``b``, the difference a - b as ``value``, ``low`` and ``high``, ``p`` (`permutation_p`)
        and ``p_holm``, adjusted for the number of pairs.

    Raises
    ------
    ValueError
        If two runs judged other images, or the labels or sources of an image differ.
    """
    check_options(n_resamples, confidence)
    first, *_ = runs.values()
    options: dict[str, Any] = {"n_resamples": n_resamples, "random_state": random_state}
    pairs: list[dict[str, Any]] = []
    for a, b in itertools.combinations(runs, 2):
        tables = _aligned(a, b, runs)
        p = permutation_p(*tables, **options)
        ones = np.ones((1, len(tables[0])))
        scores = [weighted_metrics(*_columns(table), ones) for table in tables]
        metrics: dict[str, dict[str, float]] = {
            name: paired_difference(*tables, name, confidence=confidence, **options)
            | {"a": float(scores[0][name][0]), "b": float(scores[1][name][0]), "p": p[name]}
            for name in COMPARED
        }
        pairs.append({"a": a, "b": b, "metrics": metrics})
    for name in COMPARED:
        adjusted = holm(np.array([pair["metrics"][name]["p"] for pair in pairs]))
        for pair, p_holm in zip(pairs, adjusted, strict=True):
            pair["metrics"][name]["p_holm"] = float(p_holm)
    return {
        "runs": list(runs),
        "n_images": len(first),
        "n_sources": int(first["source_id"].nunique()),
        "confidence": confidence,
        "same_folds": _same_folds(runs),
        "pairs": pairs,
    }


def permutation_p(
    a: pd.DataFrame, b: pd.DataFrame, n_resamples: int = 2000, random_state: int | None = 0
) -> dict[str, float]:
    """Test for each of `COMPARED` that two models are equally good; two-sided p-values.

    If they are, nothing changes where they swap what they say of a source: of ``n_resamples``
    draws of sources that swap, p is the share whose difference is at least as large as the one
    found, both counts plus one. Areas swap ranks, so that models of other scales compare.

    E. S. Venkatraman and C. B. Begg, "A distribution-free procedure for comparing receiver
    operating characteristic curves from a paired experiment", Biometrika 83, 1996.

    Parameters
    ----------
    a, b : DataFrame
        As for `cnnsvm.evaluation.bootstrap.paired_difference`, with rows in one order.
    """
    sources = encode_groups(a["source_id"].to_numpy(dtype=object), len(a))
    n_sources, rng = int(sources.max()) + 1, np.random.default_rng(random_state)
    swapped = np.zeros((n_resamples + 1, n_sources), dtype=bool)  # the first: as it was found
    swapped[1:] = rng.integers(2, size=(n_resamples, n_sources))
    step = max(1, BATCH // (2 * len(a)))
    parts = [_swap(a, b, swapped[k : k + step, sources]) for k in range(0, len(swapped), step)]
    values = {name: np.abs(np.concatenate([part[name] for part in parts])) for name in COMPARED}
    # differences that are equal but for rounding count as equal
    return {name: float(np.mean(found >= found[0] - 1e-12)) for name, found in values.items()}


def _swap(a: pd.DataFrame, b: pd.DataFrame, swapped: np.ndarray) -> dict[str, np.ndarray]:
    """Return the differences after rows of a and b were swapped, bool (n_draws, n_rows)."""
    label, chance, called = (
        np.concatenate(both) for both in zip(_columns(a), _columns(b), strict=True)
    )
    ranks = np.concatenate([rankdata(t["probability"]) / len(t) for t in (a, b)])
    of_a = np.hstack([~swapped, swapped]).astype(np.float64)
    found: dict[str, np.ndarray] = {}
    for names, scores in ((COMPARED, chance), (("roc_auc", "pr_auc"), ranks)):
        one, other = (weighted_metrics(label, scores, called, w) for w in (of_a, 1 - of_a))
        found |= {name: one[name] - other[name] for name in names}
    return found


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust p-values for their number: the chance of any false alarm stays.

    Parameters
    ----------
    p : ndarray of float, shape (n,)
        In [0, 1]; nan is not counted and stays nan.

    Returns
    -------
    ndarray of float64, shape (n,)

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979.
    """
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def _aligned(a: str, b: str, runs: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bring the rows of two runs into one order; refuse other images, labels or sources."""
    try:
        tables = match_tables(runs[a], runs[b])
    except ValueError as error:
        raise ValueError(f"{a} and {b} cannot be compared: {error}") from error
    if all("sha256" in table for table in tables):
        differs = np.flatnonzero(tables[0]["sha256"].to_numpy() != tables[1]["sha256"].to_numpy())
        if len(differs):
            raise ValueError(
                f"{a} and {b} cannot be compared: {len(differs)} image(s) have other content in "
                f"one than in the other, such as {tables[0]['path'][differs[0]]!r}. Evaluate both "
                "on one manifest, with one --codec."
            )
    return tables


def _same_folds(runs: Mapping[str, pd.DataFrame]) -> bool | None:
    """Tell whether all runs split the images alike; None if one does not say how."""
    tables = list(runs.values())
    if not all("fold" in table for table in tables):
        return None
    first, *others = ((table.set_index("path")["fold"]).sort_index() for table in tables)
    return all(first.equals(other) for other in others)


def _columns(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, chance, called = (table[name].to_numpy() for name in _NEEDED[2:])
    return label, chance, called
