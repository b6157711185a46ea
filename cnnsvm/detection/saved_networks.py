"""Networks of saved detectors, as what a new detector starts from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from torch import nn

from cnnsvm.features.backbones import STATISTICS, Backbone, build_backbone
from cnnsvm.features.cache import load_network
from cnnsvm.features.preprocessing import as_preprocessing
from cnnsvm.features.weights import WeightsError
from cnnsvm.io.bundle import BundleError, holds_model, read_bundle, read_config

#: The detectors that are installed with the package, and what ``weights`` calls their networks.
SHIPPED = {
    "cnnsvm": Path(__file__).with_name("weights"),
    "cifake": Path(__file__).with_name("weights") / "cifake",
}
#: The one that judges where none is named.
USUAL = "cnnsvm"
#: What a class of untouched images may be called, wherever it is in the order of the classes.
REAL_NAMES = ("real", "original", "untouched", "authentic", "genuine")
#: What shapes a network beside its backbone, as it was before a detector could say otherwise.
_SHAPE: dict[str, Any] = {"stem": "native", "truncate_at": None, "statistics": False}
#: What else of a saved detector describes its network.
_DESCRIPTION = ("preprocessing", "classes", "real_class", "parents", "ensemble")


def real_class(classes: Sequence[Any] | np.ndarray) -> int:
    """Find the class of untouched images: the one that is called so, else the first."""
    names = [str(label).lower() for label in np.asarray(classes).tolist()]
    return next((k for k, name in enumerate(names) if name in REAL_NAMES), 0)


def is_saved_network(
    weights: str | os.PathLike[str] | None,
) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether ``weights`` names a saved detector: one that ships, or the folder of one."""
    if weights is None or weights == "imagenet":
        return False
    return weights in SHIPPED or holds_model(Path(weights))


def widen(arrays: dict[str, np.ndarray], dtype: type) -> dict[str, np.ndarray]:
    """Turn what was saved in half precision into what the code computes with."""
    return {k: v.astype(dtype) if v.dtype == np.float16 else v for k, v in arrays.items()}


def rebuild_network(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Backbone:
    """Make the network of a saved detector again.

    Parameters
    ----------
    config : dict
        The description of the detector.
    arrays : dict of ndarray
        Its network's parameters and statistics.

    Returns
    -------
    Backbone
        Ready for embedding, with the classifier that fine-tuning has left on it.
    """
    params = _SHAPE | config["params"]
    has_branch = any(key.startswith("branch.") for key in arrays)
    network = build_backbone(
        params["backbone"],
        None,
        config["preprocessing"],
        projection=any(key.startswith("projection.") for key in arrays),
        stem=params["stem"],
        truncate_at=params["truncate_at"],
        statistics="learnt" if has_branch else "raw" if params["statistics"] else None,
    )
    network.real_class = config.get("real_class", real_class(config["classes"]))
    network.description = {name: config[name] for name in _DESCRIPTION if name in config}
    network.description["params"] = {name: params[name] for name in ("backbone", *_SHAPE)}
    for number, description in enumerate(config.get("ensemble", [])):
        prefix = f"ensemble.{number}."
        own = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        network.ensemble.append(rebuild_network(description, own))
    parents = config.get("parents")
    network.parents = None if parents is None else tuple(parents)
    load_network(network, widen(arrays, np.float32))
    return network


def load_saved_network(weights: str | os.PathLike[str], wanted: dict[str, Any]) -> Backbone:
    """Load the network of a saved detector for a new one.

    Parameters
    ----------
    weights : "cnnsvm", "cifake" or path
        A detector that ships with the package, or the folder of another.
    wanted : dict
        The new detector's parameters, see `check_weights`.

    Returns
    -------
    Backbone
        With ``finetune="none"`` it keeps the classifier that it was fine-tuned with. Its
        ``trained_on`` are the hashes of what it has seen, if the saved detector has them.

    Raises
    ------
    WeightsError
        If there is no such detector, a byte of it has changed, or its network has another shape.
    """
    check_weights(wanted)
    name = os.fspath(weights)
    network = _read_network(weights)
    if wanted["finetune"] == "none":
        return network
    has_projection = not isinstance(network.projection, nn.Identity)
    if wanted["finetune"] == "head" and network.body is not None and not has_projection:
        raise WeightsError(
            f"weights {name!r} have no projection, which is what finetune='head' trains. Use "
            "finetune='full' or 'none'."
        )
    if network.branch is not None and not has_learnt_branch(network):
        raise WeightsError(
            f"weights {name!r} take residual statistics as they are, so there is nothing to train "
            "on them. Use finetune='none', or weights=None for layers that learn from them."
        )
    network.classifier = network.parents = None  # training makes new ones
    return network


def add_ensemble(network: Backbone, ensemble: Sequence[str | os.PathLike[str]]) -> None:
    """Put the networks of saved detectors beside a network, to embed with it as they are.

    Parameters
    ----------
    network : Backbone
        Changed in place; what they have seen counts as seen by it.
    ensemble : sequence of str or path
        Detectors that ship with the package, or folders of others.

    Raises
    ------
    WeightsError
        If one cannot be read, or its network was not fine-tuned.
    """
    for weights in ensemble:
        member = _read_network(weights)
        if member.classifier is None:
            raise WeightsError(
                f"ensemble: the network of {os.fspath(weights)!r} was never fine-tuned, so it has "
                "learnt nothing of fakes. Name a detector that was fitted with finetune='full' or "
                "'head'."
            )
        known = [part for part in (network.trained_on, member.trained_on) if part is not None]
        network.trained_on = np.unique(np.concatenate(known)) if known else None
        network.knows_all = network.knows_all and member.knows_all
        network.ensemble.append(member)


def check_ensemble(params: dict[str, Any]) -> None:
    """Refuse an ``ensemble`` that is no sequence of saved detectors.

    Raises
    ------
    ValueError
    """
    ensemble = params["ensemble"]
    if isinstance(ensemble, str | os.PathLike) or not isinstance(ensemble, Sequence):
        raise ValueError(
            f"ensemble must be a tuple of saved detectors, got {ensemble!r}. For a single one "
            "write ('FOLDER',)."
        )
    for weights in ensemble:
        if not isinstance(weights, str | os.PathLike) or not is_saved_network(weights):
            raise WeightsError(
                f"ensemble: {weights!r} is no saved detector. Give the folder of one, or "
                f"{' or '.join(map(repr, SHIPPED))}, which ship."
            )


def check_weights(params: dict[str, Any]) -> None:
    """Refuse weights that are no saved detector's where only those can be meant, or of another one.

    Parameters
    ----------
    params : dict
        Parameters of a detector. If ``weights`` names a saved one, ``backbone``, ``stem``,
        ``truncate_at``, ``statistics`` and ``preprocessing`` must be as they are there.

    Raises
    ------
    WeightsError
    """
    weights, backbone = params["weights"], params["backbone"]
    if not is_saved_network(weights):
        if backbone == STATISTICS and weights not in (None, "imagenet"):
            raise WeightsError(
                f"weights {os.fspath(weights)!r} with backbone={STATISTICS!r} must name the folder "
                "of a saved detector, and there is none. Give such a folder, 'cnnsvm', or None."
            )
        return
    folder = saved_folder(weights)
    if not holds_model(folder):
        raise WeightsError(
            f"weights={os.fspath(weights)!r} are those of a detector that ships with cnnsvm, and "
            f"none ships with this one: {folder} has none. Choose None, 'imagenet' or a file."
        )
    try:
        config = read_config(folder)
    except BundleError as error:
        raise WeightsError(f"weights {os.fspath(weights)!r} cannot be read: {error}") from error
    if "preprocessing" not in config or "params" not in config:
        raise WeightsError(f"weights {os.fspath(weights)!r}: that detector has no network.")
    _check_agreement(weights, config, params)


def saved_folder(weights: str | os.PathLike[str]) -> Path:
    """Return the folder of the saved detector that ``weights`` names."""
    return SHIPPED[weights] if weights in SHIPPED else Path(weights)


def _read_network(weights: str | os.PathLike[str]) -> Backbone:
    """Read the network of a saved detector, and the hashes of what it has seen."""
    try:
        config, arrays = read_bundle(saved_folder(weights))
    except BundleError as error:
        raise WeightsError(f"weights {os.fspath(weights)!r} cannot be read: {error}") from error
    if "network" not in arrays:
        raise WeightsError(f"weights {os.fspath(weights)!r}: that detector has no network.")
    network = rebuild_network(config, arrays["network"])
    seen = arrays.get("trained_on", {})
    network.trained_on = seen.get("hashes", seen.get("network"))
    network.knows_all = "hashes" in seen
    return network


def has_learnt_branch(network: Backbone) -> bool:
    """Tell whether a network learns from residual statistics, rather than taking them raw."""
    return isinstance(network.branch, nn.Sequential)


def _check_agreement(
    weights: str | os.PathLike[str], config: dict[str, Any], wanted: dict[str, Any]
) -> None:
    saved = _SHAPE | config["params"]
    names = ["backbone", *_SHAPE] if saved["backbone"] != STATISTICS else ["backbone"]
    differ = [f"{k}={saved[k]!r}, not {wanted[k]!r}" for k in names if saved[k] != wanted[k]]
    asked = wanted["preprocessing"]
    if saved["backbone"] != STATISTICS and asked != "auto":
        found = as_preprocessing(config["preprocessing"])
        if as_preprocessing(asked) != found:
            differ.append(f"preprocessing={config['preprocessing']!r}, not {asked!r}")
    if differ:
        raise WeightsError(
            f"weights {os.fspath(weights)!r} are of another network: {'; '.join(differ)}. Set the "
            "parameters as they were there, or take other weights."
        )
