"""What a fit computed in hours, named by all that it depends on, so that it is computed once."""

import hashlib
import json
import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import cnnsvm
from cnnsvm.data.images import image_hash
from cnnsvm.data.splits import encode_groups
from cnnsvm.features import branch
from cnnsvm.features.backbones import Backbone
from cnnsvm.features.finetuning import AuxiliaryLabels, finetune
from cnnsvm.features.trainer import Training
from cnnsvm.io.files import alone, clear_partials, file_hash, replacing, write_text

logger = logging.getLogger(__name__)

#: Raised with every change of what a fit computes, so that no cache or run mixes old and new.
RECIPE = 5
#: Files of a training in its folder; the history marks it as finished.
CHECKPOINT, WEIGHTS, HISTORY = "checkpoint.pt", "network.safetensors", "history.json"
#: Parameters that change how long a computation takes, and not what it gives.
WITHOUT_EFFECT = (
    *("cache_dir", "n_jobs", "verbose", "gpu_memory_fraction", "storage", "study", "callbacks"),
)


def fit_network(
    network: Backbone,
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    training: Training,
    cache: Path | None,
    auxiliary: AuxiliaryLabels | None = None,
) -> list[dict[str, float]]:
    """Fine-tune a network in place, or take the finished one out of the cache.

    Images, codes, groups and auxiliary labels are as for `cnnsvm.features.finetuning.finetune`. The
    cache is the folder of this very task (see `task_folder`): it holds the checkpoint of a running
    and the weights of a finished fine-tuning. Returns the losses and metrics, one dict an epoch.
    """
    if cache is None:
        return finetune(network, images, codes, groups, training, None, auxiliary)
    with alone(cache / "network"):
        if (stored := stored_training(cache)) is not None:
            arrays, history = stored
            load_network(network, arrays)
            network.parents = None if auxiliary is None else auxiliary.parents
            logger.info("fine-tuned network taken from %s", cache)
            return history
        checkpoint = cache / CHECKPOINT
        history = finetune(network, images, codes, groups, training, checkpoint, auxiliary)
        for left in cache.glob("statistics_*.safetensors"):
            left.unlink(missing_ok=True)
        store_training(cache, network, history)
    return history


def store_training(cache: Path, network: torch.nn.Module, history: list[dict[str, Any]]) -> None:
    """Keep a trained network and its history, and remove what would have resumed the training."""
    with replacing(cache / WEIGHTS) as partial:
        save_file(network_arrays(network), partial)
    kept = {"sha256": file_hash(cache / WEIGHTS), "history": history}
    write_text(cache / HISTORY, json.dumps(kept))  # last: marks it finished
    (cache / CHECKPOINT).unlink(missing_ok=True)
    clear_partials(cache)


def stored_training(cache: Path) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]] | None:
    """Read what `store_training` kept; None if there is nothing, or not what was written."""
    try:
        kept = json.loads((cache / HISTORY).read_text(encoding="utf-8"))
        if file_hash(cache / WEIGHTS) != kept["sha256"]:
            raise ValueError(f"{WEIGHTS} is not what was written")
        return load_file(cache / WEIGHTS), kept["history"]
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        logger.warning("%s is damaged and is trained again: %s", cache, error)
        (cache / HISTORY).unlink(missing_ok=True)
        return None


def network_arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Return a network's parameters and statistics as arrays, fit for safetensors."""
    return {name: value.cpu().numpy().copy() for name, value in network.state_dict().items()}


def load_network(network: Backbone, arrays: dict[str, np.ndarray]) -> None:
    """Put saved parameters into a network of the same architecture, ready for embedding.

    Arrays of its own types become its memory: those of a large network are not copied.
    """
    if "classifier.weight" in arrays and network.classifier is None:
        n_outputs, dim = arrays["classifier.weight"].shape
        network.classifier = torch.nn.Linear(dim, n_outputs)
    state = {name: torch.from_numpy(value) for name, value in arrays.items()}
    own = network.state_dict()
    is_alike = all(name in own and own[name].dtype == value.dtype for name, value in state.items())
    network.load_state_dict(state, assign=is_alike)
    network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def task_folder(
    cache_dir: str | os.PathLike[str] | None,
    networks: Sequence[torch.nn.Module],
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    settings: Sequence[Any],
) -> Path | None:
    """Name the cache folder of one task by all that its result depends on.

    The name is a hash of the networks' weights and preprocessing, the content of the images, their
    classes, groups and the settings, so that a changed file or parameter never meets an old
    result. Embedding is a task without images: their embeddings have names of their own.
    """
    if cache_dir is None:
        return None
    return Path(cache_dir) / hash_task(networks, images, codes, groups, settings)


def hash_task(
    networks: Sequence[torch.nn.Module],
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    settings: Sequence[Any],
) -> str:
    """Name a task (see `task_folder`)."""
    plain = [asdict(replace(s, n_jobs=0)) if isinstance(s, Training) else s for s in settings]
    digest = hashlib.sha256(repr((cnnsvm.__version__, RECIPE, branch.PASSES, *plain)).encode())
    for network in networks:
        digest.update(repr(getattr(network, "preprocessing", None)).encode())
        for value in network_arrays(network).values():
            digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(codes.astype(np.int64).tobytes())
    digest.update(encode_groups(groups, len(codes)).tobytes())
    for image in images:
        digest.update(image_hash(image).encode())
    return digest.hexdigest()[:20]


def hash_settings(value: Any) -> str:
    """Hash parameters, or an estimator's, by content: arrays and the weights of networks too.

    A ValueError says that something in them has no content to hash, such as a lambda.
    """
    try:
        return joblib.hash(_plain(value))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{value!r:.100} cannot be stored under a name of its own: {error}. Give a function "
            "that has a name in a module in place of a lambda, or no folder to store in."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, torch.nn.Module):  # its pickle holds addresses
        return [repr(value), network_arrays(value)]
    if hasattr(value, "get_params") and not isinstance(value, type):
        return [type(value).__qualname__, _plain(value.get_params(deep=False))]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if k not in WITHOUT_EFFECT}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
