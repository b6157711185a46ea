"""Fitted localisers on disk: safetensors and JSON, nothing in them can run code."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from cnnsvm.features.cache import network_arrays
from cnnsvm.features.devices import writes
from cnnsvm.io.bundle import round_weights, widen, write_bundle
from cnnsvm.io.callbacks import without_callbacks
from cnnsvm.localization.training import LocalizerTraining

if TYPE_CHECKING:
    from cnnsvm.localization.localizer import InpaintLocalizer

    Localizer = TypeVar("Localizer", bound=InpaintLocalizer)

KIND = "InpaintLocalizer"
#: Parameters that belong to one machine or one training: they are not saved.
MACHINE = (
    *("weights", "distributed", "device", "precision", "gpu_memory_fraction", "n_jobs"),
    *("cache_dir", "max_pixels"),
)


def save_pretrained(
    localizer: "InpaintLocalizer",
    folder: str | os.PathLike[str],
    *,
    bits: int = 32,
    card: str = "",
) -> Path:
    """Write the fitted localiser to a folder of safetensors and JSON (no pickle).

    Parameters
    ----------
    folder : path
        Made new; a saved model that is there already is replaced, anything else is refused.
    bits : {32, 16, 8, 4}, default=32
        Of a stored weight.
    card : str, default=""
        Text of its README.md.
    """
    check_is_fitted(localizer, "network_")
    if not writes(localizer.distributed):
        return Path(folder)
    config = {
        "kind": KIND,
        "bits": bits,
        "params": _plain_params(localizer),
        "threshold": localizer.threshold_,
        "history": localizer.history_,
    }
    arrays = round_weights(network_arrays(localizer.network_), bits)
    trained_on = {"hashes": localizer.trained_on_}
    files = {"network": arrays, "trained_on": trained_on}
    return write_bundle(folder, config, files, {"README.md": card} if card else {})


def from_state(
    kind: "type[Localizer]", config: dict[str, Any], arrays: dict[str, dict[str, np.ndarray]]
) -> "Localizer":
    """Make a localiser of what `save_pretrained` wrote."""
    training = LocalizerTraining(**config["params"]["training"])
    localizer = kind(**config["params"] | {"training": training})
    localizer.check_params()
    network = localizer.build_network()
    load_arrays(network, widen(arrays["network"]))
    localizer.network_ = network
    localizer.threshold_ = float(config["threshold"])
    localizer.history_ = list(config["history"])
    localizer.trained_on_ = arrays["trained_on"]["hashes"]
    return localizer


def load_arrays(network: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Put saved parameters into a network of the same architecture, ready for inference."""
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    network.eval().requires_grad_(False)


def _plain_params(localizer: "InpaintLocalizer") -> dict[str, Any]:
    """Return the parameters as JSON values, without those that belong to one machine."""
    params = {k: v for k, v in localizer.get_params(deep=False).items() if k not in MACHINE}
    params["training"] = _plain(without_callbacks(localizer.settings.get_params(deep=False)))
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    if params["genotype"] is not None:
        params["genotype"] = [list(cell) for cell in params["genotype"]]
    return _plain(params)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
