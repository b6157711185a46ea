"""How an `InpaintLocalizer` is fitted: its images are read, split by sources, and trained on."""

import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.utils import check_random_state
from tqdm import tqdm

import cnnsvm
from cnnsvm.data.near_duplicates import perceptual_hash
from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.cache import CHECKPOINT, network_arrays, store_training, stored_training
from cnnsvm.features.devices import Processes, choose_precision, join
from cnnsvm.features.reading import MEMORY
from cnnsvm.features.trainer import Entry, TrainingOptions
from cnnsvm.io.callbacks import check_callbacks, without_callbacks
from cnnsvm.io.files import alone
from cnnsvm.localization.collapse import best_epoch
from cnnsvm.localization.masks import MaskError
from cnnsvm.localization.patches import Pairs
from cnnsvm.localization.pretrained import load_arrays
from cnnsvm.localization.trainer import LocalizerTrainer, warn_of_collapse

if TYPE_CHECKING:
    from cnnsvm.localization.localizer import InpaintLocalizer

logger = logging.getLogger(__name__)

#: Raised with every change of what a fit computes, so that no cache mixes old and new.
RECIPE = 2


def fit_localizer(
    localizer: "InpaintLocalizer",
    images: Sequence[Any],
    masks: Sequence[Any],
    groups: np.ndarray | None,
) -> dict[str, Any]:
    """Read every pair once, split them by groups, train, and return what was learnt."""
    settings = localizer.settings
    seed = int(check_random_state(localizer.random_state).randint(np.iinfo(np.int32).max))
    device, together = join(localizer.device, localizer.gpu_memory_fraction, localizer.distributed)
    options = training_options(localizer, device, seed, together)
    network = localizer.build_network(seed)
    sources = encode_groups(groups, len(images))
    # decoding processes start anew each epoch: what they keep would only cost memory
    memory = 0 if options.n_jobs else MEMORY // together.count
    pairs = Pairs(images, masks, localizer.mask_policy, memory)
    shares, digests = survey(pairs, options.n_jobs, progress=together.is_first)
    fit, valid = validation_split(shares > 0, sources, settings.validation_fraction, seed)
    trainer = LocalizerTrainer(
        network, pairs, fit, valid, options, settings, localizer.threshold, together
    )
    cache = _task_folder(localizer, trainer, sources, digests)
    history = _train(trainer, cache)
    if together.is_first:
        warn_of_collapse(history, options.patience)
    return {
        "network_": network,
        "history_": history,
        "threshold_": _threshold(history, localizer.threshold),
        "trained_on_": _hash_sources(pairs, sources, shares),
    }


def training_options(
    localizer: "InpaintLocalizer",
    device: torch.device,
    seed: int,
    together: Processes | None = None,
) -> TrainingOptions:
    """Return what the trainer needs; a ValueError if a batch cannot be shared."""
    settings = localizer.settings
    if together is not None and localizer.batch_size % together.count:
        raise ValueError(
            f"batch_size={localizer.batch_size!r} is of all processes together and must be a "
            f"multiple of their number, {together.count}."
        )
    return TrainingOptions(
        epochs=settings.epochs,
        patience=settings.patience,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        optimizer=settings.optimizer,
        batch_size=localizer.batch_size,
        crop_size=localizer.crop_size,
        n_crops=settings.n_crops,
        augmentation=AUGMENTATIONS[settings.augmentation],
        random_state=seed,
        n_jobs=0 if localizer.n_jobs in (None, 1) else int(localizer.n_jobs),
        device=device,
        dtype=choose_precision(localizer.precision, device),
        callbacks=check_callbacks(settings.callbacks),
    )


def survey(pairs: Pairs, n_jobs: int, progress: bool = True) -> tuple[np.ndarray, list[bytes]]:
    """Read every image and its mask once: a bad one is an error before the training.

    Returns the share of each image's pixels that is repainted, float64 (n_pairs,), and the SHA-256
    of pixels and mask. An ImageError is raised for the first pair that cannot be used, a MaskError
    if no pixel of any image is repainted, or every one is.
    """
    bar = tqdm(range(len(pairs)), "reading", disable=not (progress and sys.stderr.isatty()))
    found = Parallel(n_jobs=n_jobs or 1, prefer="threads")(delayed(_facts)(pairs, i) for i in bar)
    shares = np.array([share for share, _ in found])
    if not shares.any():
        raise MaskError(
            f"none of the {len(shares)} masks has a repainted pixel, and a localiser needs both "
            "kinds. Check that the masks are those of repainted images, white where repainted."
        )
    if shares.min() == 1:
        raise MaskError(
            f"all {len(shares)} masks cover their whole image, and a localiser needs both kinds of "
            "pixels. Add untouched images with mask None, or masks of the repainted part alone."
        )
    return shares, [digest for _, digest in found]


def validation_split(
    repainted: np.ndarray, sources: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into those that train and those that early stopping watches, by whole groups.

    ``fraction`` of the groups is held out. Both parts get some images that are repainted, bool
    (n_images,), and untouched ones in proportion if enough groups have any. The second is empty if
    there are too few groups.
    """
    n_splits = min(round(1 / fraction), len(np.unique(sources[repainted])))
    n_untouched = len(np.unique(sources[~repainted]))
    labels = repainted if n_untouched >= n_splits else np.ones(len(repainted), dtype=bool)
    folds = grouped_folds(labels, sources, n_splits, seed) if n_splits >= 2 else []
    for fit, valid in folds:
        if repainted[fit].any() and repainted[valid].any():
            return fit, valid
    logger.warning(
        "too few sources for a validation split: training runs all epochs without early stopping"
    )
    return np.arange(len(repainted)), np.arange(0)


def _train(trainer: LocalizerTrainer, cache: Path | None) -> list[Entry]:
    """Train, or take the finished network out of the cache folder of this very task.

    The folder holds the checkpoint of a running and the weights of a finished training.
    """
    if cache is None:
        return trainer.run()
    together = trainer.processes
    with alone(cache / "network" if together.is_first else None):
        stored = stored_training(cache)
        if not together.agree((cache / CHECKPOINT).is_file() + 2 * (stored is not None)):
            raise ValueError(
                f"cache_dir: the processes of this training do not see one folder {cache}. Put "
                "cache_dir on a disk that all machines share, or leave it out."
            )
        if stored is not None:
            arrays, history = stored
            load_arrays(trainer.network.cpu(), arrays)
            logger.info("trained network taken from %s", cache)
            return history
        history = trainer.run(cache / CHECKPOINT)
        if together.is_first:
            store_training(cache, trainer.network, history)
        together.agree(0)  # wait: nobody looks for the result before it is there
    return history


def _task_folder(
    localizer: "InpaintLocalizer",
    trainer: LocalizerTrainer,
    sources: np.ndarray,
    digests: Sequence[bytes],
) -> Path | None:
    """Name the cache folder of a training by all that its result depends on.

    Where it runs counts by kind only, so that all processes find one folder.
    """
    if localizer.cache_dir is None:
        return None
    place = {"device": trainer.device.type, "n_jobs": 0}
    options = (
        without_callbacks(asdict(trainer.options)) | place | {"processes": trainer.processes.count}
    )
    network = (localizer.architecture, localizer.size, localizer.genotype, localizer.preprocessing)
    settings = sorted(without_callbacks(localizer.settings.get_params(deep=False)).items())
    made_of = (cnnsvm.__version__, RECIPE, options, settings, localizer.threshold, network)
    digest = hashlib.sha256(repr(made_of).encode())
    for value in network_arrays(trainer.network).values():
        digest.update(value.tobytes())
    digest.update(sources.tobytes() + b"".join(digests))
    return Path(localizer.cache_dir) / digest.hexdigest()[:20]


def _hash_sources(pairs: Pairs, sources: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Hash what one image of each source looks like, an untouched one if there is one."""
    order = np.argsort(shares > 0, kind="stable")
    chosen = order[np.unique(sources[order], return_index=True)[1]]
    images: list[Any] = [pairs[int(index)][0] for index in chosen]
    hashes = [perceptual_hash(image) for image in images]
    return np.unique(np.array([value for value, usable in hashes if usable], dtype=np.uint64))


def _facts(pairs: Pairs, index: int) -> tuple[float, bytes]:
    pixels, mask = pairs[index]
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    digest.update(mask.data)
    return float(mask.mean()), digest.digest()


def _threshold(history: list[Entry], wanted: float | str) -> float:
    """Return the threshold of the best epoch, or what was asked for if nothing validated it."""
    if not isinstance(wanted, str):
        return float(wanted)
    best = best_epoch(history)
    return float(history[best].get("valid_threshold", 0.5)) if best is not None else 0.5
