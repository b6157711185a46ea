"""Fitted embedders as JSON values and arrays: nothing in them can run code."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.estimators import install
from cnnsvm.features.backbones import Backbone
from cnnsvm.features.backbones.weights import UndrawnWeights
from cnnsvm.features.cache import load_network, network_arrays
from cnnsvm.features.tuning import FineTuning
from cnnsvm.io.callbacks import without_callbacks

if TYPE_CHECKING:
    from cnnsvm.features.embedder import CropEmbedder

    Embedder = TypeVar("Embedder", bound=CropEmbedder)

#: Parameters that belong to a machine rather than to a model: they are not saved. Backend and
#: precision are: what was fitted on embeddings of float32 does not fit those of bfloat16 as well.
MACHINE = ("device", "gpu_memory_fraction", "n_jobs", "cache_dir")


def to_state(embedder: "CropEmbedder") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the fitted embedder as a JSON-able description and arrays.

    A TypeError says that its backbone is a module, whose architecture is in no library.
    """
    check_is_fitted(embedder, "network_")
    network = embedder.network_
    if isinstance(getattr(embedder, "backbone", None), torch.nn.Module):
        raise TypeError(
            f"backbone={type(embedder.backbone).__name__}(...) cannot be saved without pickle: its "
            "architecture is in your code alone. Export it, and fit with 'onnx:FILE'."
        )
    params = plain_params(embedder)
    params |= {k: v for k, v in embedder.fitted_way_._asdict().items() if k in params}
    return {
        "class": type(embedder).__name__,
        "params": params,
        "history": embedder.history_,
        "preprocessing": asdict(network.preprocessing),
        "offline_name": network.offline_name,
        "real_class": network.real_class,
        "parents": network.parents,
        "embedding_dim": embedder.embedding_dim_,
    }, network_arrays(network)


def from_state(
    kind: "type[Embedder]", config: dict[str, Any], arrays: dict[str, np.ndarray]
) -> "Embedder":
    """Rebuild a fitted embedder from what `to_state` returned."""
    embedder = from_plain(kind, config["params"])
    embedder.check_params()
    network = rebuild(embedder, config, arrays)
    install(
        embedder,
        network_=network,
        history_=config["history"],
        validation_rows_=None,
        embedding_dim_=config["embedding_dim"],
        trained_on_=None,
        fitted_way_=embedder.choose_way(network),
    )
    return embedder


def from_plain(kind: "type[Embedder]", plain: dict[str, Any]) -> "Embedder":
    """Make an unfitted embedder from what `plain_params` returned."""
    known = {k: v for k, v in plain.items() if k not in MACHINE}
    params = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
    if isinstance(params["finetune"], dict):
        params["finetune"] = FineTuning(**params["finetune"])
    return kind(**params)


def rebuild(
    embedder: "CropEmbedder", config: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Backbone:
    """Build the network that `to_state` described and load its weights."""
    with UndrawnWeights():
        network = embedder.empty_network(config, arrays)
    network.offline_name = config["offline_name"]
    network.real_class = config["real_class"]
    network.parents = None if config["parents"] is None else tuple(config["parents"])
    load_network(network, arrays)
    if network.classifier is not None:
        _check_outputs(network, network.classifier.out_features)
    return network


def plain_params(embedder: "CropEmbedder") -> dict[str, Any]:
    """Return the parameters as JSON values, without those that belong to a machine."""
    params = {k: v for k, v in embedder.get_params(deep=False).items() if k not in MACHINE}
    if isinstance(params.get("backbone"), torch.nn.Module):
        params["backbone"] = type(params["backbone"]).__name__
    if isinstance(params["finetune"], FineTuning):
        params["finetune"] = without_callbacks(params["finetune"].get_params(deep=False))
    if isinstance(params["weights"], os.PathLike):
        params["weights"] = os.fspath(params["weights"])
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}


def _check_outputs(network: Backbone, n_outputs: int) -> None:
    """Refuse classes of a saved network that its classifier does not have."""
    parents = range(n_outputs) if network.parents is None else network.parents
    are_numbers = all(type(each) is int for each in (*parents, network.real_class))
    if (
        len(parents) != n_outputs
        or not are_numbers
        or not 0 <= min(parents) <= max(parents) < n_outputs
        or network.real_class not in parents
    ):
        raise ValueError(
            f"real_class={network.real_class!r:.40} and parents={network.parents!r:.40} are not of "
            f"the {n_outputs} outputs of the saved classifier."
        )
