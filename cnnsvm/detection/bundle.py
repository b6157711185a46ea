"""What of an `InpaintDetector` is saved, and how it is put together again."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cnnsvm.detection.checks import PRECOMPUTED
from cnnsvm.detection.saved_networks import rebuild_network, widen
from cnnsvm.features.cache import network_arrays
from cnnsvm.io.bundle import BundleError, read_bundle, write_bundle
from cnnsvm.svm import TunedSVC

KIND = "InpaintDetector"

#: Relative error of a row that half precision may bring: what rounding does to normal numbers.
MAX_ROUNDING = 2.0**-11


def save(
    detector: Any,
    folder: str | os.PathLike[str],
    *,
    half: bool = False,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Write a fitted detector (see `InpaintDetector.save`).

    Parameters
    ----------
    detector : InpaintDetector
        With ``trained_on_``, perceptual hashes of its training images as uint64, if whoever fitted
        it set them (`cnnsvm.detection.pretrained.hash_images`); a loaded one has them again.
    folder : path
    half : bool
        Store the large arrays (weights of two and more axes, support vectors) as float16. On six
        small detectors that moved the probability of all but one picture by less than 0.002, and
        of that one by 0.01: less than running their networks in bfloat16 does. Biases, batch norm,
        the standardisation and what the SVM multiplies by stay as they are, and so does an array
        that would lose more than `MAX_ROUNDING`.
    texts : dict of str, optional
        Further files: name -> content.
    """
    svm_config, svm_arrays = detector.svm_.to_state()
    config = {
        "kind": KIND,
        "half": half,
        "params": _plain_params(detector),
        "classes": detector.classes_.tolist(),
        "threshold": detector.threshold_,
        "confidence": detector.confidence_,
        "svm": svm_config,
        "n_features_in": getattr(detector, "n_features_in_", None),
        "feature_names_in": np.asarray(getattr(detector, "feature_names_in_", [])).tolist(),
    }
    arrays = {"svm": _halve(svm_arrays, _support_vectors(svm_arrays)) if half else svm_arrays}
    if detector.backbone != PRECOMPUTED:
        config["preprocessing"] = asdict(detector.network_.preprocessing)
        config["history"] = detector.history_
        config["real_class"] = detector.network_.real_class
        config["parents"] = detector.network_.parents
        config["ensemble"] = [member.description for member in detector.network_.members]
        config["min_side"] = getattr(detector, "min_side_", 0)
        config["max_side"] = getattr(detector, "max_side_", 0)
        weights = network_arrays(detector.network_)
        learnt = [name for name, value in detector.network_.named_parameters() if value.ndim > 1]
        arrays["network"] = _halve(weights, learnt) if half else weights
        config["network_knows_all"] = detector.network_.knows_all
    known = _training_hashes(detector)
    if known:
        arrays["trained_on"] = known
    return write_bundle(folder, config, arrays, texts)


def load(kind: type, folder: str | os.PathLike[str]) -> Any:
    """Read a detector (see `InpaintDetector.load`)."""
    config, arrays = read_bundle(folder)
    check_kind(config, folder)
    try:
        return _rebuild(kind, config, arrays)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{folder} does not describe a detector of this cnnsvm: {error!r}."
        ) from error


def check_kind(config: dict[str, Any], place: str | os.PathLike[str]) -> None:
    """Refuse the description of something that is no detector (`BundleError`)."""
    if config.get("kind") != KIND:
        raise BundleError(
            f"{os.fspath(place)} holds a {config.get('kind')!r}, not an {KIND}. Name a folder "
            "that `cnnsvm fit` or `InpaintDetector.save` wrote."
        )


def _training_hashes(detector: Any) -> dict[str, np.ndarray]:
    """Collect what a detector and the network that it began with were trained on.

    They are called "hashes" if that is known of both, and "network" if something may be missing.
    """
    network = getattr(detector, "network_", None)
    own, before = getattr(detector, "trained_on_", None), getattr(network, "trained_on", None)
    parts = [np.asarray(part, dtype=np.uint64) for part in (own, before) if part is not None]
    if not parts:
        return {}
    is_all = own is not None and getattr(network, "knows_all", True)
    return {"hashes" if is_all else "network": np.unique(np.concatenate(parts))}


def _support_vectors(arrays: dict[str, np.ndarray]) -> list[str]:
    """Name the arrays of many rows; the single one of a linear machine is its coefficients."""
    return [key for key, value in arrays.items() if key.endswith(".vectors") and len(value) > 1]


def _halve(arrays: dict[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Round the named arrays to float16, those apart whose rows are too large or small for it."""
    return arrays | {name: _round(arrays[name]) for name in names}


def _round(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(np.float16)
        lost = (rounded.astype(np.float64) - array).reshape(len(array), -1)
        error = np.linalg.norm(lost, axis=1)
    allowed = MAX_ROUNDING * np.linalg.norm(array.reshape(len(array), -1), axis=1)
    return rounded if np.all(error <= allowed) else array


def _rebuild(kind: type, config: dict[str, Any], arrays: dict[str, dict[str, np.ndarray]]) -> Any:
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in config["params"].items()}
    detector = kind(**params)
    detector.svm_ = TunedSVC.from_state(config["svm"], widen(arrays["svm"], np.float64))
    detector.classes_ = detector.svm_.classes_
    detector.threshold_ = float(config["threshold"])
    detector.confidence_ = float(config.get("confidence", 0.0))
    if config["n_features_in"] is not None:
        detector.n_features_in_ = config["n_features_in"]
    if config["feature_names_in"]:
        detector.feature_names_in_ = np.asarray(config["feature_names_in"], dtype=object)
    if detector.backbone != PRECOMPUTED:
        detector.history_ = config["history"]
        detector.network_ = rebuild_network(config, arrays["network"])
        detector.min_side_ = int(config.get("min_side", 0))
        detector.max_side_ = int(config.get("max_side", 0))
        detector.network_.trained_on = arrays.get("trained_on", {}).get("network")
        detector.network_.knows_all = config.get("network_knows_all", True)
    if "hashes" in arrays.get("trained_on", {}):
        detector.trained_on_ = arrays["trained_on"]["hashes"]
    return detector


def _plain_params(detector: Any) -> dict[str, Any]:
    """Return the parameters as JSON values; what belongs to one machine is left out."""
    params = detector.get_params(deep=False)
    params |= {"cache_dir": None, "device": "auto", "precision": "auto"}
    params |= {"gpu_memory_fraction": None, "n_jobs": None}
    params = {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    if isinstance(params["weights"], os.PathLike):
        params["weights"] = os.fspath(params["weights"])
    params["ensemble"] = [os.fspath(place) for place in params["ensemble"]]
    return params
