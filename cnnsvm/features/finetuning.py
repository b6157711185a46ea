"""Fine-tuning a backbone on labelled images, with early stopping on unseen sources."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm import tqdm

from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.features.auxiliary_labels import AuxiliaryLabels
from cnnsvm.features.backbones import Backbone
from cnnsvm.features.branch import train_branch
from cnnsvm.features.trainer import Trainer, Training, epoch_line

logger = logging.getLogger(__name__)

MODES = ("none", "head", "full")


def finetune(
    network: Backbone,
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    training: Training,
    checkpoint: Path | None = None,
    auxiliary: AuxiliaryLabels | None = None,
) -> list[dict[str, float]]:
    """Train a backbone in place and leave it with the weights of its best epoch.

    Parameters
    ----------
    network : Backbone
    images : sequence of image inputs
    codes : ndarray of int, shape (n_samples,)
        Class of each image, 0 .. n_classes - 1.
    groups : array-like of shape (n_samples,) or None
        Images of one group stay on one side of the validation split.
    training : Training
    checkpoint : path or None
        File that is written after each epoch and from which an interrupted run goes on.
    auxiliary : AuxiliaryLabels or None
        Finer classes that the network is trained on; not for one with a branch of statistics.

    Returns
    -------
    list of dict
        One an epoch: ``epoch``, ``train_loss``, ``learning_rate`` and, unless there are too few
        sources for a validation split, ``valid_loss``, ``valid_auc``. With ``auxiliary`` the
        training loss is that of these labels, all else of the classes.

    Raises
    ------
    DivergedError
        If the loss is no longer finite.
    """
    group_codes = encode_groups(groups, len(codes))
    fit, valid = validation_split(codes, group_codes, training)
    if isinstance(network.branch, nn.Sequential):
        folder = None if checkpoint is None else checkpoint.parent
        history = train_branch(network, images, codes, group_codes, fit, valid, training, folder)
        if network.body is None:
            network.cpu().eval().requires_grad_(False)
            return history
    trainer = Trainer(network, images, codes, group_codes, fit, valid, training, auxiliary)
    trainer.resume(checkpoint)
    remaining = range(len(trainer.history), training.epochs)
    progress = tqdm(remaining, "fine-tuning", unit="epoch", disable=not sys.stderr.isatty())
    for epoch in progress:
        if trainer.patience_is_over():
            break
        entry = trainer.train_epoch(epoch)
        if len(valid):
            entry |= trainer.validate()
        trainer.remember(entry)
        trainer.save(checkpoint)
        progress.set_postfix({key: f"{entry[key]:.3f}" for key in entry if "loss" in key})
        logger.info("fine-tuning: %s", epoch_line(entry, training.epochs))
    trainer.restore_best()
    network.cpu().eval().requires_grad_(False)
    return trainer.history


def validation_split(
    codes: np.ndarray, groups: np.ndarray, training: Training
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into those that train and those that tell when to stop, by whole groups.

    Parameters
    ----------
    codes, groups : ndarray of int, shape (n_samples,)
    training : Training

    Returns
    -------
    fit, valid : ndarray of int
        ``valid`` is empty if there are too few groups.
    """
    fewest = min(len(np.unique(groups[codes == code])) for code in np.unique(codes))
    n_splits = min(round(1 / training.validation_fraction), fewest)
    if n_splits >= 2:
        fit, valid = grouped_folds(codes, groups, n_splits, training.random_state)[0]
        if len(np.unique(codes[fit])) == len(np.unique(codes)):
            return fit, valid
    logger.warning(
        "too few sources to keep some aside: fine-tuning runs all %d epochs without early stopping",
        training.epochs,
    )
    return np.arange(len(codes)), np.arange(0)
