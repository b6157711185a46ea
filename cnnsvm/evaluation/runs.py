"""How a long run is kept in a folder, taken up again, and told from another one."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from cnnsvm.detection.saved_networks import is_saved_network, saved_folder
from cnnsvm.features.cache import RECIPE, network_arrays
from cnnsvm.io.bundle import CONFIG, library_versions
from cnnsvm.io.files import replacing, write_text

#: Columns of a manifest that results carry on.
CARRIED = ("path", "source_id", "label", "variant", "engine", "mask_schema")
_MACHINE = ("device", "precision", "gpu_memory_fraction", "n_jobs")
_NOT_PART_OF_THE_RESULT = ("cache_dir", "n_jobs", "verbose", "gpu_memory_fraction")
_NOT_PART_OF_JUDGING = (*_NOT_PART_OF_THE_RESULT, "device", "batch_size", "weights", "random_state")


class RunMismatchError(ValueError):
    """A folder that holds the results of another run."""


def claim(folder: Path, fingerprint: str, results: str) -> None:
    """Make a folder the place of a run, unless it holds another's.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    fingerprint : str
        Of the run, see `fingerprint_of`.
    results : str
        Pattern of the files that a run leaves; without any the folder is free.

    Raises
    ------
    RunMismatchError
        If the folder holds results of another run.
    """
    file = folder / "run.json"
    claimed = file.read_text(encoding="utf-8") if file.is_file() else None
    if claimed != fingerprint and any(folder.glob(results)):
        raise RunMismatchError(
            f"{folder} holds results of another detector, other data, settings or versions; "
            "nothing of it is mixed in. Choose another output folder, or delete this one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(file, fingerprint)


def store(table: pd.DataFrame, file: Path) -> None:
    """Write a Parquet table in one step."""
    with replacing(file) as partial:
        table.to_parquet(partial, index=False)


def fitted(
    detector: Any,
    seen: pd.DataFrame,
    place: Path | None = None,
    target: str = "label",
    images: Sequence[Any] | None = None,
    auxiliary_labels: np.ndarray | None = None,
) -> Any:
    """Fit a clone of a detector, or take up the one that an earlier call saved.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted; its settings for this machine hold for one that is taken up too.
    seen : DataFrame
        Manifest of the training images; their sources are the groups.
    place : Path or None
        Keeps the state of the running fit in ``cache`` and then the detector in ``model``.
    target : str
        Column that is fitted.
    images : sequence of image inputs, optional
        What stands for the manifest's paths.
    auxiliary_labels : ndarray, optional
        What the network is taught, see `InpaintDetector.fit`.
    """
    model = clone(detector)
    if place is None or not (place / "model" / CONFIG).is_file():
        if place is not None:
            model.set_params(cache_dir=place / "cache")
        labels, sources = seen[target].to_numpy(), seen["source_id"].to_numpy()
        inputs = seen["path"].tolist() if images is None else images
        taught = {} if auxiliary_labels is None else {"auxiliary_labels": auxiliary_labels}
        model.fit(inputs, labels, groups=sources, **taught)
        if place is None:
            return model
        model.save(place / "model")
        shutil.rmtree(place / "cache", ignore_errors=True)
    loaded = type(detector).load(place / "model")  # now too: every call judges by the same
    return loaded.set_params(**{name: getattr(detector, name) for name in _MACHINE})


def fingerprint_of(model: bytes, settings: tuple[Any, ...], manifest: pd.DataFrame) -> str:
    """Hash a detector (see `settings_of`, `identity_of`), settings, versions and the images."""
    digest = hashlib.sha256(model + repr((settings, sorted(library_versions().items()))).encode())
    columns = [manifest["sha256"].fillna("").astype(str), *(manifest[name] for name in CARRIED)]
    for row in zip(*columns, strict=True):
        digest.update(repr(tuple(map(str, row))).encode())
    return digest.hexdigest()


def settings_of(detector: Any) -> bytes:
    """Hash the parameters of an unfitted detector and the content of its weights."""
    params = {k: v for k, v in detector.get_params().items() if k not in _NOT_PART_OF_THE_RESULT}
    digest = hashlib.sha256(repr((RECIPE, sorted(params.items()))).encode())
    weights = params.get("weights")
    for place in (weights, *params.get("ensemble", ())):
        if is_saved_network(place):
            digest.update((saved_folder(place) / CONFIG).read_bytes())  # has the hash of each file
    if weights not in (None, "imagenet") and Path(weights).is_file():
        digest.update(Path(weights).read_bytes())
    return digest.digest()


def identity_of(detector: Any) -> bytes:
    """Hash what a fitted detector's judgement depends on; the same after saving and loading."""
    config, arrays = detector.svm_.to_state()
    params = {k: v for k, v in detector.get_params().items() if k not in _NOT_PART_OF_JUDGING}
    known = [params, float(detector.threshold_), detector.classes_.tolist(), config["models"]]
    known += [float(detector.confidence_), getattr(detector, "min_side_", 0)]
    known.append(getattr(detector, "max_side_", 0))
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    network = getattr(detector, "network_", None)
    if network is not None:
        digest.update(repr(network.preprocessing).encode())
        arrays = arrays | network_arrays(network)
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.digest()
