"""Torchvision's detection and segmentation networks with their trained weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.generation.masks.schemas import SchemaError

if TYPE_CHECKING:
    from torch import nn

#: Trained with an epsilon of 0 in their frozen batch norms; torchvision sets it for its own files.
_WITHOUT_EPS = (
    *("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"),
    *("keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn"),
)


def load_network(model: str, weights: str | None) -> "nn.Module":
    """Build a torchvision network with trained weights, ready to look at images.

    Parameters
    ----------
    model : str
        Name of a detection or segmentation network.
    weights : str or None
        File with its parameters; None takes torchvision's own, from the hub or its cache.

    Returns
    -------
    torch.nn.Module
        In ``eval()`` mode, on CUDA if there is a device.

    Raises
    ------
    SchemaError
        If the weights cannot be had or do not fit.
    """
    import torch

    from cnnsvm.features.devices import choose_device

    with torch.random.fork_rng(devices=[]):  # networks begin with random weights
        network = _from_hub(model) if weights is None else _from_file(model, weights)
    return network.to(choose_device("auto")).eval()


def _from_hub(model: str) -> "nn.Module":
    import torch
    from torchvision import models

    try:
        return models.get_model(model, weights="DEFAULT", progress=False)
    except Exception as error:
        file = Path(models.get_model_weights(model).DEFAULT.url).name
        raise SchemaError(
            f"torchvision's weights for {model} cannot be downloaded ({error}). Either copy {file} "
            f"to {Path(torch.hub.get_dir()) / 'checkpoints'} from a machine that has it, or name a "
            f"file, as in object:{model},weights=/path/to/{file}."
        ) from error


def _from_file(model: str, file: str) -> "nn.Module":
    from torchvision import models

    # the auxiliary classifier serves training only
    state = {k: v for k, v in _file_state(file).items() if not k.startswith("aux_classifier.")}
    network = models.get_model(model, weights=None, weights_backbone=None)
    try:
        keys = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _misfit(model, file, str(error).splitlines()[-1].strip()) from error
    # frozen batch norms count no batches
    missing = [key for key in keys.missing_keys if not key.endswith("num_batches_tracked")]
    for what, wrong in (("missing", missing), ("unknown", keys.unexpected_keys)):
        if wrong:
            raise _misfit(model, file, f"{len(wrong)} parameter(s) {what}: {', '.join(wrong[:3])}")
    if model in _WITHOUT_EPS and not any(key.endswith("num_batches_tracked") for key in state):
        _drop_eps(network)
    return network


def _misfit(model: str, file: str, reason: str) -> SchemaError:
    return SchemaError(
        f"weights={file} do not fit {model} ({reason}). The file must hold torchvision's {model}; "
        "without weights= its own are taken from the hub."
    )


def _drop_eps(network: "nn.Module") -> None:
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0


def _file_state(file: str) -> Mapping[str, Any]:
    import torch
    from safetensors.torch import load_file

    try:
        if Path(file).suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        return dict(state.get("state_dict", state.get("model", state)))
    except Exception as error:
        raise SchemaError(
            f"weights={file} cannot be read ({_first_sentence(error)}). Give an existing "
            ".safetensors, .pth or .pt file with nothing but the network's parameters, or leave "
            "weights= out to have torchvision's own from its hub."
        ) from error


def _first_sentence(error: Exception) -> str:
    # what torch says next is how to load an unsafe file all the same
    return str(error).partition(". ")[0] or type(error).__name__


def file_signature(file: str) -> str:
    """Return the name of a file and the first 8 digits of its SHA-256."""
    with Path(file).open("rb") as opened:
        return f"{Path(file).name}@{hashlib.file_digest(opened, 'sha256').hexdigest()[:8]}"
