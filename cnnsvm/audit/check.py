"""What one check of an audit says, and the rule that turns an AUC into a verdict."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.evaluation.bootstrap import Interval, bootstrap_metrics
from cnnsvm.evaluation.negative_controls import WELL_ABOVE

PASS = "pass"
WARNING = "warning"
LEAK = "leak"
NOT_CHECKED = "not checked"
SURE = 0.99
#: Best first.
VERDICTS = (PASS, NOT_CHECKED, WARNING, LEAK)


@dataclass
class Check:
    """What one check found.

    Parameters
    ----------
    name : str
    verdict : {"pass", "warning", "leak", "not checked"}
    summary : str
        What was found, in numbers.
    remedy : str
        What to do about it; empty where there is nothing to do.
    auc, low, high : float in [0, 1] or None
        ROC AUC of a probe with its 95 % interval; None where the check is no probe.
    details : dict
        More about it, as JSON can hold it.
    """

    name: str
    verdict: str
    summary: str
    remedy: str = ""
    auc: float | None = None
    low: float | None = None
    high: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)


def worst_verdict(verdicts: list[str]) -> str:
    """Return the worst of some verdicts, ``pass`` if there are none."""
    return max(verdicts, key=VERDICTS.index, default=PASS)


def score_probe(sample: pd.DataFrame, probability: np.ndarray) -> Interval:
    """Score a probe.

    Parameters
    ----------
    sample : DataFrame
        With ``source_id`` and ``label``.
    probability : ndarray of float in [0, 1], shape (n_images,)

    Returns
    -------
    dict
        ROC AUC: ``value``, its 95 % interval ``low`` and ``high``, and ``surely``, the lower end
        of the 99 % interval, all bootstrapped over sources.
    """
    judged = sample[["source_id", "label"]].assign(
        probability=probability, prediction=(probability > 0.5).astype(int)
    )
    usual = bootstrap_metrics(judged)["roc_auc"]
    return {**usual, "surely": bootstrap_metrics(judged, confidence=SURE)["roc_auc"]["low"]}


def is_leak(auc: Interval) -> bool:
    """Tell whether a probe that is blind to inpainting separates the classes.

    AUC from 0.6 on with the 99 % interval above 0.5: an audit makes several such checks, and a
    clean data set should not be called leaking by chance.
    """
    return auc["value"] >= WELL_ABOVE and auc["surely"] > 0.5


def is_above_chance(auc: Interval) -> bool:
    """Tell whether a probe separates the classes: AUC from 0.6 on, 95 % interval above 0.5."""
    return auc["value"] >= WELL_ABOVE and auc["low"] > 0.5


def is_doubtful(auc: Interval) -> bool:
    """Tell whether a probe is above chance, by its 95 % interval, but no `is_leak`."""
    return auc["low"] > 0.5 and not is_leak(auc)


def auc_fields(auc: Interval) -> dict[str, Any]:
    """Return an AUC as fields of a `Check`, nan as None."""
    names = {"value": "auc", "low": "low", "high": "high"}
    return {name: float(auc[key]) if np.isfinite(auc[key]) else None for key, name in names.items()}
