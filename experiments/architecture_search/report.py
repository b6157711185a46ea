"""The report on an architecture search: what it found beside what was published."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import TrialState

from architecture_search.search import Proxy
from cnnsvm.report.model import Report, Section, Table
from cnnsvm.report.wording import format_number

SCORES = {"auc": "AUC", "iou": "IoU"}
NOTE = (
    "Both were trained alike, with the same seeds, and judged on pixels of sources that were not "
    "part of the search.",
    "The proxy task is short: what wins it need not win a full training, and a lead within the "
    "spread of the repeats is none.",
)


def describe_search(
    study: Study, proxy: Proxy, scores: Mapping[str, list[Mapping[str, float]]]
) -> dict[str, Any]:
    """Collect what a search did, for JSON.

    Parameters
    ----------
    study : Study
    proxy : Proxy
    scores : mapping of str to list of mapping
        "published" and "found" -> one ``auc`` and ``iou`` a repeat.

    Returns
    -------
    dict
        ``scores``, ``trials`` (by state), ``best_search_auc``, ``images`` (in each part) and
        ``epochs``.
    """
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counted = {
        "finished": states.count(TrialState.COMPLETE),
        "stopped": states.count(TrialState.PRUNED),
        "interrupted": states.count(TrialState.FAIL),
    }
    parts = {"fit": proxy.fit, "valid": proxy.valid, "test": proxy.test}
    return {
        "scores": {name: list(map(dict, repeats)) for name, repeats in scores.items()},
        "trials": counted,
        "best_search_auc": study.best_value,
        "images": {name: len(part) for name, part in parts.items()},
        "epochs": proxy.options.epochs,
    }


def search_report(result: Mapping[str, Any]) -> Report:
    """Make the report on a search.

    Parameters
    ----------
    result : mapping
        Of `describe_search`, with ``genotype`` and ``published``; optional: ``command`` and
        ``environment``.
    """
    means = {name: _means(repeats) for name, repeats in result["scores"].items()}
    tried = ", ".join(f"{n} {state}" for state, n in result["trials"].items())
    best = format_number(result["best_search_auc"])
    compared = " and ".join(f"{format_number(row[0])} for {name}" for name, row in means.items())
    headers = [f"{name}{end}" for name in SCORES.values() for end in ("", " spread")]
    cells = [
        [str(number), " ".join(own), " ".join(known)]
        for number, (own, known) in enumerate(
            zip(result["genotype"], result["published"], strict=True), start=1
        )
    ]
    return Report(
        result,
        "Architecture search",
        findings=[
            f"AUC after the same training: {compared}.",
            f"Candidates: {tried}; best AUC in the search {best}.",
        ],
        notes=NOTE,
        sections=[
            Section("Scores", [Table(["genotype", *headers], [[n, *r] for n, r in means.items()])]),
            Section("Cells", [Table(["cell", "found", "published"], cells)]),
        ],
        name="genotype",
    )


def _means(repeats: list[Mapping[str, float]]) -> list[float]:
    """Return mean and spread of each score over the repeats."""
    values = [np.array([repeat[score] for repeat in repeats], dtype=float) for score in SCORES]
    return [float(number) for column in values for number in (column.mean(), np.ptp(column))]
