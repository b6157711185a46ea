"""How sure a metric is: percentile bootstrap over sources, not over images.

Images of one source resemble each other, so they are drawn together: a resample draws sources with
replacement and weighs each row by how often its source was drawn (Efron and Tibshirani, "An
introduction to the bootstrap", 1993, chapter 13; the cluster form is that of Field and Welsh,
"Bootstrapping clustered data", JRSS B 69, 2007). The models stay as they are: the intervals cover
the choice of test sources, not that of training sources, seeds or engines. Tables of predictions
have one row an image.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from cnnsvm.data.splits import encode_groups
from cnnsvm.evaluation.metrics import METRICS, binary_metrics, weighted_metrics

Interval = dict[str, float]

_SCORED = ("source_id", "label", "probability", "prediction")
BATCH = 1_000_000  # weights held at once; more brings memory traffic, not speed


def bootstrap_metrics(
    predictions: pd.DataFrame,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> dict[str, Interval]:
    """Score predictions, with an interval from resampled sources.

    ``predictions`` has the columns ``source_id``, ``label``, ``probability`` and ``prediction``;
    ``confidence``, in (0, 1), is the share of the ``n_resamples`` resamples that the interval
    spans. Returns for each name in ``METRICS`` the ``value`` on all rows and the interval's ``low``
    and ``high``. Resamples where a metric is undefined are left out; the ends are nan if fewer than
    half remain or there is one source only, and ``value`` is nan where
    `cnnsvm.evaluation.metrics.binary_metrics` is. A value at its limit, such as a recall of 1, has
    an interval of no width: the bootstrap knows no mistake to draw. A ValueError is raised if a
    column is missing or holds impossible values, or an option is out of range.
    """
    check_options(n_resamples, confidence)
    _check_columns(predictions, _SCORED)
    values = binary_metrics(*_scored(predictions))
    resampled = _resample(predictions, n_resamples, random_state)
    return {name: interval_of(values[name], resampled[name], confidence) for name in METRICS}


def metrics_by(
    predictions: pd.DataFrame,
    column: str,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> dict[str, dict]:
    """Score each kind of fake, the values of a column such as ``"variant"``, with all originals.

    Recall is that of the kind; false alarms are the same in each. Precision, accuracy, F1 and
    PR-AUC also depend on how many fakes the kind has, so compare kinds by recall or ROC AUC.
    Returns for each value among the fakes, sorted, ``n_fakes`` (int) and ``metrics`` as
    `bootstrap_metrics` does. Fakes without a value are "unknown", unless none has one: {}.
    """
    check_options(n_resamples, confidence)
    _check_columns(predictions, (*_SCORED, column))
    is_real = predictions["label"] == 0
    kinds = predictions[column].where(~is_real)
    if kinds.notna().any():
        kinds = kinds.astype(object).fillna("unknown").where(~is_real)
    return {
        str(kind): {
            "n_fakes": int((kinds == kind).sum()),
            "metrics": bootstrap_metrics(
                predictions[is_real | (kinds == kind)], n_resamples, confidence, random_state
            ),
        }
        for kind in sorted(kinds.dropna().unique())
    }


def paired_difference(
    predictions_a: pd.DataFrame,
    predictions_b: pd.DataFrame,
    metric: str,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    random_state: int | None = 0,
) -> dict[str, float]:
    """Compare two models on the same images: metric of A minus metric of B.

    Both see the same resampled sources, so what makes a source hard for both cancels. The tables
    are as for `bootstrap_metrics`, and have ``path``, by which rows are matched; ``metric`` is a
    name in ``METRICS``. Returns ``value``, ``low`` and ``high`` of the difference and ``p``, the
    two-sided bootstrap p-value that it is 0: twice the smaller share of resamples on either side of
    0, each count plus one (Davison and Hinkley, "Bootstrap methods and their application", 1997,
    section 4.2), at least 2 / (n_resamples + 1). nan as in `bootstrap_metrics`. A ValueError says
    that the metric is unknown, paths repeat or differ, or a path has another label or source in one
    of them.
    """
    check_options(n_resamples, confidence)
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}.")
    a, b = match_tables(predictions_a, predictions_b)
    value = binary_metrics(*_scored(a))[metric] - binary_metrics(*_scored(b))[metric]
    resampled = (
        _resample(a, n_resamples, random_state)[metric]
        - _resample(b, n_resamples, random_state)[metric]
    )
    interval = interval_of(value, resampled, confidence)
    defined = resampled[np.isfinite(resampled)]
    extreme = 1 + min((defined <= 0).sum(), (defined >= 0).sum())
    p = float(min(1.0, 2 * extreme / (1 + len(defined))))
    return {**interval, "p": p if np.isfinite(interval["low"]) else np.nan}


def as_columns(scores: Mapping[str, Interval]) -> dict[str, float]:
    """Spread intervals over the columns of a table: ``roc_auc``, ``roc_auc_low``, ..."""
    ends = {"value": "", "low": "_low", "high": "_high"}
    return {f"{k}{end}": score[key] for k, score in scores.items() for key, end in ends.items()}


def _scored(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label, probability, prediction = (predictions[name].to_numpy() for name in _SCORED[1:])
    return label, probability, prediction


def _resample(
    predictions: pd.DataFrame, n_resamples: int, random_state: int | None
) -> dict[str, np.ndarray]:
    """Score every resample; nan throughout if a single source leaves nothing to vary."""
    sources = encode_groups(predictions["source_id"].to_numpy(dtype=object), len(predictions))
    n_sources = len(np.unique(sources))
    if n_sources < 2:
        return {name: np.full(n_resamples, np.nan) for name in METRICS}
    columns = _scored(predictions)
    batches = [
        weighted_metrics(*columns, draws[:, sources])
        for draws in draw_weights(
            n_sources, n_resamples, max(1, BATCH // len(sources)), random_state
        )
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in METRICS}


def draw_weights(
    n_sources: int, n_resamples: int, batch: int, random_state: int | None
) -> Iterator[np.ndarray]:
    """Yield how often each source was drawn, (up to ``batch``, n_sources), the same for a seed."""
    rng = np.random.default_rng(random_state)
    for start in range(0, n_resamples, batch):
        size = min(batch, n_resamples - start)
        drawn = rng.integers(n_sources, size=(size, n_sources))
        cells = drawn + n_sources * np.arange(size)[:, None]
        yield np.bincount(cells.ravel(), minlength=size * n_sources).reshape(size, n_sources)


def interval_of(value: float, resampled: np.ndarray, confidence: float) -> Interval:
    """Put a value beside the percentiles of its resamples; nan if half of them are undefined."""
    defined = resampled[np.isfinite(resampled)]
    low = high = float("nan")
    if np.isfinite(value) and 2 * len(defined) >= len(resampled):
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(defined, [tail, 1 - tail]))
    return {"value": float(value), "low": low, "high": high}


def match_tables(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bring both tables into one order, and refuse them unless they describe the same images."""
    for name, table in (("predictions_a", a), ("predictions_b", b)):
        _check_columns(table, ("path", *_SCORED))
        repeated = table["path"][table["path"].duplicated()]
        if len(repeated):
            raise ValueError(f"{name} has path {repeated.iloc[0]!r} more than once; give it once.")
    only = sorted(map(str, set(a["path"]) ^ set(b["path"])))
    if only:
        raise ValueError(
            f"{len(only)} path(s) are in one table only, such as {only[0]!r}; give both models the "
            "same images."
        )
    b = b.set_index("path", drop=False).loc[a["path"]].reset_index(drop=True)
    a = a.reset_index(drop=True)
    for column in ("label", "source_id"):
        differs = np.flatnonzero(a[column].to_numpy() != b[column].to_numpy())
        if len(differs):
            row = differs[0]
            raise ValueError(
                f"{a['path'][row]!r} has {column} {a[column].tolist()[row]!r} in one table "
                f"and {b[column].tolist()[row]!r} in the other; evaluate both on one manifest."
            )
    return a, b


def _check_columns(predictions: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in predictions.columns]
    if missing:
        raise ValueError(
            f"predictions lack the column(s) {', '.join(missing)}; they have "
            f"{', '.join(map(str, predictions.columns)) or 'none'}."
        )


def check_options(n_resamples: int, confidence: float) -> None:
    """Refuse a number of resamples or a confidence that cannot be (`ValueError`)."""
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1, got {n_resamples!r}; 1000 is usual.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}; 0.95 is usual.")
