"""Tables of a study of one data set under several heads."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cnnsvm.report.wording import format_interval, format_number


def heads_table(rows: Sequence[dict[str, Any]], memory: int) -> dict[str, Any]:
    """Put heads side by side.

    Parameters
    ----------
    rows : sequence of dict
        See `cifake_study.heads.compare_heads`.
    memory : int
        Most bytes that the process has held.

    Returns
    -------
    dict
        ``title``, ``headers``, ``rows`` and ``note``, as reports take tables.
    """
    shown = [
        [
            row["head"],
            *(format_interval(row["metrics"][name]) for name in ("accuracy", "f1", "roc_auc")),
            "" if row["difference"] is None else format_interval(row["difference"]),
            "" if row["n_vectors"] is None else f"{row['n_vectors']:,}",
            "" if row["seconds"] is None else f"{row['seconds']:,.0f} s",
            "" if row["rate"] is None else f"{row['rate']:,.0f}",
        ]
        for row in rows
    ]
    headers = ["head", "accuracy", "F1", "ROC AUC", "against the last"]
    headers += ["vectors", "fitted in", "rows/s"]
    note = "The same embeddings under each head; the difference in accuracy is paired."
    note += f" Most memory of the process so far: {format_number(memory / 1e9)} GB."
    return {"title": "With and without the SVM", "headers": headers, "rows": shown, "note": note}


def duplicates_table(counted: pd.DataFrame, n_left_out: int) -> dict[str, Any]:
    """Show how many images have near-duplicates, and how many were left out for it.

    Parameters
    ----------
    counted : DataFrame
        See `cifake_study.groups.count_duplicates`.
    n_left_out : int
        Training images that share a group with one that is judged.

    Returns
    -------
    dict
        As of `heads_table`.
    """
    return {
        "title": "Near-duplicates",
        "headers": ["images", "n", "same pixels", "near-duplicates", "groups of them"],
        "rows": [[str(name), *(f"{n:,}" for n in row)] for name, row in counted.iterrows()],
        "note": f"No group is on two sides of a split. Left out of training for it: {n_left_out}.",
    }
