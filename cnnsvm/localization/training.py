"""Training a localiser, with early stopping and restarts after a collapse."""

import logging
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from torch import nn
from tqdm import tqdm

from cnnsvm.features.trainer import DivergedError, epoch_line
from cnnsvm.localization.collapse import (
    LEARNING,
    Entry,
    best_epoch,
    failure,
    patience_is_over,
)
from cnnsvm.localization.patches import Pairs
from cnnsvm.localization.trainer import RATE_FACTOR, Trainer, Training

logger = logging.getLogger(__name__)


def train(
    network: nn.Module,
    pairs: Pairs,
    fit: np.ndarray,
    valid: np.ndarray,
    training: Training,
    checkpoint: Path | None = None,
) -> list[Entry]:
    """Train a network in place and leave it with the weights of its best epoch.

    An attempt that collapsed or diverged (see `cnnsvm.localization.collapse.failure`) is followed
    by one with a lower rate, which begins with the best weights so far or, if none were of use,
    with the first ones; ``max_restarts`` times, and within the same number of epochs in all.

    Parameters
    ----------
    network : nn.Module
        From uint8 (N, 3, H, W) to logits (N, 1, H, W); it ends on the CPU in evaluation mode.
    pairs : Pairs
    fit, valid : ndarray of int
        Which images train, and which tell when to stop (may be none).
    training : Training
    checkpoint : path or None
        File that is written after each epoch and from which an interrupted run goes on.

    Returns
    -------
    list of dict
        One an epoch: ``epoch``, ``attempt`` (0, 1, ..), ``learning_rate``, ``state`` (see
        `cnnsvm.localization.collapse.state_of`, or "diverged"), ``train_loss`` and, of the
        validation images, ``valid_loss``, ``valid_iou``, ``valid_called`` (share of pixels),
        ``valid_threshold`` and ``valid_auc``, pooled over their pixels. An epoch that diverged
        lacks what it did not reach.

    Raises
    ------
    DivergedError
        If no epoch of any attempt ended with a finite loss.
    """
    trainer = Trainer(network, pairs, fit, valid, training)
    trainer.resume(checkpoint)
    hidden = not (sys.stderr.isatty() and training.processes.is_first)
    first = len(trainer.history)
    progress = tqdm(total=training.epochs, desc="training", initial=first, disable=hidden)
    while len(trainer.history) < training.epochs and _goes_on(trainer):
        entry = trainer.run_epoch()
        trainer.remember(entry)
        trainer.save(checkpoint)
        progress.update()
        progress.set_postfix({key: f"{entry[key]:.3f}" for key in entry if "valid" in key})
        logger.info("training: %s", epoch_line(entry, training.epochs))
    progress.close()
    if best_epoch(trainer.history) is None:
        n_attempts = trainer.attempt + 1
        raise DivergedError(
            f"training diverged in each of {n_attempts} attempt(s), the last one at a rate of "
            f"{training.learning_rate * RATE_FACTOR**trainer.attempt:g}. Lower learning_rate "
            f"(now {training.learning_rate:g}) or use precision='float32'."
        )
    network.load_state_dict(trainer.best_weights)
    network.cpu().eval().requires_grad_(False)
    return trainer.history


def warn_of_collapse(history: list[Entry], patience: int) -> None:
    """Warn of a training whose best weights are of no use, or that ended in a collapse.

    Such weights are kept, as a study of hard cases wants their numbers; nobody should take them
    for a working localiser.
    """
    best = best_epoch(history)
    if best is None:
        return
    kept, n_attempts = history[best], history[-1]["attempt"] + 1
    remedy = "Lower learning_rate, take another loss, or train on more images or epochs."
    if kept["state"] != LEARNING:
        warnings.warn(
            f"the localiser is of no use: after {n_attempts} attempt(s) its best epoch ({best}, "
            f"state {kept['state']!r}) has a validation IoU of {kept['valid_iou']:.3f}, not "
            f"clearly above that of calling every pixel repainted. {remedy}",
            ConvergenceWarning,
            stacklevel=4,  # where fit was called
        )
    elif what := failure(history, history[-1]["attempt"], patience):
        iou = f" (IoU {kept['valid_iou']:.3f})" if "valid_iou" in kept else ""
        warnings.warn(
            f"the last of {n_attempts} attempt(s) {what}; the weights of epoch {best}{iou} are "
            f"kept. {remedy}",
            ConvergenceWarning,
            stacklevel=4,
        )


def _goes_on(trainer: Trainer) -> bool:
    """Say whether there is another epoch; begin another attempt where the last one failed."""
    training, attempt = trainer.training, trainer.attempt
    what = failure(trainer.history, attempt, training.patience)
    if what is None:
        return not patience_is_over(trainer.history, attempt, training.patience)
    if attempt >= training.max_restarts:
        return False
    trainer.restart()
    logger.warning(
        "attempt %d %s after epoch %d; restarted at %g of its learning rate",
        attempt,
        what,
        len(trainer.history) - 1,
        RATE_FACTOR,
    )
    return True
