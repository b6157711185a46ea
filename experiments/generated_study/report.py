"""The report on generated images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.io.tables import to_csv
from cnnsvm.report.model import Report, Section, Table
from generated_study.study import GENERATED, ORIGINAL, UNSURE, share

NOTES = (
    "Of each row, the kind of real image was in no training, calibration or threshold; nor were "
    "the sources (styles, or families of generators) that it is judged against.",
    "Shares are of verdicts, with Wilson's 95 % interval; intervals of the ROC AUC come from "
    "resampling sources. A mean over kinds counts each kind once.",
)


def generated_report(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    judged: pd.DataFrame,
    trained_after: Sequence[str],
    command: str,
) -> Report:
    """Make the report of `study.leave_kinds_out` and `study.summarise`."""
    facts = {
        "n_images": len(table),
        "n_sources": int(table["group"].nunique()),
        "command": command,
        "split": "each kind of real image left out in turn",
    }
    sections = [
        Section(f"After {name!s}", [_table(part)])
        for name, part in summary.groupby("treatment", sort=False)
    ]
    sections.append(Section("Judged alone", [_alone(judged)]))
    return Report(
        facts,
        "Generated as a whole",
        findings=[finding(name, part) for name, part in summary.groupby("treatment", sort=False)],
        notes=[*NOTES, f"Copies after {', '.join(trained_after)} were trained on."],
        sections=sections,
        files={"generated.csv": to_csv(flat(summary))},
        name="generated",
    )


def finding(name: Any, part: pd.DataFrame) -> str:
    """Say how well it does after a treatment, in the mean over kinds of real images."""
    kinds = kinds_of_fakes(part)
    ranked = ", ".join(f"{mean(part, f'{kind} auc'):.3f} of {kind}" for kind in kinds)
    worst = max(value["value"] for value in part[f"real {GENERATED}"])
    return (
        f"{name}: ROC AUC {ranked}; of a kind of real image never seen "
        f"{mean(part, f'real {GENERATED}'):.3f} are said to be generated ({worst:.3f} of the worst "
        f"kind) and {mean(part, f'real {UNSURE}'):.3f} are unsure."
    )


def kinds_of_fakes(summary: pd.DataFrame) -> list[str]:
    """Return the names of the generators in a summary."""
    return [str(name).removesuffix(" auc") for name in summary if str(name).endswith(" auc")]


def mean(part: pd.DataFrame, column: str) -> float:
    """Return the mean of a column of intervals, each kind of real image counted once."""
    return float(np.nanmean([value["value"] for value in part[column]]))


def _table(part: pd.DataFrame) -> Table:
    columns = [str(c) for c in part if c not in ("kind", "treatment", "n")]
    rows = [[r["kind"], r["n"], *(r[c] for c in columns)] for _, r in part.iterrows()]
    rows.append(["mean", int(part["n"].sum()), *(mean(part, c) for c in columns)])
    return Table(["kind", "images", *columns], rows)


def _alone(judged: pd.DataFrame) -> Table:
    """Show verdicts on what is judged alone, over the classifiers of all kinds left out."""
    verdicts = (GENERATED, ORIGINAL, UNSURE)
    alone = judged[judged["role"] != "train"]
    rows = [
        [f"{kind}, {name}", part["path"].nunique(), *(share(part, v) for v in verdicts)]
        for (kind, name), part in alone.groupby(["kind", "treatment"], sort=False)
    ]
    return Table(["kind", "images", *verdicts], rows)


def flat(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary with a column for each end of an interval."""
    rows: list[dict[str, Any]] = []
    for entry in summary.to_dict("records"):
        row: dict[str, Any] = {}
        for name, value in entry.items():
            ends = value if isinstance(value, dict) else None
            row |= {f"{name} {k}": v for k, v in ends.items()} if ends else {str(name): value}
        rows.append(row)
    return pd.DataFrame(rows)
