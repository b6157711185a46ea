"""Generated images of families, and real images of kinds, that training never saw.

Each kind of real image is left out in turn, and with it a part of the sources of generated images
(an artist's style, a family of generators). A classifier is fitted on the rest and judges what was
left out. Its option to decline comes from inner folds that leave kinds out too: a kind of real
image that nobody thought of is what a detector of style calls generated.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest

from cnnsvm import TunedSVC
from cnnsvm.data.splits import grouped_folds
from cnnsvm.detection.reject import UNSURE, choose_thresholds
from cnnsvm.evaluation.bootstrap import Interval, bootstrap_metrics

GENERATED, ORIGINAL = "generated", "original"
#: Not tuned: inside the folds nearly every setting has a ROC AUC of 1, and the weak regularisation
#: that wins by a hair does worse on generators and kinds of image that are left out.
CLASSIFIER: dict[str, Any] = {"kernel": "linear", "scale": False, "n_trials": 1, "cv": 4}
#: Few verdicts are wrong inside the folds: a larger share would leave nothing unsure.
MAX_ERROR = 0.02
N_FOLDS = 3


def domains(table: pd.DataFrame) -> np.ndarray:
    """Return what inner folds may not separate: a kind of real images, a source of generated."""
    return np.where(table["label"] == 0, table["kind"], table["group"]).astype(str)


def fit(
    embeddings: np.ndarray, table: pd.DataFrame, copies: int, seed: int
) -> tuple[TunedSVC, float]:
    """Fit the classifier and choose the probability below which it declines.

    ``embeddings`` and ``table`` have ``copies`` rows an image, one after each treatment.
    """
    y = table["label"].to_numpy()
    classifier = TunedSVC(random_state=seed, **CLASSIFIER).fit(embeddings, y, domains(table))
    thresholds = choose_thresholds(0.5, MAX_ERROR, classifier.cv_decision_, y, copies)
    return classifier, thresholds.rejection


def leave_kinds_out(
    embeddings: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    trained_after: Sequence[str],
    seed: int = 0,
    fit: Callable[..., tuple[Any, float]] = fit,
) -> pd.DataFrame:
    """Judge what was left out, one row an image, treatment and kind of real image left out.

    Parameters
    ----------
    embeddings : mapping of str to ndarray, float32 (n, d)
        Of the images of ``table``, after each treatment.
    table : DataFrame
        As `images.collect` makes it, with ``role``: "train" or "control" (judged alone).
    trained_after : sequence of str
        The treatments whose copies are trained on.
    seed : int
    fit : callable
        What takes the place of `fit`.

    Returns
    -------
    DataFrame
        The columns of ``table``, ``left_out`` (kind), ``fold`` (of the generated images),
        ``treatment``, ``probability`` (of generated) and ``verdict``.
    """
    trained = (table["role"] == "train").to_numpy()
    fakes = np.flatnonzero(trained & (table["label"] == 1))
    kinds = table["kind"].to_numpy()
    folds = grouped_folds(kinds[fakes], table["group"].to_numpy()[fakes], N_FOLDS, seed)
    rows = []
    for left in sorted(set(kinds[trained & (table["label"] == 0)])):
        for number, (_, test) in enumerate(folds):
            held_out = np.isin(np.arange(len(table)), fakes[test]) | (kinds == left)
            seen = np.flatnonzero(trained & ~held_out)
            copies = pd.concat([table.iloc[seen]] * len(trained_after), ignore_index=True)
            stacked = np.concatenate([embeddings[name][seen] for name in trained_after])
            classifier, rejection = fit(stacked, copies, len(trained_after), seed)
            judged = np.flatnonzero(held_out | ~trained)
            for treatment, values in embeddings.items():
                probability = expit(classifier.decision_function(values[judged]))
                verdict = np.where(probability > 0.5, GENERATED, ORIGINAL)
                unsure = np.maximum(probability, 1 - probability) <= rejection
                found = {"probability": probability, "verdict": np.where(unsure, UNSURE, verdict)}
                named = {"left_out": left, "fold": number, "treatment": treatment}
                rows.append(table.iloc[judged].assign(**named, **found))
    return pd.concat(rows, ignore_index=True)


def summarise(judged: pd.DataFrame) -> pd.DataFrame:
    """Sum up `leave_kinds_out`, one row a kind of real image that was left out and treatment.

    Each value is a mapping of ``value``, ``low`` and ``high`` (95 %): shares of verdicts with
    Wilson's interval, areas under the ROC curve with that of a bootstrap over sources, against each
    kind of generated image.
    """
    rows = []
    for (left, treatment), part in judged.groupby(["left_out", "treatment"], sort=False):
        real, fakes = part[part["kind"] == left], part[part["label"] == 1]
        row: dict[str, Any] = {"kind": left, "treatment": treatment, "n": real["path"].nunique()}
        row |= {f"real {said}": share(real, said) for said in (GENERATED, UNSURE)}
        for kind, fake in fakes.groupby("kind"):
            row |= {f"{kind} {said}": share(fake, said) for said in (GENERATED, ORIGINAL)}
            row[f"{kind} auc"] = auc(real, fake)
        rows.append(row)
    return pd.DataFrame(rows)


def share(part: pd.DataFrame, verdict: str) -> Interval:
    """Return the share of images with a verdict, in the mean over the classifiers that judged."""
    value = float((part["verdict"] == verdict).mean())
    n = part["path"].nunique()
    ends = binomtest(round(value * n), n).proportion_ci(method="wilson")
    low, high = min(value, float(ends.low)), max(value, float(ends.high))
    return {"value": value, "low": low, "high": high}


def auc(real: pd.DataFrame, fake: pd.DataFrame) -> Interval:
    """Return the area under the ROC curve of real against generated images."""
    both = pd.concat([real, fake]).rename(columns={"group": "source_id"})
    mean = both.groupby(["path", "source_id", "label"], as_index=False)["probability"].mean()
    return bootstrap_metrics(mean.assign(prediction=0))["roc_auc"]
