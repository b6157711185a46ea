"""What several studies ask of detectors: a column to fit on, and fits that resume."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.evaluation.runs import RunDirectory

_MACHINE = ("device", "precision", "gpu_memory_fraction", "n_jobs")


def check_target(manifest: pd.DataFrame, target: str) -> None:
    """Refuse a column to fit on unless its first class is that of the originals, and only theirs.

    A ValueError also says that the column is missing, or empty in a row.
    """
    if target not in manifest:
        raise ValueError(
            f"target must name a column of the manifest, such as label or variant; got {target!r}."
        )
    if manifest[target].isna().any():
        raise ValueError(f"target={target!r} is empty in some rows; use label or variant.")
    first = min(manifest[target])
    if not ((manifest[target] == first) == (manifest["variant"] == "original")).all():
        raise ValueError(
            f"target={target!r} must put all originals, and nothing else, into the class that "
            f"sorts first, which is {first!r}. Use label or variant."
        )


def fit_resumable(
    detector: InpaintDetector,
    seen: pd.DataFrame,
    run: RunDirectory,
    name: str = "model",
    *,
    target: str = "label",
    images: Sequence[Any] | None = None,
    auxiliary_labels: np.ndarray | None = None,
) -> InpaintDetector:
    """Fit a clone of a detector as a part of a run, or load the one that an earlier call fitted.

    The settings of ``detector`` for this machine also hold for one that is loaded. ``seen`` is the
    manifest of the training images, whose sources are the groups, and ``target`` the column that is
    fitted. ``run`` stores the state of the running fit and then the detector, as the part ``name``.
    ``images`` take the place of the files that the manifest names; for ``auxiliary_labels`` see
    `InpaintDetector.fit`.
    """

    def fit() -> InpaintDetector:
        cache = run.cache(name)
        model = clone(detector) if cache is None else clone(detector).set_params(cache_dir=cache)
        inputs = seen["path"].tolist() if images is None else images
        own = {} if auxiliary_labels is None else {"auxiliary_labels": auxiliary_labels}
        return model.fit(inputs, seen[target].to_numpy(), seen["source_id"].to_numpy(), **own)

    kind = type(detector)
    save = partial(kind.save_pretrained, bits=32)
    model = run.part(name, fit, load=kind.from_pretrained, save=save)
    for embedder, wanted in zip(model.embedder_, detector.embedders(), strict=True):
        known = embedder.get_params(deep=False)
        embedder.set_params(**{k: getattr(wanted, k) for k in _MACHINE if k in known})
    return model
