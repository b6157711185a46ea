"""The report on an architecture search: what it found beside what was published."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import TrialState

from architecture_search.search import Proxy
from cnnsvm.report.text import WIDTH, format_table
from cnnsvm.report.wording import format_number

SCORES = {"auc": "AUC", "iou": "IoU"}
NOTE = (
    "Both were trained alike, with the same seeds, and judged on pixels of sources that the search "
    "never saw. The proxy task is short: what wins it need not win a full training, and a lead "
    "within the spread of the repeats is none."
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
        "epochs": proxy.training.epochs,
    }


def format_search(result: Mapping[str, Any], file: Path) -> str:
    """Write a search as text, with a final newline.

    Parameters
    ----------
    result : mapping
        Of `describe_search`, with ``genotype`` and ``published``.
    file : Path
        Where the genotype is.
    """
    rows = []
    for name, repeats in result["scores"].items():
        cells = []
        for score in SCORES:
            values = np.array([repeat[score] for repeat in repeats], dtype=float)
            cells += [format_number(values.mean()), format_number(np.ptp(values))]
        rows.append([name, *cells])
    headers = ["genotype", *(f"{name}{end}" for name in SCORES.values() for end in ("", " spread"))]
    both = zip(result["genotype"], result["published"], strict=True)
    listed = [
        [str(number), " ".join(own), " ".join(known)]
        for number, (own, known) in enumerate(both, start=1)
    ]
    tried = ", ".join(f"{n} {state}" for state, n in result["trials"].items())
    blocks = [
        f"Candidates: {tried}; best AUC in the search {format_number(result['best_search_auc'])}",
        format_table(headers, rows),
        textwrap.fill(NOTE, WIDTH),
        format_table(["cell", "found", "published"], listed),
        f"Written to {file}",
    ]
    return "\n\n".join(blocks) + "\n"
