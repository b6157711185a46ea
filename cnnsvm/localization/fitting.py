"""How an `InpaintLocalizer` is fitted, and how its parameters become a training."""

import hashlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.devices import choose_precision
from cnnsvm.features.loading import MEMORY
from cnnsvm.features.processes import Processes, join
from cnnsvm.localization.bundle import MAKE, build_network
from cnnsvm.localization.cache import fit_network, task_folder
from cnnsvm.localization.checks import check_repainted
from cnnsvm.localization.collapse import best_epoch
from cnnsvm.localization.patches import Pairs
from cnnsvm.localization.trainer import LocalizerTraining, warn_of_collapse

logger = logging.getLogger(__name__)

#: Parameters that go to the training as they are.
_OF_TRAINING = (
    "loss",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "epochs",
    "patience",
    "max_restarts",
    "batch_size",
    "crop_size",
    "n_crops",
    "crops_per_image",
    "balance",
    "warmup",
    "threshold",
)


def fit_on_pairs(
    localizer: Any,
    images: Sequence[Any],
    masks: Sequence[Any],
    groups: np.ndarray | None,
    seed: int,
) -> None:
    """Read every pair once, split them by groups, and train.

    Parameters
    ----------
    localizer : InpaintLocalizer
        Gets ``network_``, ``history_`` and ``threshold_``.
    images, masks : sequence of image inputs
        Of one length; a mask is None where the image is untouched.
    groups : ndarray of shape (n_images,) or None
    seed : int
    """
    params = localizer.get_params(deep=False)
    place = join(params["device"], params["gpu_memory_fraction"], params["distributed"])
    training = training_of(params, *place, seed)
    network = build_network(params, seed)
    sources = encode_groups(groups, len(images))
    # decoding processes start anew each epoch: what they keep would only cost memory
    memory = 0 if training.n_jobs else MEMORY // training.processes.count
    pairs = Pairs(images, masks, params["mask_policy"], memory)
    is_first = training.processes.is_first
    shares, digests = survey(pairs, training.n_jobs, progress=is_first)
    check_repainted(shares)
    fit, valid = validation_split(shares > 0, sources, params["validation_fraction"], seed)
    settings = [params[name] for name in (*MAKE, "validation_fraction")]
    cache = task_folder(params["cache_dir"], network, digests, sources, training, settings)
    localizer.history_ = fit_network(network, pairs, fit, valid, training, cache)
    if is_first:
        warn_of_collapse(localizer.history_, training.patience)
    localizer.network_ = network
    localizer.threshold_ = _threshold(localizer.history_, params["threshold"])


def training_of(
    params: dict[str, Any], device: torch.device, together: Processes, seed: int
) -> LocalizerTraining:
    """Say how a localiser's parameters want its network to be trained.

    Raises
    ------
    ValueError
        If a batch cannot be shared by the processes.
    """
    if params["batch_size"] % together.count:
        raise ValueError(
            f"batch_size={params['batch_size']!r} is of all processes together and must be a "
            f"multiple of their number, {together.count}."
        )
    return LocalizerTraining(
        **{name: params[name] for name in _OF_TRAINING},
        augmentation=AUGMENTATIONS[params["augmentation"]],
        random_state=seed,
        n_jobs=int(params["n_jobs"] or 0),
        device=device,
        dtype=choose_precision(params["precision"], device),
        processes=together,
    )


def survey(pairs: Pairs, n_jobs: int, progress: bool = True) -> tuple[np.ndarray, list[bytes]]:
    """Read every image and its mask once, so that a bad one is named before the training.

    Parameters
    ----------
    pairs : Pairs
    n_jobs : int
        Threads; 0 reads them one after the other.
    progress : bool
        Whether to show a bar, if standard error is a terminal.

    Returns
    -------
    shares : ndarray of float64, shape (n_pairs,)
        Of the pixels, those that are repainted.
    digests : list of bytes
        SHA-256 of pixels and mask.

    Raises
    ------
    ImageError
        For the first pair that cannot be used.
    """
    bar = tqdm(range(len(pairs)), "reading", disable=not (progress and sys.stderr.isatty()))
    found = Parallel(n_jobs=n_jobs or 1, prefer="threads")(delayed(_facts)(pairs, i) for i in bar)
    return np.array([share for share, _ in found]), [digest for _, digest in found]


def validation_split(
    repainted: np.ndarray, sources: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into those that train and those that tell when to stop, by whole groups.

    Parameters
    ----------
    repainted : ndarray of bool, shape (n_images,)
        Whether anything in an image is repainted. Both parts get some that are, and untouched
        ones in proportion if enough groups have any.
    sources : ndarray of int, shape (n_images,)
        Group of each image.
    fraction : float in (0, 0.5]
        Share of the groups that is kept aside.
    seed : int

    Returns
    -------
    fit, valid : ndarray of int
        ``valid`` is empty if there are too few groups.
    """
    n_splits = min(round(1 / fraction), len(np.unique(sources[repainted])))
    n_untouched = len(np.unique(sources[~repainted]))
    labels = repainted if n_untouched >= n_splits else np.ones(len(repainted), dtype=bool)
    folds = grouped_folds(labels, sources, n_splits, seed) if n_splits >= 2 else []
    for fit, valid in folds:
        if repainted[fit].any() and repainted[valid].any():
            return fit, valid
    logger.warning(
        "too few sources to keep some aside: training runs all epochs without early stopping"
    )
    return np.arange(len(repainted)), np.arange(0)


def _facts(pairs: Pairs, index: int) -> tuple[float, bytes]:
    pixels, mask = pairs[index]
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    digest.update(mask.data)
    return float(mask.mean()), digest.digest()


def _threshold(history: list[dict[str, Any]], wanted: float | str) -> float:
    """Return the threshold of the best epoch, or what was asked for if nothing validated it."""
    best = best_epoch(history)
    if wanted != "iou":
        return float(wanted)
    return float(history[best].get("valid_threshold", 0.5)) if best is not None else 0.5
