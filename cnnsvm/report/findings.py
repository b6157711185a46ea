"""What stands out in a data set, in words."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cnnsvm.report.wording import percent

#: Largest gap between the distributions of the classes from which on they differ, and much.
DIFFERS, DIFFERS_MUCH = 0.1, 0.3
_MOST_DIFFERENCE = 0.05  # in the share of a format between the classes


def findings(found: Mapping[str, Any]) -> list[str]:
    """Say in plain words what a reader should know first.

    Parameters
    ----------
    found : mapping
        As :func:`render_exploration` takes it.

    Returns
    -------
    list of str
        Sentences, not escaped.
    """
    counts = Counter(entry["check"] for entry in found["odd"])
    listed = ", ".join(f"{name} ({n:,})" for name, n in counts.items())
    sentences = [_balance_finding(found), *format_findings(found["files"])]
    telling = [spaced(k) for k, v in found["separation"].items() if differs(v) > 1]
    if telling:
        named = ", ".join(telling)
        sentences.append(f"The classes differ in {named}: a detector may find no more than that.")
    if found["n_fake"] and found["files"]["mask_path"].isna().all():
        sentences.append("No fake comes with a mask: where it was repainted is not known.")
    if counts["one class only"] == found["n_sources"]:
        sentences.append(
            "No source has both classes. If fakes were made from these real images, say from "
            "which (--groups), or they will be trained on one and tested on the other."
        )
    sentences.append(f"Odd, see the end: {listed}." if listed else "Nothing odd was found.")
    return sentences


def _balance_finding(found: Mapping[str, Any]) -> str:
    n_real, n_fake = found["n_real"], found["n_fake"]
    if not n_fake:
        return "These are sources only: real images to make fakes from."
    if not n_real:
        return "There are no real images: a detector needs their originals too."
    ratio = n_fake / n_real
    if 2 / 3 < ratio < 1.5:
        return "Both classes are about equally large."
    larger = f"{ratio:.3g} fakes to one real" if ratio > 1 else f"{1 / ratio:.3g} reals to one fake"
    return f"There are {larger} image: accuracy flatters, so read balanced accuracy."


def format_findings(files: pd.DataFrame) -> list[str]:
    """Say how the formats of real and fake files differ; nothing if they do not."""
    if files["label"].nunique() < 2:
        return []
    shares = pd.crosstab(files["format"], files["label"], normalize="columns")
    if (shares[0] - shares[1]).abs().max() <= _MOST_DIFFERENCE:
        return []
    real, fake = (
        ", ".join(f"{name} ({percent(share)})" for name, share in shares[label].items() if share)
        for label in (0, 1)
    )
    return [f"The format of a file tells its class: real files are {real}, fake ones {fake}."]


def differs(entry: Mapping[str, float]) -> int:
    """Grade a difference: 0 none, or within chance; 1 some; 2 much."""
    if entry["gap"] < max(DIFFERS, entry["chance"]):
        return 0
    return 2 if entry["gap"] >= DIFFERS_MUCH else 1


def spaced(name: str) -> str:
    """Write the name of a column as words."""
    return name.replace("_", " ")
