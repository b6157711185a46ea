"""The training of a localiser, epoch by epoch, and what it must remember to go on."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from cnnsvm.features.augmentation import Augmentation, weaken
from cnnsvm.features.devices import autocast
from cnnsvm.features.trainer import DivergedError
from cnnsvm.io.files import replacing
from cnnsvm.localization.collapse import DIVERGED, LEARNING, Entry, best_epoch, state_of
from cnnsvm.localization.losses import LOSSES
from cnnsvm.localization.patches import DrawnPatches, FixedPatches, Pairs, draw_patches
from cnnsvm.localization.pixel_scores import EDGES, edges_with, histogram_scores, pixel_histogram
from cnnsvm.localization.processes import Processes

logger = logging.getLogger(__name__)

OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
#: By how much the learning rate of one attempt is below that of the one before.
RATE_FACTOR = 0.2

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Training:
    """How to train a localiser.

    Parameters
    ----------
    loss : str
        A key of `cnnsvm.localization.losses.LOSSES`.
    optimizer : {"adamw", "adam"}
        The weight decay of "adam" is part of the gradient (Kingma & Ba 2015), that of "adamw"
        is not (Loshchilov & Hutter 2019).
    learning_rate, weight_decay : float
        Peak rate of the one-cycle schedule (Smith & Topin 2019), and decay.
    epochs, patience : int
        Most epochs, and epochs without a better validation IoU before stopping.
    max_restarts : int
        How often a training that collapsed begins again with a lower rate.
    batch_size, crop_size, n_crops : int
        Patches a step (over all processes), their side in pixels, and patches of each
        validation image at most.
    crops_per_image : int
        Patches that a training image gives in an epoch.
    balance : float in [0, 1]
        See `cnnsvm.localization.patches.choose_place`.
    augmentation : Augmentation
    warmup : float in [0, 1]
        Share of an attempt's epochs over which the degradations of the augmentation grow from
        never to as often as it says. Epochs before that are kept only if no other is of use.
    threshold : float in (0, 1) or "iou"
        Where the validation calls a pixel repainted; "iou" is wherever its IoU is the highest.
    random_state, n_jobs : int
        Seed, and processes that decode images (0: this one).
    device, dtype : torch.device, torch.dtype
        Where, and in which precision the forward pass runs.
    processes : Processes
        Those that train together.
    """

    loss: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    patience: int
    max_restarts: int
    batch_size: int
    crop_size: int
    n_crops: int
    crops_per_image: int
    balance: float
    augmentation: Augmentation
    warmup: float
    threshold: float | str
    random_state: int
    n_jobs: int
    device: torch.device
    dtype: torch.dtype
    processes: Processes


class Trainer:
    """One training run: network, optimiser, schedule, history, and the best weights so far.

    Parameters
    ----------
    network : nn.Module
        From uint8 (N, 3, H, W) to logits (N, 1, H, W).
    pairs : Pairs
    fit, valid : ndarray of int
        Which images train, and which tell when to stop (may be none).
    training : Training
    """

    def __init__(
        self,
        network: nn.Module,
        pairs: Pairs,
        fit: np.ndarray,
        valid: np.ndarray,
        training: Training,
    ) -> None:
        self.pairs, self.fit, self.valid, self.training = pairs, fit, valid, training
        self.model, self.network = training.processes.wrap(network, training.device)
        self.loss = LOSSES[training.loss]
        self.initial_weights = _weights_of(self.network)
        self.history: list[Entry] = []
        self.best_weights: Weights = {}
        self._begin(attempt=0, first_epoch=0)

    def run_epoch(self) -> Entry:
        """Train and validate for one epoch and return its entry of the history."""
        entry: Entry = {
            "epoch": len(self.history),
            "attempt": self.attempt,
            "learning_rate": float(self.schedule.get_last_lr()[0]),
            "state": LEARNING,
        }
        if self.share_of(entry["epoch"]) < 1:
            entry["degradations"] = self.share_of(entry["epoch"])
        try:
            entry["train_loss"] = self._train(entry["epoch"])
            return entry | (self._validate() if len(self.valid) else {})
        except DivergedError as error:
            logger.warning("epoch %d: %s", entry["epoch"], error)
            return entry | {"state": DIVERGED}

    def share_of(self, epoch: int) -> float:
        """Say how often an epoch degrades patches, as a share of how often the last one does."""
        training = self.training
        warm = training.warmup * (training.epochs - self.first_epoch)
        degrades = weaken(training.augmentation, 0.0) != training.augmentation
        return min(1.0, (epoch - self.first_epoch) / warm) if warm > 0 and degrades else 1.0

    def remember(self, entry: Entry) -> None:
        """Add an epoch to the history and keep its weights if it is the best."""
        self.history.append(entry)
        if best_epoch(self.history) == entry["epoch"]:
            self.best_weights = _weights_of(self.network)

    def restart(self) -> None:
        """Begin another attempt with the best weights, or the first ones, and a lower rate.

        The best weights are worth keeping only if they were of some use.
        """
        best = best_epoch(self.history)
        is_useful = best is not None and self.history[best]["state"] == LEARNING
        self.network.load_state_dict(self.best_weights if is_useful else self.initial_weights)
        self._begin(self.attempt + 1, len(self.history))

    def save(self, checkpoint: Path | None) -> None:
        """Write all that `resume` needs, in one step; the first process does."""
        if checkpoint is None or not self.training.processes.is_first:
            return
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {"attempt": self.attempt, "first_epoch": self.first_epoch}
        content |= {"history": self.history, "best_weights": self.best_weights}
        with replacing(checkpoint) as partial:
            torch.save(content, partial)

    def resume(self, checkpoint: Path | None) -> None:
        """Go on where a checkpoint was written, if there is one."""
        if checkpoint is None or not checkpoint.is_file():
            return
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self._begin(content["attempt"], content["first_epoch"])
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.history, self.best_weights = content["history"], content["best_weights"]
        logger.info("training goes on after epoch %d", len(self.history) - 1)

    def _begin(self, attempt: int, first_epoch: int) -> None:
        """Make optimiser and schedule for the epochs that are left."""
        training = self.training
        self.attempt, self.first_epoch = attempt, first_epoch
        rate = training.learning_rate * RATE_FACTOR**attempt
        self.optimiser = OPTIMIZERS[training.optimizer](
            self.network.parameters(), lr=rate, weight_decay=training.weight_decay
        )
        per_epoch = -(-len(self.fit) * training.crops_per_image // training.batch_size)
        n_steps = max(1, training.epochs - first_epoch) * per_epoch
        one_cycle = torch.optim.lr_scheduler.OneCycleLR
        self.schedule = one_cycle(self.optimiser, rate, total_steps=n_steps + 1)
        self.scaler = torch.amp.GradScaler(enabled=training.dtype == torch.float16)

    def _train(self, epoch: int) -> float:
        """Take the steps of one epoch and return their mean loss."""
        self.model.train()
        training, device = self.training, self.training.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # dropout, not the same in every process
            torch.manual_seed(training.random_state + epoch + 1000 * training.processes.rank)
            losses = [self._step(crops, targets) for crops, targets in self._batches(epoch)]
        return float(np.mean(losses))

    def _batches(self, epoch: int) -> DataLoader:
        """Read this process's part of each batch."""
        training = self.training
        draws = draw_patches(
            self.fit, training.crops_per_image, training.batch_size, training.random_state, epoch
        )
        own = training.processes.share(draws)
        augmentation = weaken(training.augmentation, self.share_of(epoch))
        patches = DrawnPatches(self.pairs, own, training.crop_size, augmentation, training.balance)
        size = training.batch_size // training.processes.count
        return DataLoader(patches, size, num_workers=training.n_jobs)

    def _step(self, crops: torch.Tensor, targets: torch.Tensor) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._loss(self._logits(self.model, crops), targets)
        value = self._mean_loss(loss.detach().clone(), self.training.processes.count)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        return value

    def _validate(self) -> Entry:
        """Judge the validation images, each process its part of them."""
        training, processes = self.training, self.training.processes
        processes.spread(self.network)
        self.network.eval()
        chosen = training.threshold == "iou"
        edges = EDGES if chosen else edges_with(float(training.threshold))
        counts = torch.zeros((2, len(edges) + 1), dtype=torch.int64)
        loss = torch.zeros((), dtype=torch.float64)
        with torch.inference_mode():
            for crops, targets in self._fixed_batches():
                logits = self._logits(self.network, crops)
                loss += len(crops) * self._loss(logits, targets).cpu()
                maps = torch.sigmoid(logits[:, 0]).cpu().numpy()
                if np.isfinite(maps).all():  # else the loss tells
                    counts += torch.from_numpy(pixel_histogram(targets.numpy(), maps, edges))
        counts = processes.total(counts.to(training.device)).cpu()
        n_crops = int(counts.sum()) // training.crop_size**2
        entry: Entry = {"valid_loss": self._mean_loss(loss.to(training.device), n_crops)}
        return entry | _judge(counts.numpy(), edges, training.threshold)

    def _fixed_batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        training = self.training
        own = training.processes.share(self.valid.tolist())
        patches = FixedPatches(self.pairs, own, training.crop_size, training.n_crops)
        n_images = max(1, training.batch_size // training.n_crops)
        for items in DataLoader(patches, n_images, num_workers=training.n_jobs, collate_fn=list):
            crops, targets = zip(*items, strict=True)
            yield torch.cat(crops), torch.cat(targets)

    def _logits(self, network: nn.Module, crops: torch.Tensor) -> torch.Tensor:
        with autocast(self.training.device, self.training.dtype):
            return network(crops.to(self.training.device, non_blocking=True)).float()

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, targets.to(logits.device).float()[:, None])

    def _mean_loss(self, total: torch.Tensor, n: int) -> float:
        """Divide a sum of losses, the same for all processes; raise if it is not finite.

        They must find out together: one that stops alone leaves the others waiting.
        """
        processes = self.training.processes
        value = processes.total(total).item() / max(1, n)
        if not np.isfinite(value):
            raise DivergedError(
                f"training diverged: the loss is {value}. Lower learning_rate (now "
                f"{self.training.learning_rate:g}) or use precision='float32'."
            )
        return value

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "scaler": self.scaler,
        }


def _weights_of(network: nn.Module) -> Weights:
    """Copy a network's parameters and statistics to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _judge(counts: np.ndarray, edges: np.ndarray, threshold: float | str) -> Entry:
    """Turn the counts of the validation pixels into an entry of the history."""
    at = 0.5 if threshold == "iou" else float(threshold)
    if threshold == "iou" and counts[1].any():
        at = float(histogram_scores(counts, edges)["best_threshold"])
    scores = histogram_scores(counts, edges, at)
    iou, called = float(scores["iou"]), float(scores["called"])
    state = state_of(iou, called, counts[1].sum() / counts.sum())
    found = {"valid_iou": iou, "valid_called": called, "valid_threshold": at, "state": state}
    auc = float(scores["auc"])
    return found | ({"valid_auc": auc} if np.isfinite(auc) else {})
