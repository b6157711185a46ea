"""What of an `InpaintLocalizer` is saved, and how it is put together again."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cnnsvm.io.bundle import BundleError, read_bundle, write_bundle
from cnnsvm.localization import architectures

KIND = "InpaintLocalizer"
#: What names the make of a network among a localiser's parameters, beside its first weights.
MAKE = ("architecture", "size", "genotype", "preprocessing")
#: What belongs to one machine or one training, and the values that stand for it.
_LEFT_OUT = {
    "weights": None,
    "distributed": False,
    "device": "auto",
    "precision": "auto",
    "gpu_memory_fraction": None,
    "n_jobs": None,
    "cache_dir": None,
}


def build_network(params: dict[str, Any], seed: int) -> nn.Module:
    """Build the untrained network that a localiser's parameters describe."""
    make = {name: params[name] for name in MAKE}
    return architectures.build_network(**make, weights=params["weights"], random_state=seed)


def save(localizer: Any, folder: str | os.PathLike[str], half: bool = False) -> Path:
    """Write a fitted localiser (see `InpaintLocalizer.save`)."""
    config = {
        "kind": KIND,
        "half": half,
        "params": _plain_params(localizer),
        "threshold": localizer.threshold_,
        "history": localizer.history_,
    }
    arrays = network_arrays(localizer.network_)
    if half:
        arrays = {name: _round(value) for name, value in arrays.items()}
    written = {"network": arrays}
    if hasattr(localizer, "trained_on_"):
        written["trained_on"] = {"hashes": np.asarray(localizer.trained_on_, dtype=np.uint64)}
    return write_bundle(folder, config, written)


def load(kind: type, folder: str | os.PathLike[str]) -> Any:
    """Read a localiser (see `InpaintLocalizer.load`)."""
    config, arrays = read_bundle(folder)
    if config.get("kind") != KIND:
        raise BundleError(
            f"{os.fspath(folder)} holds a {config.get('kind')!r}, not an {KIND}. Name a folder "
            "that `InpaintLocalizer.save` wrote."
        )
    try:
        localizer = kind(**config["params"])
        localizer.threshold_ = float(config["threshold"])
        localizer.history_ = list(config["history"])
        localizer.network_ = build_network(config["params"], seed=0)
        load_arrays(localizer.network_, arrays["network"])
        if "trained_on" in arrays:
            localizer.trained_on_ = arrays["trained_on"]["hashes"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{os.fspath(folder)} does not describe a localiser of this cnnsvm: {error!r}."
        ) from error
    return localizer


def network_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a network's parameters and statistics as arrays, fit for safetensors."""
    return {
        name: value.detach().cpu().contiguous().numpy().copy()
        for name, value in network.state_dict().items()
    }


def load_arrays(network: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Put saved parameters into a network of the same make, ready to judge."""
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    network.eval().requires_grad_(False)


def _round(array: np.ndarray) -> np.ndarray:
    """Round an array of weights to float16; biases, statistics and what is too large stay."""
    if array.ndim < 2 or array.dtype != np.float32:
        return array
    fits = np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    return array.astype(np.float16) if fits else array


def _plain_params(localizer: Any) -> dict[str, Any]:
    """Return the parameters as JSON values; what belongs to one machine is left out."""
    params = localizer.get_params(deep=False) | _LEFT_OUT
    params = {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}
    if not isinstance(params["random_state"], int):
        params["random_state"] = None
    if params["genotype"] is not None:
        params["genotype"] = [list(cell) for cell in params["genotype"]]
    return params
