"""Networks of saved detectors, as what a new embedder starts from."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from torch import nn

from cnnsvm.features.backbones import Backbone, WeightsError
from cnnsvm.features.preprocessing import as_preprocessing
from cnnsvm.features.state import rebuild
from cnnsvm.io.bundle import SHIPPED, BundleError, holds_model, read_bundle, widen

if TYPE_CHECKING:
    from cnnsvm.features.embedder import CropEmbedder


def is_saved_network(
    weights: str | os.PathLike[str] | None,
) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether ``weights`` names a saved detector: one that ships, or the folder of one."""
    if weights is None or weights == "imagenet":
        return False
    return weights in SHIPPED or holds_model(Path(weights))


def saved_folder(weights: str | os.PathLike[str]) -> Path:
    """Return the folder of the saved detector that ``weights`` names."""
    return SHIPPED[weights] if weights in SHIPPED else Path(weights)


def load_saved_network(
    weights: str | os.PathLike[str], embedder: "CropEmbedder", mode: str | None
) -> tuple[Backbone, np.ndarray]:
    """Load the network that a saved detector has in an embedder of the same architecture.

    ``weights`` names a detector that ships, or the folder of another; ``embedder`` says which
    architecture is wanted; ``mode``, "full" or "head", says how the network will be trained, and
    None keeps the classifier that it was trained with. Returns it with the perceptual hashes,
    uint64, of the images that the detector was trained on. A WeightsError says that there is no
    such detector, a byte of it has changed, or it has no such network.
    """
    name = os.fspath(weights)
    try:
        config, arrays = read_bundle(saved_folder(weights))
    except BundleError as error:
        raise WeightsError(f"weights {name!r} cannot be read: {error}") from error
    number = _find(config.get("embedders", []), embedder, name)
    saved = config["embedders"][number]
    network = rebuild(embedder, saved, widen(arrays[f"embedder_{number}"]))
    if mode is not None:
        _check_trainable(network, mode, name)
        network.classifier = network.parents = None  # training makes new ones
    return network, arrays["trained_on"]["hashes"]


def _find(saved: list[dict[str, Any]], embedder: "CropEmbedder", name: str) -> int:
    differences = [_differences(entry, embedder) for entry in saved]
    fitting = [number for number, differ in enumerate(differences) if not differ]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        said = "; or ".join(", ".join(differ) for differ in differences) or "no embedder"
        raise WeightsError(
            f"weights {name!r} hold another architecture: {said}. Set the parameters as they were "
            "there, or take other weights."
        )
    raise WeightsError(
        f"weights {name!r} hold {len(fitting)} networks of this architecture. Name a detector "
        "with one of them."
    )


def _differences(saved: dict[str, Any], embedder: "CropEmbedder") -> list[str]:
    """Say in what a saved embedder differs from the one that is wanted."""
    if saved["class"] != type(embedder).__name__:
        return [f"a {saved['class']}, not a {type(embedder).__name__}"]
    wanted = {name: getattr(embedder, name) for name in embedder.architecture}
    found = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["params"].items()}
    differ = [f"{k}={found[k]!r}, not {v!r}" for k, v in wanted.items() if found[k] != v]
    asked = getattr(embedder, "preprocessing", "auto")
    if asked != "auto" and as_preprocessing(asked) != as_preprocessing(saved["preprocessing"]):
        differ.append(f"preprocessing={saved['preprocessing']!r}, not {asked!r}")
    return differ


def _check_trainable(network: Backbone, mode: str, name: str) -> None:
    if network.body is not None:
        if mode == "head" and isinstance(network.projection, nn.Identity):
            raise WeightsError(
                f"weights {name!r} have no projection, which is what finetune='head' trains. Use "
                "finetune='full' or 'none'."
            )
    elif isinstance(network.branch, nn.Identity):
        raise WeightsError(
            f"weights {name!r} take residual statistics as they are, so there is nothing to train "
            "on them. Use finetune='none', or weights=None for layers that learn from them."
        )
