"""Weights of networks: from torchvision's hub or from a file."""

import logging
import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

logger = logging.getLogger(__name__)

#: What training code calls a network's parameters among other things that it saves.
_INSIDE = ("state_dict", "model_state_dict", "model", "network", "net", "params")
#: torchvision's DenseNet files still have the names of 2017: ``norm.1`` for today's ``norm1``.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class WeightsError(OSError, ValueError):
    """Weights that cannot be had or do not fit; the message names the remedies."""


_FILLING = (torch.Tensor.uniform_, torch.Tensor.normal_)


class UndrawnWeights(TorchFunctionMode):
    """Within it, networks are built without drawing weights, which saved ones are to replace.

    Half a second for a transformer. All of its parameters must be loaded before it is used.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave a tensor as it is in place of filling it."""
        kwargs = kwargs or {}
        if func in _FILLING or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load_weights(network: nn.Module, name: str, weights: str | os.PathLike[str]) -> None:
    """Load torchvision's parameters, "imagenet" or a path, into its network ``name``, in place.

    Parameters of its classifier may be missing in the file; others may not (`WeightsError`).
    """
    found = _imagenet_state(name) if weights == "imagenet" else read_state(weights)
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in found.items()}
    load_state(network, name, weights, state)


def load_state(
    network: nn.Module,
    name: str,
    weights: str | os.PathLike[str],
    state: dict[str, torch.Tensor],
) -> None:
    """Put parameters into a network; those of a classifier may be missing (`WeightsError`)."""
    own = network.state_dict()
    state = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    state = _without_prefix(state, own, weights)
    head = ("fc.", "classifier.", "head.")
    fitting = {key: value for key, value in state.items() if key in own}
    wrong = [k for k, v in fitting.items() if v.shape != own[k].shape and not k.startswith(head)]
    optional = (*head, "num_batches_tracked")  # files older than torch 0.4.1 lack the latter
    missing = [k for k in own if k not in state and not k.startswith(head)]
    missing = [k for k in missing if not k.endswith(optional)]
    if wrong or missing:
        raise WeightsError(
            f"weights {os.fspath(weights)!r} do not fit {name}: {len(missing)} parameter(s) "
            f"missing ({', '.join(missing[:3])}), {len(wrong)} of another shape "
            f"({', '.join(wrong[:3])}). The file must hold the parameters of {name}."
        )
    unknown = [key for key in state if key not in own]
    parts = {key.partition(".")[0] for key in own}
    more = [k for k in unknown if k.partition(".")[0] in parts and not k.startswith(head)]
    if more:
        raise WeightsError(
            f"weights {os.fspath(weights)!r} hold {len(more)} parameter(s) more than {name}, such "
            f"as {more[0]}: they are of a larger network. Name that one, or give other weights."
        )
    if unknown:
        logger.warning(
            "weights: %d unknown parameter(s) ignored, such as %s", len(unknown), unknown[0]
        )
    shaped = {k: v for k, v in fitting.items() if v.shape == own[k].shape}
    if bad := [k for k, v in shaped.items() if not torch.isfinite(v).all()]:
        raise WeightsError(
            f"weights {os.fspath(weights)!r} hold NaN or infinity, first in {bad[0]}. Their "
            "training diverged, or the file is damaged; give others."
        )
    network.load_state_dict(shaped, strict=False)


def _without_prefix(
    state: dict[str, torch.Tensor], own: Mapping[str, Any], weights: str | os.PathLike[str]
) -> dict[str, torch.Tensor]:
    """Leave out the prefix that training code puts in front of names, if that makes them fit.

    Such as ``module.`` and ``_orig_mod.``. Of several networks in one file none is chosen.
    """
    longest = max((k for k in own if not k.endswith("num_batches_tracked")), key=len)
    prefixes = [key.removesuffix(longest) for key in state if key.endswith(longest)]
    bare = {
        prefix: {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        for prefix in ("", *prefixes)
    }
    n_fitting = {prefix: len(own.keys() & names) for prefix, names in bare.items()}
    best = [prefix for prefix, n in n_fitting.items() if n == max(n_fitting.values())]
    if len(best) > 1 and n_fitting[best[0]]:
        raise WeightsError(
            f"weights {os.fspath(weights)!r} hold {len(best)} networks, named {', '.join(best)}. "
            "Save the parameters of one of them."
        )
    return bare[best[0]]


def require(module: str, extra: str) -> Any:
    """Import an optional library.

    Raises
    ------
    ImportError
        If it is not installed, with the name of the extra that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this backbone needs {module}, which cannot be imported ({error}). Install it: "
            f"pip install 'cnnsvm[{extra}]'."
        ) from error


def _imagenet_state(name: str) -> dict[str, torch.Tensor]:
    import torchvision  # a second and a half, which most calls need not wait for

    choice = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return choice.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(choice.url).name
        raise WeightsError(
            f"weights='imagenet' for {name} cannot be downloaded ({error}). Either copy "
            f"{Path(choice.url).name} to {file.parent} from a machine that has it, or pass "
            "weights='/path/to/file.safetensors' (or .pth). weights=None starts from random ones."
        ) from error


def read_state(weights: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read parameters from a .safetensors, .pth or .pt file (`WeightsError`)."""
    file = Path(weights)
    if not file.is_file():
        raise WeightsError(
            f"weights {str(file)!r}: no such file. Give 'imagenet', an existing .safetensors, .pth "
            "or .pt file, or None for random weights."
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        while inside := next((k for k in _INSIDE if isinstance(state.get(k), Mapping)), None):
            state = state[inside]
        return dict(state)
    except Exception as error:  # safetensors raises a class of its own
        # the first sentence only: the next ones say how to load an unsafe file all the same
        reason = str(error).partition(". ")[0] or type(error).__name__
        raise WeightsError(f"weights {str(file)!r} cannot be read: {reason}.") from error
