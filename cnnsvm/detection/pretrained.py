"""Fitted detectors on disk and on the hub: safetensors and JSON, nothing in them can run code."""

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from cnnsvm.detection.model_card import CardFacts, render_card
from cnnsvm.detection.parity import other_ways
from cnnsvm.detection.reject import FalseAlarms
from cnnsvm.features import state
from cnnsvm.features.cnn_embedder import CNNEmbedder
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.residual_statistics import ResidualStatistics
from cnnsvm.features.saved import saved_folder
from cnnsvm.io.bundle import (
    CARD,
    CONFIG,
    SHIPPED,
    BundleError,
    check_kind,
    content_hash,
    halve,
    holds_model,
    read_config,
    rebuild,
    round_weights,
    widen,
    write_bundle,
)
from cnnsvm.io.hub import HubError, fetch_snapshot
from cnnsvm.svm import TunedSVC

if TYPE_CHECKING:
    from cnnsvm.detection.detector import InpaintDetector

    Detector = TypeVar("Detector", bound=InpaintDetector)

KIND = "InpaintDetector"
#: The detector that is loaded where none is named.
USUAL = "cnnsvm"
#: What is taken from the hub; nothing in it can run code.
PATTERNS = ("*.safetensors", CARD)
MAX_EMBEDDERS = 64
#: Embedders whose fitted state can be saved, by name.
EMBEDDERS: dict[str, type[CropEmbedder]] = {
    "CNNEmbedder": CNNEmbedder,
    "ResidualStatistics": ResidualStatistics,
}
_PARAMS = ("n_views", "augmentation", "threshold", "max_error", "cv", "random_state")

_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def save_pretrained(
    detector: "InpaintDetector",
    folder: str | os.PathLike[str],
    card: CardFacts | None = None,
    *,
    bits: int = 16,
) -> Path:
    """Write the fitted detector to a folder of safetensors and JSON, with a model card.

    Parameters
    ----------
    folder : path
        Made new; a detector that is there already is replaced, anything else is refused.
    card : CardFacts or None
        What it was trained and tested on; None says that this is not known.
    bits : {32, 16, 8, 4}, default=16
        Of a stored weight; a network of 8 or 4 bits gives slightly other embeddings. 16 moved the
        probability of all but one image by less than 0.002 (six small detectors), and of that one
        by 0.01: less than running their networks in bfloat16 does.

    Raises
    ------
    BundleError
        If the folder holds something else.
    TypeError
        If classifier or embedder are of a kind that cannot be saved without pickle.
    """
    check_is_fitted(detector, "classifier_")
    config, arrays = to_state(detector)
    networks = [name for name in arrays if name.startswith("embedder_")]
    arrays |= {name: round_weights(arrays[name], bits) for name in networks}
    svm = arrays["classifier"]
    if bits < 32:
        # the single vector of a linear machine stays
        large = [k for k, v in svm.items() if k.endswith(".vectors") and len(v) > 1]
        svm |= {key: halve(svm[key]) for key in large}
    text = render_card(detector, card)
    return write_bundle(folder, config | {"bits": bits}, arrays, {CARD: text})


def from_pretrained(
    kind: "type[Detector]",
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    **machine: str | None,
) -> "Detector":
    """Load a fitted detector (see `InpaintDetector.from_pretrained`).

    ``machine`` are parameters of its embedders; None keeps what it was fitted with.
    """
    folder = find_pretrained(name_or_path, revision=revision, token=token)
    detector, model_id = rebuild(folder, KIND, partial(from_state, kind))
    for embedder in detector.embedder_:
        known = embedder.get_params(deep=False)
        given = {k: v for k, v in machine.items() if v is not None and k in known}
        embedder.set_params(**given).check_params()
    detector.model_id_ = model_id
    return detector


def to_state(
    detector: "InpaintDetector",
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Describe a fitted detector as JSON values and arrays; nothing of the machine is in it."""
    if not isinstance(detector.classifier_, TunedSVC):
        raise TypeError(
            f"a detector with the classifier {detector.classifier!r} cannot be saved without "
            "pickle, which could run code when it is loaded. Fit it with a TunedSVC."
        )
    svm, svm_arrays = detector.classifier_.to_state()
    params = {name: getattr(detector, name) for name in _PARAMS}
    params |= {} if isinstance(params["random_state"], int) else {"random_state": None}
    config: dict[str, Any] = {
        "kind": KIND,
        "params": {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()},
        "threshold": detector.threshold_,
        "rejection_threshold": detector.rejection_threshold_,
        "false_alarms": detector.false_alarms_,
        "min_side": detector.min_side_,
        "max_side": detector.max_side_,
        "classifier": svm,
        "embedders": [],
    }
    arrays = {"classifier": svm_arrays, "trained_on": {"hashes": detector.trained_on_}}
    for number, embedder in enumerate(detector.embedder_):
        if type(embedder).__name__ not in EMBEDDERS:
            raise TypeError(
                f"embedder {embedder!r} cannot be saved without pickle. Saved are "
                f"{', '.join(EMBEDDERS)}."
            )
        described, arrays[f"embedder_{number}"] = state.to_state(embedder)
        config["embedders"].append(described)
    return config, arrays


def from_state(
    kind: "type[Detector]", config: dict[str, Any], arrays: dict[str, dict[str, np.ndarray]]
) -> "Detector":
    """Rebuild a detector from what `to_state` returned, in full precision or rounded."""
    if not 0 < len(config["embedders"]) <= MAX_EMBEDDERS:
        raise ValueError(f"{len(config['embedders'])} embedders; 1 to {MAX_EMBEDDERS} are read")
    embedders = [
        state.from_state(EMBEDDERS[entry["class"]], entry, widen(arrays[f"embedder_{k}"]))
        for k, entry in enumerate(config["embedders"])
    ]
    svm = TunedSVC.from_state(config["classifier"], widen(arrays["classifier"], np.float64))
    detector = kind(
        [type(embedder)(**embedder.get_params(deep=False)) for embedder in embedders],
        TunedSVC(**svm.get_params(deep=False)),
        **config["params"],
    )
    detector.check_params()
    alarms = config.get("false_alarms")
    detector.__dict__ |= {
        "classes_": svm.classes_,
        "embedder_": embedders,
        "classifier_": svm,
        "threshold_": float(config["threshold"]),
        "rejection_threshold_": float(config["rejection_threshold"]),
        "false_alarms_": None if alarms is None else FalseAlarms(*alarms),
        "min_side_": int(config["min_side"]),
        "max_side_": int(config["max_side"]),
        "history_": next((e.history_ for e in embedders if e.history_), []),
        "trained_on_": arrays["trained_on"]["hashes"],
    }
    return detector


def fingerprint(detector: "InpaintDetector") -> str:
    """Hash what a fitted detector's judgement depends on; the same after saving and loading."""
    config, arrays = to_state(detector)
    del config["classifier"]["params"], arrays["trained_on"]
    if ways := other_ways(detector.embedder_):
        config["ways"] = ways
    return content_hash(config, arrays)


def frozen_embedders(name: str | os.PathLike[str]) -> list[CropEmbedder]:
    """Make unfitted embedders that see images as those of a saved detector do.

    It is named as in `saved_folder`. They have ``weights=name`` and ``finetune="none"``: nothing in
    them is trained again.
    """
    found = []
    for entry in read_config(saved_folder(name))["embedders"]:
        params = state.from_plain(EMBEDDERS[entry["class"]], entry["params"]).get_params(deep=False)
        frozen = {"weights": name, "finetune": "none", "random_state": None}
        frozen |= {"preprocessing": entry["preprocessing"]} if "preprocessing" in params else {}
        found.append(EMBEDDERS[entry["class"]](**params | frozen))
    return found


def find_pretrained(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """Find the folder of a detector, fetched from the hub if need be.

    Parameters, errors as for `load`; the files in the folder are not checked.
    """
    name = USUAL if name_or_path is None else name_or_path
    if name in SHIPPED:
        _refuse_revision("a detector that ships with cnnsvm", revision)
        if not holds_model(SHIPPED[name]):
            raise BundleError(
                f"no pretrained detector {name!r} ships with this cnnsvm: {SHIPPED[name] / CONFIG} "
                "is missing. Name the folder of one, or its id on the Hugging Face hub "
                "(owner/name); `cnnsvm fit` makes one."
            )
        return SHIPPED[name]
    folder = Path(name).expanduser()
    if folder.is_dir() and name_or_path != "":
        _refuse_revision(f"{folder} is a folder, which", revision)
        return folder
    if not isinstance(name_or_path, str) or not _ID.fullmatch(name_or_path):
        what = "a file" if folder.is_file() else "no folder of this machine"
        raise BundleError(
            f"pretrained detector {os.fspath(name)!r} is {what}, and not an id of the "
            f"Hugging Face hub, which is owner/name. Check the path; {' and '.join(SHIPPED)} ship."
        )
    return _fetch(name_or_path, revision, token)


def _refuse_revision(what: str, revision: str | None) -> None:
    if revision is not None:
        raise BundleError(f"{what} has no revisions, got revision={revision!r}. Leave it out.")


def _fetch(name: str, revision: str | None, token: str | None) -> Path:
    """Fetch a detector from the hub, or from its cache."""

    def choose(folder: Path) -> tuple[str, ...]:
        check_kind(read_config(folder), KIND, name)  # the weights of others may have many gigabytes
        return PATTERNS

    try:
        return fetch_snapshot(name, [CONFIG], choose, revision=revision, token=token)
    except BundleError as error:
        raise BundleError(f"{name!r} on the hub is no detector of this cnnsvm: {error}") from error
    except HubError as error:
        raise BundleError(f"pretrained detector {error}") from error
