"""Trained networks and checkpoints by the content that they depend on."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from torch import nn

import cnnsvm
from cnnsvm.features.trainer import Entry
from cnnsvm.io.files import write_text
from cnnsvm.localization.bundle import load_arrays, network_arrays
from cnnsvm.localization.patches import Pairs
from cnnsvm.localization.trainer import LocalizerTrainer, LocalizerTraining

logger = logging.getLogger(__name__)

#: Raised with every change of what a fit computes, so that no cache mixes old and new.
RECIPE = 1


def task_folder(
    cache_dir: str | os.PathLike[str] | None,
    network: nn.Module,
    digests: Sequence[bytes],
    sources: np.ndarray,
    training: LocalizerTraining,
    settings: Sequence[Any],
) -> Path | None:
    """Name the cache folder of one task by all that its result depends on.

    Parameters
    ----------
    cache_dir : path or None
    network : nn.Module
        With its first weights.
    digests : sequence of bytes
        Of the pixels and the mask of each image.
    sources : ndarray of int64, shape (n_images,)
    training : LocalizerTraining
        Where it runs counts by kind only, so that all processes find one folder.
    settings : sequence
        What else there is.
    """
    if cache_dir is None:
        return None
    place = {"device": training.device.type, "processes": training.processes.count, "n_jobs": 0}
    made_of = (cnnsvm.__version__, RECIPE, asdict(training) | place, *settings)
    digest = hashlib.sha256(repr(made_of).encode())
    for value in network_arrays(network).values():
        digest.update(value.tobytes())
    digest.update(sources.tobytes())
    for content in digests:
        digest.update(content)
    return Path(cache_dir) / digest.hexdigest()[:20]


def fit_network(
    network: nn.Module,
    pairs: Pairs,
    fit: np.ndarray,
    valid: np.ndarray,
    training: LocalizerTraining,
    cache: Path | None,
) -> list[Entry]:
    """Train a network in place, or take the finished one out of the cache.

    Parameters
    ----------
    network, pairs, fit, valid, training
        As for `LocalizerTrainer`.
    cache : path or None
        Folder of this very task: holds the checkpoint of a running and the weights of a finished
        training.

    Raises
    ------
    DivergedError
        If no epoch of any attempt ended with a finite loss.
    ValueError
        If the processes that train together do not see one folder.
    """
    if cache is None:
        return LocalizerTrainer(network, pairs, fit, valid, training).run()
    checkpoint, finished = cache / "checkpoint.pt", cache / "history.json"
    if not training.processes.agree(checkpoint.is_file() + 2 * finished.is_file()):
        raise ValueError(
            f"cache_dir: the processes of this training do not see one folder {cache}. Put "
            "cache_dir on a disk that all machines share, or leave it out."
        )
    if finished.is_file():
        load_arrays(network, load_file(cache / "network.safetensors"))
        logger.info("trained network taken from %s", cache)
        return json.loads(finished.read_text(encoding="utf-8"))
    history = LocalizerTrainer(network, pairs, fit, valid, training).run(checkpoint)
    if training.processes.is_first:
        _keep(network, history, cache)
    training.processes.agree(0)  # wait: nobody looks for the result before it is there
    return history


def _keep(network: nn.Module, history: list[Entry], cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    save_file(network_arrays(network), cache / "network.safetensors")
    write_text(cache / "history.json", json.dumps(history))  # last: marks it finished
    (cache / "checkpoint.pt").unlink(missing_ok=True)
