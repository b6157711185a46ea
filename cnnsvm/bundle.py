"""What of an `InpaintDetector` is saved, and how it is put together again."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cnnsvm.checks import PRECOMPUTED
from cnnsvm.features.backbones import build_backbone
from cnnsvm.features.extractor import load_network, network_arrays
from cnnsvm.persistence import BundleError, read_bundle, write_bundle
from cnnsvm.svm import TunedSVC


def save(detector: Any, folder: str | os.PathLike[str]) -> Path:
    """Write a fitted detector (see `InpaintDetector.save`)."""
    svm_config, svm_arrays = detector.svm_.to_state()
    config = {
        "kind": "InpaintDetector",
        "params": _plain_params(detector),
        "classes": detector.classes_.tolist(),
        "threshold": detector.threshold_,
        "confidence": detector.confidence_,
        "svm": svm_config,
        "n_features_in": getattr(detector, "n_features_in_", None),
        "feature_names_in": np.asarray(getattr(detector, "feature_names_in_", [])).tolist(),
    }
    arrays = {"svm": svm_arrays}
    if detector.backbone != PRECOMPUTED:
        config["preprocessing"] = asdict(detector.network_.preprocessing)
        config["history"] = detector.history_
        arrays["network"] = network_arrays(detector.network_)
    return write_bundle(folder, config, arrays)


def load(kind: type, folder: str | os.PathLike[str]) -> Any:
    """Read a detector (see `InpaintDetector.load`)."""
    config, arrays = read_bundle(folder)
    if config.get("kind") != "InpaintDetector":
        raise BundleError(f"{folder} holds a {config.get('kind')!r}, not an InpaintDetector.")
    try:
        return _rebuild(kind, config, arrays)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{folder} does not describe a detector of this cnnsvm: {error!r}."
        ) from error


def _rebuild(kind: type, config: dict[str, Any], arrays: dict[str, dict[str, np.ndarray]]) -> Any:
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in config["params"].items()}
    detector = kind(**params)
    detector.svm_ = TunedSVC.from_state(config["svm"], arrays["svm"])
    detector.classes_ = detector.svm_.classes_
    detector.threshold_ = float(config["threshold"])
    detector.confidence_ = float(config.get("confidence", 0.0))
    if config["n_features_in"] is not None:
        detector.n_features_in_ = config["n_features_in"]
    if config["feature_names_in"]:
        detector.feature_names_in_ = np.asarray(config["feature_names_in"], dtype=object)
    if detector.backbone != PRECOMPUTED:
        detector.history_ = config["history"]
        projection = detector.finetune == "head"
        detector.network_ = build_backbone(
            detector.backbone,
            None,
            config["preprocessing"],
            projection=projection,
            stem=detector.stem,
            truncate_at=detector.truncate_at,
        )
        load_network(detector.network_, arrays["network"])
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
    return params
