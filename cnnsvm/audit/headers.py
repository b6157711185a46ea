"""What the headers of files say, and whether it differs between the classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from cnnsvm.audit.check import SAME_PATH, Check, DataSet, Verdict, on_threads
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
_IN_EVERY_JPEG = {"jfif_version", "jfif_unit", "jfif_density", "jfif"}


def read_headers(paths: Sequence[str], n_jobs: int | None = None) -> pd.DataFrame:
    """Describe the headers of files by `describe_header`, one row a path."""
    return pd.DataFrame(on_threads(describe_header, paths, n_jobs))


def describe_header(path: str) -> dict[str, Any]:
    """Describe the header of one file; an ImageError if it cannot be read.

    Returns ``width`` and ``height`` (pixels, upright), ``bits_a_pixel``, ``lossy`` and `FACTS`.
    """
    header = read_header(path)
    width, height = header.upright_size
    tables = header.quantization
    means = ", ".join(f"{np.mean(tables[key]):.1f}" for key in sorted(tables))
    names = {*header.entries} - _IN_EVERY_JPEG | ({"exif"} if header.n_exif else set())
    return {
        "width": width,
        "height": height,
        "bits_a_pixel": 8 * (header.n_bytes or 0) / (width * height),
        "lossy": header.coding in LOSSY,
        "format": "WEBP lossy" if header.coding == "WEBP" else str(header.coding),
        "pixel_mode": header.mode,
        "quantisation": f"mean {means}" if tables else "none",
        "subsampling": _subsampling(header) if tables else "none",
        "entries": ", ".join(sorted(names)) or "none",
    }


def _subsampling(header: Header) -> str:
    if len(header.sampling) < 3:
        return "grey"
    luma, chroma = header.sampling[:2]
    ratio = (luma[0] // max(chroma[0], 1), luma[1] // max(chroma[1], 1))
    return _SUBSAMPLING.get(ratio, f"{ratio[0]}x{ratio[1]}")


def check_post_processing(data: DataSet) -> Check:
    """Compare headers, sizes and the column ``history`` of the two classes, by source."""
    table, headers = data.table, data.headers
    if table["label"].nunique() < 2:
        return Check("post-processing", Verdict.NOT_CHECKED, "there is one class only.")
    multiples = (table[["width", "height"]].astype(float) % 8 == 0).sum(axis=1)
    named = multiples.map({0: "none", 1: "one", 2: "both"})
    facts = headers[list(FACTS)].assign(multiple_of_8=named.to_numpy())
    if "history" in table and table["history"].notna().any():
        facts["history"] = table["history"].fillna("none").astype(str).to_numpy()
    units = [table["source_id"].to_numpy(), table["label"].to_numpy(dtype=int)]
    most_p = MOST_P / facts.shape[1]
    compared = {
        str(name): _compare(values.astype(str).to_numpy(), units, most_p, name != "multiple_of_8")
        for name, values in facts.items()
    }
    sizes = _compare_sizes(table)
    differ = {name: entry for name, entry in compared.items() if entry["differs"]}
    found = [f"{_NAMES[name]}: {_shares_text(entry)}" for name, entry in differ.items()]
    found += [sizes["summary"]] if sizes["summary"] else []
    details = {"facts": compared, "sizes": sizes}
    if not found:
        kinds = ", ".join(headers["format"].value_counts().index[:_SHOWN])
        what = "formats, quantisation, names of header entries and sizes"
        summary = f"{what} are alike in both classes ({kinds})."
        return Check("post-processing", Verdict.PASS, summary, details=details)
    verdict = Verdict.LEAK if differ or sizes["differs"] else Verdict.WARNING
    return Check("post-processing", verdict, "; ".join(found) + ".", SAME_PATH, details=details)


def _shares_text(entry: dict[str, Any]) -> str:
    named = []
    for name in ("real", "fake"):
        shares = list(entry[name].items())[:_SHOWN]
        named.append(f"{name} " + ", ".join(f"{value} {share:.0%}" for value, share in shares))
    return ", ".join(named)


def _compare(
    values: np.ndarray, units: list[np.ndarray], most_p: float, certain: bool
) -> dict[str, Any]:
    """Compare the shares of values by total variation distance, each source counting once a class.

    Facts that follow from how a file was written are ``certain``: where no value is in both
    classes, a few sources are enough.
    """
    names, codes = np.unique(values, return_inverse=True)
    common = np.argsort(-np.bincount(codes), kind="stable")[:_MOST_VALUES]
    hot = codes[:, None] == common
    means = pd.DataFrame(hot.astype(float)).groupby(units).mean()
    shares = means.to_numpy()
    sources, labels = (means.index.get_level_values(level).to_numpy() for level in (0, 1))
    distance = _distance(shares, labels)
    p = _p_value(shares, sources, labels, distance) if distance > MOST_DIFFERENCE else 1.0
    described = {}
    for label, name in enumerate(("real", "fake")):
        mean = pd.Series(shares[labels == label].mean(axis=0), names[common].astype(str))
        described[name] = mean[mean > 0].sort_values(ascending=False, kind="stable").to_dict()
    # of a handful of sources no test is sure, but JPEG against PNG throughout needs none
    disjoint = certain and distance >= 1 - MOST_DIFFERENCE and len(names) <= _FEW_VALUES
    differs = p <= most_p or (disjoint and _is_enough(sources, labels))
    return {**described, "distance": distance, "p": p, "differs": bool(differs)}


def _is_enough(sources: np.ndarray, labels: np.ndarray) -> bool:
    """Whether there are two sources with both classes, or five a class."""
    both = set(sources[labels == 0]) & set(sources[labels == 1])
    return len(both) >= 2 or min(np.sum(labels == label) for label in (0, 1)) >= _LEAST_SOURCES


def _distance(shares: np.ndarray, labels: np.ndarray) -> float:
    real, fake = (shares[labels == label].mean(axis=0) for label in (0, 1))
    return float(np.abs(fake - real).sum() / 2)


def _p_value(shares: np.ndarray, sources: np.ndarray, labels: np.ndarray, observed: float) -> float:
    """Swap the classes of sources that have both; permute those of the others."""
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


def _compare_sizes(table: pd.DataFrame) -> dict[str, Any]:
    """Compare the mean size of a record's fakes with that of its originals, by a sign test."""
    table = table[table.groupby("unit")["label"].transform("nunique") == 2]
    if table.empty:
        return {"n_records": 0, "share_mixed": 0.0, "summary": "", "differs": False}
    sizes = table["width"].astype(str) + "x" + table["height"].astype(str)
    mixed = sizes.groupby(table["unit"]).nunique() > 1
    area = table.assign(area=table["width"].astype(float) * table["height"].astype(float))
    means = area.groupby(["unit", "label"])["area"].mean().unstack()
    larger, smaller = int((means[1] > means[0]).sum()), int((means[1] < means[0]).sum())
    p = binomtest(larger, larger + smaller).pvalue if larger + smaller else 1.0
    share = float(mixed.mean())
    found = f"{int(mixed.sum())} of {len(mixed)} records mix sizes"
    summary = f"size within a record: {found} (fakes larger in {larger}, smaller in {smaller})"
    return {
        "n_records": len(mixed),
        "share_mixed": share,
        "n_larger": larger,
        "n_smaller": smaller,
        "p": float(p),
        "differs": bool(share > MOST_DIFFERENCE and p <= MOST_P),
        "summary": summary if share > MOST_DIFFERENCE else "",
    }
