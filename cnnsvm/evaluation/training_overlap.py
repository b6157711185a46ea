"""Pictures that a network has learnt from say nothing of it: they are left out before judging."""

import os
from typing import Any

from cnnsvm.data.near_duplicates import pick_paths
from cnnsvm.detection.pretrained import find_near, training_hashes
from cnnsvm.detection.saved_networks import SHIPPED, is_saved_network, saved_folder
from cnnsvm.evaluation.preparation import Prepared

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
    prepared: Prepared,
    trained: str | os.PathLike[str] | None,
    *,
    name: str = "the data",
    n_jobs: int | None = None,
) -> Prepared:
    """Leave out the sources that a saved detector, or its network, has learnt from.

    One image stands for each source: an original if there is one.

    Parameters
    ----------
    prepared : Prepared
    trained : str, path or None
        Folder of the saved detector, or anything that `InpaintDetector` takes as ``weights``.
        Without a saved detector in it nothing is left out.
    name : str
        What errors call the data.
    n_jobs : int or None
        Threads that decode images.

    Returns
    -------
    Prepared
        With a warning that says how many sources were left out, or that it cannot be told.

    Raises
    ------
    ValueError
        If no source is left of a class.
    BundleError
        If the saved detector cannot be read.
    """
    if not is_saved_network(trained):
        return prepared
    origin = f"the detector {trained} that ships" if trained in SHIPPED else os.fspath(trained)
    known, is_all = training_hashes(saved_folder(trained))
    warnings = list(prepared.warnings) if is_all else [*prepared.warnings, UNKNOWN.format(origin)]
    manifest = prepared.manifest
    sources, paths = list(dict.fromkeys(manifest["source_id"])), pick_paths(manifest)
    found = find_near(known, paths, n_jobs=n_jobs)
    if not found:
        return Prepared(manifest, prepared.skipped, warnings)
    seen = {sources[index] for index, _ in found}
    kept = manifest[~manifest["source_id"].isin(seen)].reset_index(drop=True)
    _check_classes(manifest, kept, f"{len(seen)} of {len(sources)} sources of {name}", origin)
    skipped = [{"path": paths[i], "reason": SEEN.format(origin, bits)} for i, bits in found]
    warnings.append(LEFT_OUT.format(len(seen), len(sources), origin))
    return Prepared(kept, [*prepared.skipped, *skipped], warnings)


def leave_out_seen_by(prepared: Prepared, detector: Any, **options: Any) -> Prepared:
    """Leave out what a detector's initial network, or one of its ensemble, has learnt from.

    Parameters
    ----------
    prepared : Prepared
    detector : InpaintDetector
        Unfitted.
    **options
        Of `leave_out_seen`.
    """
    for trained in (detector.weights, *detector.ensemble):
        prepared = leave_out_seen(prepared, trained, **options)
    return prepared


def _check_classes(manifest: Any, kept: Any, what: str, origin: str) -> None:
    gone = sorted(set(manifest["label"]) - set(kept["label"]))
    if gone:
        raise ValueError(
            f"{what} look like pictures that {origin} was trained on. Without them no image of "
            f"label {gone[0]} is left, so that there is nothing to judge. Give other pictures, or "
            "weights of another origin."
        )
