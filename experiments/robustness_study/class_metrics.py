"""How well a detector names more than two classes, and what its verdicts are worth."""

import numpy as np
import pandas as pd

from cnnsvm.data.splits import encode_groups
from cnnsvm.detection.reject import UNSURE
from cnnsvm.evaluation.bootstrap import Interval, bootstrap_metrics

_NEEDED = ("source_id", "named", "confidence")


def class_metrics(
    predictions: pd.DataFrame,
    truth: str = "variant",
    n_resamples: int = 1000,
    random_state: int | None = 0,
) -> dict[str, Interval]:
    """Score the named classes of predictions.

    Parameters
    ----------
    predictions : DataFrame
        With ``source_id``, ``named`` (the most probable class), ``confidence`` (its probability)
        and the column ``truth``.
    truth : str
        Column of the true class.
    n_resamples : int
        Bootstrap resamples of whole sources, for 95 % intervals.
    random_state : int or None

    Returns
    -------
    dict of str to dict
        ``value``, ``low`` and ``high`` of ``class_balanced_accuracy`` (the mean over classes of
        the share that is named rightly) and ``class_ece`` (the expected calibration error of the
        confidence, over all rows as they are).

    Raises
    ------
    ValueError
        If a column is missing.
    """
    missing = [name for name in (*_NEEDED, truth) if name not in predictions]
    if missing:
        raise ValueError(
            f"class metrics need the columns {', '.join((*_NEEDED, truth))}; {missing[0]!r} is "
            "missing. Judge with a detector of more than two classes."
        )
    right = (predictions["named"] == predictions[truth]).to_numpy()
    as_binary = predictions.assign(
        label=right.astype(int), probability=predictions["confidence"], prediction=1
    )
    ece = bootstrap_metrics(as_binary, n_resamples, random_state=random_state)["ece"]
    accuracy = _balanced_accuracy(predictions, truth, right, n_resamples, random_state)
    return {"class_balanced_accuracy": accuracy, "class_ece": ece}


def verdict_metrics(
    predictions: pd.DataFrame, n_resamples: int = 1000, random_state: int | None = 0
) -> dict[str, Interval]:
    """Score verdicts, which may be "unsure".

    Parameters
    ----------
    predictions : DataFrame
        With ``source_id``, ``label`` (0 or 1) and ``verdict`` ("original", "fake" or "unsure").
    n_resamples : int
        Bootstrap resamples of whole sources, for 95 % intervals.
    random_state : int or None

    Returns
    -------
    dict of str to dict
        ``value``, ``low`` and ``high`` of ``verdict_false_alarm_rate`` (share of the originals
        that are said to be fake), ``originals_unsure_rate``, ``verdict_detection_rate`` (share of
        the fakes that are said to be fake), ``verdict_miss_rate`` (share of the fakes that are
        said to be original) and ``fakes_unsure_rate``.
    """
    said = predictions["verdict"].to_numpy()
    options = (n_resamples, random_state)
    fakes = predictions["label"] == 1
    return {
        "verdict_false_alarm_rate": _rate(predictions, said == "fake", ~fakes, options),
        "originals_unsure_rate": _rate(predictions, said == UNSURE, ~fakes, options),
        "verdict_detection_rate": _rate(predictions, said == "fake", fakes, options),
        "verdict_miss_rate": _rate(predictions, said == "original", fakes, options),
        "fakes_unsure_rate": _rate(predictions, said == UNSURE, fakes, options),
    }


def _rate(
    predictions: pd.DataFrame,
    said: np.ndarray,
    part: pd.Series,
    options: tuple[int, int | None],
) -> Interval:
    """Return the share of some rows of which something was said, with its interval."""
    rows = predictions[part].assign(class_="")
    if rows.empty:
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    return _balanced_accuracy(rows, "class_", said[part.to_numpy()], *options)


def _balanced_accuracy(
    predictions: pd.DataFrame,
    truth: str,
    right: np.ndarray,
    n_resamples: int,
    random_state: int | None,
) -> Interval:
    sources = encode_groups(predictions["source_id"].to_numpy(dtype=object), len(predictions))
    classes, codes = np.unique(predictions[truth].astype(str), return_inverse=True)
    n_sources, n_classes = int(sources.max()) + 1, len(classes)
    cells = sources * n_classes + codes
    shape, size = (n_sources, n_classes), n_sources * n_classes
    rows = np.bincount(cells, minlength=size).reshape(shape)
    hits = np.bincount(cells, weights=right, minlength=size).reshape(shape)
    value = float((hits.sum(axis=0) / rows.sum(axis=0)).mean())
    rng = np.random.default_rng(random_state)
    drawn = rng.multinomial(n_sources, np.full(n_sources, 1 / n_sources), size=n_resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = ((drawn @ hits) / (drawn @ rows)).mean(axis=1)
    known = resampled[np.isfinite(resampled)]
    if n_sources < 2 or len(known) < n_resamples / 2:
        return {"value": value, "low": float("nan"), "high": float("nan")}
    low, high = np.percentile(known, (2.5, 97.5))
    return {"value": value, "low": float(low), "high": float(high)}
