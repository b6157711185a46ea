"""How well maps of probabilities meet masks, from two histograms of a map.

The histograms of the probabilities of untouched and of repainted pixels give the pixels that are
called repainted at each edge between two bins and, but for pairs within one bin, which pixel ranks
above which. They have one size for any number of pixels, and those of several images add up.
"""

import numpy as np

#: Thresholds that are tried: steps of 1/64 in the log-odds from -16 to 16, so at most .0039 apart
#: in probability and ever closer towards 0 and 1, where networks put most pixels. 0.5 is one.
EDGES = np.unique((1 / (1 + np.exp(-np.arange(-1024, 1025) / 64))).astype(np.float32))
SCORES = (
    *("iou", "f1", "precision", "recall", "called", "false_alarm", "auc"),
    *("best_threshold", "best_iou", "best_f1", "best_precision", "best_recall"),
)
_STRIP = 2**22  # pixels that are counted at once


def edges_with(threshold: float) -> np.ndarray:
    """Return `EDGES` and a threshold in (0, 1) among them, float32, ascending."""
    return np.unique(np.append(EDGES, np.float32(threshold)))


def pixel_histogram(
    mask: np.ndarray, probability: np.ndarray, edges: np.ndarray = EDGES
) -> np.ndarray:
    """Count the pixels of a map, float in [0, 1], by their probability as float32.

    ``mask`` is bool of the same shape, True where repainted; ``edges`` are float32 and ascend.
    Returns int64 (2, n_edges + 1), untouched and repainted pixels: bin k has those from ``edges[k -
    1]`` to below ``edges[k]``. A ValueError is raised if the shapes differ or a probability lies
    outside [0, 1].
    """
    if mask.shape != probability.shape:
        raise ValueError(
            f"a mask of shape {mask.shape} and a map of shape {probability.shape} differ in size; "
            "give the map of the mask's own image."
        )
    n_bins = len(edges) + 1
    counts = np.zeros(2 * n_bins, dtype=np.int64)
    truth, chance = mask.ravel(), probability.ravel()
    for start in range(0, len(truth), _STRIP):
        part = chance[start : start + _STRIP].astype(np.float32)
        if not (part.min() >= 0 and part.max() <= 1):
            raise ValueError(
                f"probabilities must lie in [0, 1], got {part.min()} to {part.max()}; pass what "
                "predict_proba returns, not logits."
            )
        bins = np.searchsorted(edges, part, side="right")
        bins += n_bins * (truth[start : start + _STRIP] != 0)
        counts += np.bincount(bins, minlength=2 * n_bins)
    return counts.reshape(2, n_bins)


def histogram_scores(
    histograms: np.ndarray, edges: np.ndarray = EDGES, threshold: float = 0.5
) -> dict[str, np.ndarray]:
    """Score histograms of `pixel_histogram`, (..., 2, n_edges + 1), at one of their edges.

    Repainted is the positive class, called is what reaches the threshold. Returns float64 (...) for
    each name in `SCORES`, all in [0, 1]; a threshold that is no edge is a ValueError.

    - ``iou`` and ``f1`` are 1 where nothing is repainted and nothing called: two empty sets are
      the same. One false alarm on an untouched image makes them 0; ``false_alarm``, the share
      of its untouched pixels that is called, says how bad that is.
    - ``precision`` is nan where nothing is called, ``recall`` where nothing is repainted,
      ``false_alarm`` where nothing is untouched, ``auc`` unless both occur. Pixels of one bin count
      as ties in ``auc``, which is off by at most half the share of (untouched, repainted) pairs
      that meet in a bin.
    - ``called`` is the share of all pixels that is called.
    - ``best_*`` are at the edge with the highest F1 and IoU; of several, the one next to 0.5. They
      are chosen with the mask in hand: a bound, not a result. nan where nothing is repainted.
    """
    place = int(np.searchsorted(edges, np.float32(threshold)))
    if place == len(edges) or edges[place] != np.float32(threshold):
        raise ValueError(
            f"threshold {threshold!r} is no edge of the histograms; count with "
            "edges_with(threshold)."
        )
    histograms = np.asarray(histograms, dtype=np.float64)
    reached = histograms[..., ::-1].cumsum(axis=-1)[..., ::-1]
    totals, reached = reached[..., 0], reached[..., 1:]
    shape = (*reached.shape[:-2], 1)
    fixed = _at(reached, totals, np.full(shape, place))
    best = _at(reached, totals, _best_edge(reached, totals, edges)[..., None])
    best["threshold"] = edges[_best_edge(reached, totals, edges)].astype(np.float64)
    is_empty = totals[..., 1] == 0
    wanted = ("threshold", "iou", "f1", "precision", "recall")
    bounds = {f"best_{name}": np.where(is_empty, np.nan, best[name]) for name in wanted}
    return fixed | {"auc": _auc(histograms)} | bounds


def _at(reached: np.ndarray, totals: np.ndarray, place: np.ndarray) -> dict[str, np.ndarray]:
    """Score the decision at an edge: ``place`` is (..., 1), the others (..., 2, n), (..., 2)."""
    called = np.take_along_axis(reached, place[..., None, :], axis=-1)[..., 0]
    (fp, tp), (n_untouched, n_repainted) = np.moveaxis(called, -1, 0), np.moveaxis(totals, -1, 0)
    either = n_repainted + fp
    return {
        "iou": ratio(tp, either, empty=1.0),
        "f1": ratio(2 * tp, tp + either, empty=1.0),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, n_repainted),
        "called": ratio(tp + fp, n_untouched + n_repainted),
        "false_alarm": ratio(fp, n_untouched),
    }


def _best_edge(reached: np.ndarray, totals: np.ndarray, edges: np.ndarray) -> np.ndarray:
    fp, tp = reached[..., 0, :], reached[..., 1, :]
    f1 = ratio(2 * tp, tp + fp + totals[..., 1:], empty=1.0)
    is_best = f1 >= f1.max(axis=-1, keepdims=True)
    return np.where(is_best, -np.abs(edges - 0.5), -np.inf).argmax(axis=-1)


def _auc(histograms: np.ndarray) -> np.ndarray:
    untouched, repainted = histograms[..., 0, :], histograms[..., 1, :]
    below = untouched.cumsum(axis=-1) - untouched / 2
    pairs = untouched.sum(axis=-1) * repainted.sum(axis=-1)
    return ratio((repainted * below).sum(axis=-1), pairs)


def ratio(
    numerator: np.ndarray, denominator: np.ndarray, empty: float = float("nan")
) -> np.ndarray:
    """Divide, with ``empty`` (and no warning) where the denominator is 0."""
    out = np.full(np.shape(numerator), empty)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)
