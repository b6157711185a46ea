"""What stands on top of one and the same embedding: the network's own layer, or SVMs."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from cnnsvm.evaluation.bootstrap import bootstrap_metrics, paired_difference
from cnnsvm.evaluation.runs import CARRIED
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.svm import TunedSVC
from cnnsvm.svm.machines import fit_machines, fit_scaler

if TYPE_CHECKING:
    from cnnsvm import InpaintDetector


@dataclass(frozen=True)
class Head:
    """Judgements of one head.

    Parameters
    ----------
    name : str
    predictions : DataFrame
        As `cnnsvm.evaluation.bootstrap.bootstrap_metrics` takes them.
    n_vectors : int or None
        Support vectors or landmarks; None of the network's own layer.
    seconds : float or None
        That fitting took, tuning included; None if it was fitted with something else.
    rate : float or None
        Embeddings judged a second; None where these are what the head says.
    """

    name: str
    predictions: pd.DataFrame
    n_vectors: int | None
    seconds: float | None
    rate: float | None


def network_head(detector: "InpaintDetector", embeddings: np.ndarray, frame: pd.DataFrame) -> Head:
    """Judge by the layers that fine-tuning trained, averaged over the embedders.

    Parameters
    ----------
    detector : InpaintDetector
        Its embedders are fine-tuned on two classes, with ``pooling="mean"``: a layer judges one
        mean embedding.
    embeddings : ndarray of float32, shape (n, d)
        What `InpaintDetector.transform` says of the images.
    frame : DataFrame
        Their rows of the manifest.

    Raises
    ------
    ValueError
        If another pooling put something else behind the mean.
    """
    scores, started = _network_scores(detector.embedder_, embeddings)
    one = len(detector.embedder_) == 1
    name = "network's own layer" if one else "networks' own layers, averaged"
    return _head(name, scores.mean(axis=1), frame, None, None, started)


def network_heads(
    detector: "InpaintDetector", embeddings: np.ndarray, frame: pd.DataFrame
) -> list[Head]:
    """Judge by the layer of each embedder alone; none if there is only one.

    Parameters, errors
        As of `network_head`, which averages these.
    """
    if len(detector.embedder_) == 1:
        return []
    scores, started = _network_scores(detector.embedder_, embeddings)
    return [
        _head(f"{embedder.backbone} alone, its own layer", scores[:, k], frame, None, None, started)
        for k, embedder in enumerate(detector.embedder_)
    ]


def svm_head(detector: "InpaintDetector", embeddings: np.ndarray, frame: pd.DataFrame) -> Head:
    """Judge by the SVM of a detector; parameters as of `network_head`."""
    started = time.perf_counter()
    svm = detector.classifier_
    scores = svm.decision_function(embeddings)
    n_vectors = len(svm.models_[0].machines[0].vectors)
    kind = "" if svm.n_landmarks is None else ", Nystroem"
    return _head(f"SVM{kind} (the detector)", scores, frame, n_vectors, None, started)


def fit_subset_head(
    fitted: tuple[np.ndarray, np.ndarray, np.ndarray],
    embeddings: np.ndarray,
    frame: pd.DataFrame,
    n_rows: int,
    *,
    n_trials: int = 10,
    random_state: int = 0,
) -> tuple[Head, dict[str, Any]]:
    """Tune and fit an exact RBF machine on some of the rows.

    Parameters
    ----------
    fitted : (ndarray of float, shape (m, d), ndarray, ndarray)
        Embeddings to fit on, their classes (0, 1) and groups.
    embeddings, frame
        What is judged, as for `network_head`.
    n_rows : int
        Rows that are drawn.
    n_trials, random_state : int

    Returns
    -------
    head : Head
    params : dict
        The hyperparameters that were found.
    """
    rows = np.random.default_rng(random_state).permutation(len(fitted[0]))[:n_rows]
    started = time.perf_counter()
    svm = TunedSVC("rbf", n_trials=n_trials, random_state=random_state)
    svm.fit(*(part[rows] for part in fitted))
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    scores = svm.decision_function(embeddings)
    n_vectors = len(svm.models_[0].machines[0].vectors)
    name = f"SVM, exact, {len(rows):,} rows"
    return _head(name, scores, frame, n_vectors, seconds, started), dict(svm.best_params_)


def fit_exact_head(
    fitted: tuple[np.ndarray, np.ndarray, np.ndarray],
    embeddings: np.ndarray,
    frame: pd.DataFrame,
    params: dict[str, Any],
    cache_size: float = 2000,
) -> Head:
    """Fit an exact RBF machine with given hyperparameters on all rows, uncalibrated.

    Parameters
    ----------
    fitted, embeddings, frame
        As for `fit_subset_head`.
    params : dict
        ``C``, ``class_weight`` and ``gamma_factor``.
    cache_size : float
        Memory of libsvm's cache in MB; beyond it and the rows themselves nothing grows with the
        square of the rows.
    """
    started = time.perf_counter()
    rows = fitted[0].astype(np.float64)
    mean, deviation = fit_scaler(rows, True)
    rows = (rows - mean) / deviation
    targets = (fitted[1] == 1)[:, np.newaxis]
    machines, _ = fit_machines("rbf", rows, targets, params, cache_size)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    scores = machines[0].decide((embeddings - mean) / deviation)
    name = f"SVM, exact, all {len(rows):,} rows"
    return _head(name, scores, frame, len(machines[0].vectors), seconds, started)


def compare_heads(heads: list[Head], metric: str = "accuracy") -> list[dict[str, Any]]:
    """Put heads side by side, each against the last.

    Returns
    -------
    list of dict
        One a head: ``head``, ``n_vectors``, ``seconds``, ``rate``, ``metrics`` with intervals,
        and ``difference`` to the last head in ``metric`` (see `paired_difference`; None of the
        last).
    """
    last = heads[-1]
    return [
        {
            "head": head.name,
            "n_vectors": head.n_vectors,
            "seconds": head.seconds,
            "rate": head.rate,
            "metrics": bootstrap_metrics(head.predictions),
            "difference": None
            if head is last
            else paired_difference(head.predictions, last.predictions, metric),
        }
        for head in heads
    ]


def peak_memory() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # what getrusage counts in
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _network_scores(
    embedders: Sequence[CropEmbedder], embeddings: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """Return each network's log-odds of a fake, (n, networks), and when computing them began."""
    for embedder in embedders:
        if embedder.pooling != "mean":
            raise ValueError(
                f"the network's own layer judges mean embeddings, got pooling={embedder.pooling!r}."
                " Use pooling='mean'."
            )
    if all(embedder.output == "scores" for embedder in embedders):
        return embeddings.astype(np.float64), None
    started = time.perf_counter()
    ends = np.cumsum([embedder.embedding_dim_ for embedder in embedders])[:-1]
    parts = zip(embedders, np.split(embeddings, ends, axis=1), strict=True)
    with torch.inference_mode():
        found = [e.network_.fake_score(torch.from_numpy(part)).double() for e, part in parts]
        return torch.stack(found, dim=1).numpy(), started


def _head(
    name: str,
    scores: np.ndarray,
    frame: pd.DataFrame,
    n_vectors: int | None,
    seconds: float | None,
    started: float | None,
) -> Head:
    rate = None if started is None else len(scores) / max(time.perf_counter() - started, 1e-9)
    judged = frame[list(CARRIED)].assign(
        score=scores, probability=expit(scores), prediction=(scores > 0).astype(int)
    )
    return Head(name, judged.reset_index(drop=True), n_vectors, seconds, rate)
