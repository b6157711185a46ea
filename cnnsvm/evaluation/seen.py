"""Pictures that a network has learnt from say nothing of it: they are left out before judging."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnsvm.evaluation.preparation import Prepared
from cnnsvm.pretrained import UntoldTrainingError, find_training_images
from cnnsvm.reuse import SHIPPED, SHIPPED_NAME, is_saved_network

SEEN = "looks like a picture that {} was trained on ({} bits of 64 differ)"
LEFT_OUT = (
    "{} of {} sources look like pictures that {} was trained on; they were left out, as a number "
    "on those would be no result."
)
UNKNOWN = (
    "{} does not say what it was trained on. If these pictures were among that, the numbers here "
    "are no results."
)


def leave_out_seen(
    prepared: Prepared, trained: str | os.PathLike[str] | None, n_jobs: int | None = None
) -> Prepared:
    """Leave out the sources that a saved detector, or its network, has learnt from.

    Parameters
    ----------
    prepared : Prepared
    trained : str, path or None
        Folder of the saved detector, or anything that `InpaintDetector` takes as ``weights``.
        Without a saved detector in it nothing is left out.
    n_jobs : int or None
        Threads that decode images.

    Returns
    -------
    Prepared
        With a warning that says how many sources were left out, or that it cannot be told.

    Raises
    ------
    ValueError
        If no source is left.
    """
    if not is_saved_network(trained):
        return prepared
    folder, name = _place(trained)
    manifest = prepared.manifest
    real = manifest[manifest["label"] == 0].reset_index(drop=True)
    try:
        found = find_training_images(folder, real["path"].tolist(), n_jobs=n_jobs)
    except UntoldTrainingError:
        return replace(prepared, warnings=[*prepared.warnings, UNKNOWN.format(name)])
    if not found:
        return prepared
    seen = set(real["source_id"].iloc[[index for index, _ in found]])
    kept = manifest[~manifest["source_id"].isin(seen)].reset_index(drop=True)
    n_sources = manifest["source_id"].nunique()
    if kept.empty:
        raise ValueError(
            f"all {n_sources} sources look like pictures that {name} was trained on, so that no "
            "number on them would be a result. Give other pictures, or weights of another origin."
        )
    skipped = [
        {"path": str(real["path"].iloc[index]), "reason": SEEN.format(name, bits)}
        for index, bits in found
    ]
    warning = LEFT_OUT.format(len(seen), n_sources, name)
    return Prepared(kept, [*prepared.skipped, *skipped], [*prepared.warnings, warning])


def _place(trained: Any) -> tuple[Path, str]:
    if trained == SHIPPED_NAME:
        return SHIPPED, "the detector that ships"
    return Path(trained), os.fspath(trained)
