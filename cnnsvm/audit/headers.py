"""What the headers of files say, and whether it differs between the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import binomtest

from cnnsvm.audit.check import LEAK, NOT_CHECKED, PASS, WARNING, Check
from cnnsvm.data.images import LOSSY, Header, read_header

#: Facts that a header tells, besides the size.
FACTS = ("format", "pixel_mode", "quantisation", "subsampling", "entries")
_NAMES = {
    "format": "file format",
    "pixel_mode": "pixel mode",
    "quantisation": "JPEG quantisation",
    "subsampling": "chroma subsampling",
    "entries": "header entries",
    "history": "column history",
    "multiple_of_8": "sides that are multiples of 8",
    "size": "size within a record",
}
#: Shares that differ by less are no difference.
MOST_DIFFERENCE = 0.05
MOST_P = 0.01  # of all facts together
_N_PERMUTATIONS = 999
_MOST_VALUES = 30
_SHOWN = 3
_FEW_VALUES = 4
_LEAST_SOURCES = 5  # a class; of fewer, values that differ throughout may do so by chance
_SUBSAMPLING = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0"}
_IN_EVERY_JPEG = ("jfif_version", "jfif_unit", "jfif_density", "jfif")

SAME_PATH = (
    "Write both classes through one code path: cnnsvm.generation.match_histories, or --codec "
    "jpeg:90 (png, webp:80) of the commands that train."
)


def read_headers(paths: Sequence[str], n_jobs: int | None = None) -> pd.DataFrame:
    """Read the headers of files, without decoding pixels.

    Returns
    -------
    DataFrame
        One row a path with ``width`` and ``height`` (pixels as stored), the columns of `FACTS`
        (str), ``lossy`` (bool) and ``bits_a_pixel`` (float).

    Raises
    ------
    ImageError
        If a file cannot be read.
    """
    facts = Parallel(n_jobs=n_jobs or -1, prefer="threads")(
        delayed(describe_header)(p) for p in paths
    )
    return pd.DataFrame(facts)


def describe_header(path: str) -> dict[str, Any]:
    """Describe the header of one file, see `read_headers`."""
    header = read_header(path)
    tables = header.quantization
    means = ", ".join(f"{np.mean(tables[key]):.1f}" for key in sorted(tables))
    names = {*header.entries} - {*_IN_EVERY_JPEG} | ({"exif"} if header.n_exif else set())
    return {
        "width": header.width,
        "height": header.height,
        "format": "WEBP lossy" if header.coding == "WEBP" else str(header.coding),
        "quantisation": f"mean {means}" if tables else "none",
        "subsampling": _subsampling(header) if tables else "none",
        "lossy": header.coding in LOSSY,
        "pixel_mode": header.mode,
        "entries": ", ".join(sorted(names)) or "none",
        "bits_a_pixel": 8 * (header.n_bytes or 0) / (header.width * header.height),
    }


def _subsampling(header: Header) -> str:
    if len(header.sampling) < 3:
        return "grey"
    luma, chroma = header.sampling[:2]
    ratio = (luma[0] // max(chroma[0], 1), luma[1] // max(chroma[1], 1))
    return _SUBSAMPLING.get(ratio, f"{ratio[0]}x{ratio[1]}")


def check_histories(manifest: pd.DataFrame, headers: pd.DataFrame) -> Check:
    """Compare what headers, sizes and the column ``history`` say of the two classes.

    The distributions are compared by total variation distance, with the sources as units: those
    with both classes are permuted by swapping the two, the others among themselves.

    Parameters
    ----------
    manifest : DataFrame
        With ``label``, ``source_id``, ``unit`` (the record), ``width`` and ``height``.
    headers : DataFrame
        As `read_headers` returns it, row by row.
    """
    if manifest["label"].nunique() < 2:
        return Check("histories", NOT_CHECKED, "there is one class only.")
    facts = headers[list(FACTS)].assign(multiple_of_8=_multiples(manifest).to_numpy())
    if "history" in manifest and manifest["history"].notna().any():
        facts["history"] = manifest["history"].fillna("none").astype(str).to_numpy()
    labels, sources = manifest["label"].to_numpy(dtype=int), manifest["source_id"].to_numpy()
    most_p = MOST_P / facts.shape[1]
    compared = {
        str(name): _compare(
            values.astype(str).to_numpy(), labels, sources, most_p, str(name) != "multiple_of_8"
        )
        for name, values in facts.items()
    }
    differ = {name: entry for name, entry in compared.items() if entry["differs"]}
    sizes = _compare_sizes(manifest)
    found = [f"{_NAMES[name]}: {_told(entry)}" for name, entry in differ.items()]
    found += [sizes["told"]] if sizes["told"] else []
    details = {"facts": compared, "sizes": sizes}
    if not found:
        return Check("histories", PASS, _all_alike(headers), details=details)
    verdict = LEAK if differ or sizes["differs"] else WARNING
    return Check("histories", verdict, "; ".join(found) + ".", SAME_PATH, details=details)


def _all_alike(headers: pd.DataFrame) -> str:
    kinds = ", ".join(headers["format"].value_counts().index[:_SHOWN])
    what = "formats, quantisation, names of header entries and sizes"
    return f"{what} are alike in both classes ({kinds})."


def _multiples(manifest: pd.DataFrame) -> pd.Series:
    sides = [manifest[name].astype(float) % 8 == 0 for name in ("width", "height")]
    return (sides[0].astype(int) + sides[1].astype(int)).map({0: "none", 1: "one", 2: "both"})


def _told(entry: dict[str, Any]) -> str:
    named = [
        ", ".join(f"{value} {share:.0%}" for value, share in list(shares.items())[:_SHOWN])
        for shares in (entry["real"], entry["fake"])
    ]
    return f"real {named[0]}, fake {named[1]}"


def _compare(
    values: np.ndarray, labels: np.ndarray, sources: np.ndarray, most_p: float, certain: bool
) -> dict[str, Any]:
    """Compare the shares of values between the classes, each source counting once a class.

    Facts that follow from how a file was written are ``certain``: where no value is in both
    classes, a few sources are enough.
    """
    names, codes = np.unique(values, return_inverse=True)
    common = np.argsort(-np.bincount(codes), kind="stable")[:_MOST_VALUES]
    hot = codes[:, None] == common
    units = pd.DataFrame(hot.astype(float)).groupby([sources, labels]).mean()
    shares = units.to_numpy()
    unit_source, unit_label = (units.index.get_level_values(level).to_numpy() for level in (0, 1))
    distance = _distance(shares, unit_label)
    p = 1.0
    if distance > MOST_DIFFERENCE:
        p = _p_value(shares, unit_source, unit_label, distance)
    told = {
        name: {
            str(names[k]): float(share)
            for k, share in sorted(
                zip(common, _mean(shares, unit_label, label), strict=True),
                key=lambda item: -item[1],
            )
            if share > 0
        }
        for label, name in enumerate(("real", "fake"))
    }
    # of a handful of sources no test is sure, but JPEG against PNG throughout needs none
    disjoint = certain and distance >= 1 - MOST_DIFFERENCE and len(names) <= _FEW_VALUES
    differs = p <= most_p or (disjoint and _is_enough(unit_source, unit_label))
    return {**told, "distance": distance, "p": p, "differs": bool(differs)}


def _is_enough(sources: np.ndarray, labels: np.ndarray) -> bool:
    """Tell whether there are two sources with both classes, or five a class."""
    both = set(sources[labels == 0]) & set(sources[labels == 1])
    return len(both) >= 2 or min(np.sum(labels == label) for label in (0, 1)) >= _LEAST_SOURCES


def _mean(shares: np.ndarray, labels: np.ndarray, label: int) -> np.ndarray:
    return shares[labels == label].mean(axis=0)


def _distance(shares: np.ndarray, labels: np.ndarray) -> float:
    return float(np.abs(_mean(shares, labels, 1) - _mean(shares, labels, 0)).sum() / 2)


def _p_value(shares: np.ndarray, sources: np.ndarray, labels: np.ndarray, observed: float) -> float:
    rng = np.random.default_rng(0)
    number = np.unique(sources.astype(str), return_inverse=True)[1]
    paired = np.bincount(number)[number] == 2
    reached = 0
    for _ in range(_N_PERMUTATIONS):
        swapped = rng.integers(2, size=number.max() + 1)[number]
        shuffled = np.where(paired, labels ^ swapped, labels)
        shuffled[~paired] = rng.permutation(labels[~paired])
        reached += _distance(shares, shuffled) >= observed - 1e-12
    return (1 + reached) / (1 + _N_PERMUTATIONS)


def _compare_sizes(manifest: pd.DataFrame) -> dict[str, Any]:
    """Compare the mean size of a record's fakes with that of its originals, by a sign test."""
    area = manifest["width"].astype(float) * manifest["height"].astype(float)
    table = manifest[["unit", "label"]].assign(
        area=area, size=manifest["width"].astype(str) + "x" + manifest["height"].astype(str)
    )
    both = table.groupby("unit")["label"].transform("nunique") == 2
    table = table[both]
    if table.empty:
        return {"n_records": 0, "share_mixed": 0.0, "told": "", "differs": False}
    mixed = table.groupby("unit")["size"].nunique() > 1
    means = table.groupby(["unit", "label"])["area"].mean().unstack()
    larger, smaller = int((means[1] > means[0]).sum()), int((means[1] < means[0]).sum())
    p = binomtest(larger, larger + smaller).pvalue if larger + smaller else 1.0
    share = float(mixed.mean())
    differs = share > MOST_DIFFERENCE and p <= MOST_P
    told = (
        f"{_NAMES['size']}: {int(mixed.sum())} of {len(mixed)} records mix sizes "
        f"(fakes larger in {larger}, smaller in {smaller})"
    )
    return {
        "n_records": len(mixed),
        "share_mixed": share,
        "n_larger": larger,
        "n_smaller": smaller,
        "p": float(p),
        "differs": bool(differs),
        "told": told if share > MOST_DIFFERENCE else "",
    }
