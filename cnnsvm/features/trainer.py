"""The training loop of one fine-tuning run and what it must remember to go on."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from cnnsvm.features.augmentation import Augmentation
from cnnsvm.features.auxiliary_labels import AuxiliaryLabels, collapse
from cnnsvm.features.backbones import Backbone, embedding_dim
from cnnsvm.features.devices import autocast
from cnnsvm.features.loading import (
    MEMORY,
    Decoded,
    Draw,
    DrawnCrops,
    FixedCrops,
    iterate_crops,
    paired_draws,
)
from cnnsvm.io.files import replacing

logger = logging.getLogger(__name__)


def epoch_line(entry: Mapping[str, Any], epochs: int) -> str:
    """Say in one line what an epoch brought, as in "epoch 3 of 20, train_loss 0.031".

    Parameters
    ----------
    entry : mapping
        ``epoch``, counted from 0, and numbers or words about it.
    epochs : int
        How many there are at most.
    """
    said = [f"epoch {entry['epoch'] + 1} of {epochs}"]
    for name, value in entry.items():
        if name != "epoch":
            said.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(said)


class DivergedError(ArithmeticError, ValueError):
    """Training whose loss became NaN or infinite."""


@dataclass(frozen=True)
class Training:
    """How to fine-tune.

    Parameters
    ----------
    mode : {"head", "full"}
        "head" freezes the body and trains the projection on top of it, whose output is the
        embedding, and the branch of the statistics (see
        `cnnsvm.features.backbones.build_backbone`); "full" trains everything.
    epochs, patience : int
        Most epochs, and epochs without a better validation loss before stopping.
    learning_rate, weight_decay : float
        Peak rate of the one-cycle schedule (Smith & Topin 2019) and decay of AdamW (Loshchilov &
        Hutter 2019).
    batch_size, crop_size, n_crops : int
        Crops a step, their side in pixels, and crops of each validation image.
    mirror : bool
        Whether validation takes the mirror images of these crops too.
    validation_fraction : float in (0, 0.5]
        Share of the sources kept for early stopping.
    augmentation : Augmentation
    pairs : int or None
        Crops of each class that a source gives in an epoch, at most; None takes every image.
    random_state, n_jobs : int
        Seed, and processes that decode images (0: this one).
    device, dtype : torch.device, torch.dtype
        Where, and in which precision the forward pass runs.
    """

    mode: str
    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    patience: int
    crop_size: int
    n_crops: int
    validation_fraction: float
    augmentation: Augmentation
    random_state: int
    n_jobs: int
    device: torch.device
    dtype: torch.dtype
    pairs: int | None = None
    mirror: bool = False


def best_epoch(history: Sequence[dict[str, float]]) -> int | None:
    """Find the epoch whose weights were kept: the lowest validation loss, else the last."""
    if not history:
        return None
    if "valid_loss" not in history[-1]:
        return int(history[-1]["epoch"])
    return int(min(history, key=lambda entry: entry["valid_loss"])["epoch"])


class Trainer:
    """One fine-tuning run: model, optimiser, schedule, and the best weights so far.

    Parameters
    ----------
    network : Backbone
        Trained in place.
    images : sequence of image inputs
    codes, groups : ndarray of int, shape (n_samples,)
        Class and group of each image.
    fit, valid : ndarray of int
        Which images train, and which tell when to stop (may be none).
    training : Training
    auxiliary : AuxiliaryLabels or None
        What is trained on instead of the classes; validation asks for these all the same.
    """

    def __init__(
        self,
        network: Backbone,
        images: Sequence[Any],
        codes: np.ndarray,
        groups: np.ndarray,
        fit: np.ndarray,
        valid: np.ndarray,
        training: Training,
        auxiliary: AuxiliaryLabels | None = None,
    ) -> None:
        # worker processes start anew each epoch: what they keep would only cost memory
        self.images = Decoded(images, 0 if training.n_jobs else MEMORY)
        self.codes, self.groups = codes, groups
        self.fit, self.valid = fit, valid
        self.valid_images = self.images.part(valid)
        self.training = training
        self.n_classes = int(codes.max()) + 1
        self.targets = codes if auxiliary is None else auxiliary.codes
        network.parents = None if auxiliary is None else auxiliary.parents
        self.class_of = torch.tensor(network.parents or range(self.n_classes))
        self.class_of = self.class_of.to(training.device)
        _prepare(network, training, len(self.class_of))
        self.model = network.to(training.device)
        rate = training.learning_rate
        self.optimiser = torch.optim.AdamW(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=rate,
            weight_decay=training.weight_decay,
        )
        n_steps = training.epochs * -(-len(self._draws(0)) // training.batch_size)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR
        self.schedule = one_cycle(self.optimiser, rate, total_steps=n_steps + 1)
        self.scaler = torch.amp.GradScaler(enabled=training.dtype == torch.float16)
        self.history: list[dict[str, float]] = []
        self.best_weights: dict[str, torch.Tensor] = {}

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train on one epoch of crops and return its entry of the history."""
        self._training_mode()
        draws, rate = self._draws(epoch), float(self.schedule.get_last_lr()[0])
        weight = self._weights(self.targets[[draw.index for draw in draws]], len(self.class_of))
        device = self.training.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self.training.random_state + epoch)  # dropout, stochastic depth
            steps = [self._step(crops, targets, weight) for crops, targets in self._batches(draws)]
        loss = float(np.mean([value for value, _ in steps]))
        share = float(np.concatenate([right for _, right in steps]).mean())
        entry = {"epoch": epoch, "learning_rate": rate}
        return entry | {"train_loss": loss, "train_accuracy": share}

    def validate(self) -> dict[str, float]:
        """Judge the validation images by their pooled crops; return loss, accuracy, ROC AUC."""
        self.model.eval()
        training, pooled = self.training, []
        seen = (training.crop_size, training.n_crops, training.mirror)
        dataset = FixedCrops(self.valid_images, *seen)
        with torch.inference_mode():
            for counts, crops in iterate_crops(dataset, training.batch_size, training.n_jobs):
                pooled += [part.mean(dim=0) for part in self._logits(crops).split(counts)]
        targets = torch.from_numpy(self.codes[self.valid]).to(training.device)
        weight = self._weights(self.codes[self.valid], self.n_classes)
        logits = self._of_classes(torch.stack(pooled))
        loss = nn.functional.cross_entropy(logits, targets, weight=weight)
        metrics = {"valid_loss": finite_loss(loss.item(), self.training)}
        metrics["valid_accuracy"] = (logits.argmax(1) == targets).double().mean().item()
        if len(targets.unique()) == self.n_classes:
            metrics["valid_auc"] = class_auc(targets.cpu().numpy(), logits.softmax(1).cpu().numpy())
        return metrics

    def patience_is_over(self) -> bool:
        """Say whether the last ``patience`` epochs brought no better one."""
        best = best_epoch(self.history)
        return best is not None and len(self.history) - 1 - best >= self.training.patience

    def remember(self, entry: dict[str, float]) -> None:
        """Add an epoch to the history and keep its weights if it is the best."""
        self.history.append(entry)
        if best_epoch(self.history) == entry["epoch"]:
            self.best_weights = copy.deepcopy(self.model.state_dict())

    def restore_best(self) -> None:
        """Put the weights of the best epoch back."""
        self.model.load_state_dict(self.best_weights)

    def save(self, checkpoint: Path | None) -> None:
        """Write all that `resume` needs, in one step."""
        if checkpoint is None:
            return
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {"history": self.history, "best_weights": self.best_weights}
        with replacing(checkpoint) as partial:
            torch.save(content, partial)

    def resume(self, checkpoint: Path | None) -> None:
        """Go on where a checkpoint was written, if there is one."""
        if checkpoint is None or not checkpoint.is_file():
            return
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.history, self.best_weights = content["history"], content["best_weights"]
        logger.info("fine-tuning goes on after epoch %d", len(self.history) - 1)

    def _parts(self) -> dict[str, Any]:
        parts = (self.model, self.optimiser, self.schedule, self.scaler)
        return dict(zip(("model", "optimiser", "schedule", "scaler"), parts, strict=True))

    def _draws(self, epoch: int) -> list[Draw]:
        seed = self.training.random_state
        draws = paired_draws(
            self.codes[self.fit], self.groups[self.fit], seed, epoch, self.training.pairs
        )
        return [Draw(int(self.fit[d.index]), d.plan_seed) for d in draws]

    def _batches(self, draws: list[Draw]) -> DataLoader:
        training = self.training
        dataset = DrawnCrops(
            self.images, self.targets, draws, training.crop_size, training.augmentation
        )
        alone = len(draws) % training.batch_size == 1  # batch norm cannot use a single crop
        return DataLoader(
            dataset, training.batch_size, num_workers=training.n_jobs, drop_last=alone
        )

    def _step(
        self, crops: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor
    ) -> tuple[float, np.ndarray]:
        """Take one step and return the loss, and of each crop whether it was told right."""
        self.optimiser.zero_grad(set_to_none=True)
        targets = targets.to(self.training.device)
        logits = self._logits(crops)
        loss = nn.functional.cross_entropy(logits, targets, weight=weight)
        value = finite_loss(loss.item(), self.training)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        is_right = self._of_classes(logits).argmax(1) == self.class_of[targets]
        return value, is_right.cpu().numpy()

    def _logits(self, crops: torch.Tensor) -> torch.Tensor:
        with autocast(self.training.device, self.training.dtype):
            return self.model.logits(crops.to(self.training.device, non_blocking=True)).float()

    def _training_mode(self) -> None:
        self.model.train()
        if self.model.branch is not None:
            self.model.branch.eval()
        if self.training.mode == "head" and self.model.body is not None:
            self.model.body.eval()  # frozen: its batch statistics stay as they are

    def _of_classes(self, logits: torch.Tensor) -> torch.Tensor:
        return collapse(logits, self.model.parents)

    def _weights(self, codes: np.ndarray, n_classes: int) -> torch.Tensor:
        return class_weights(codes, n_classes).to(self.training.device)


def class_weights(codes: np.ndarray, n_classes: int) -> torch.Tensor:
    """Weigh classes so that each counts the same, float32 (n_classes,), 1 on average over rows."""
    counts = np.bincount(codes, minlength=n_classes).clip(min=1)
    return torch.tensor(len(codes) / (n_classes * counts), dtype=torch.float32)


def finite_loss(loss: float, training: Training) -> float:
    """Return a loss, or raise `DivergedError` if it is not finite."""
    if not np.isfinite(loss):
        raise DivergedError(
            f"fine-tuning diverged: the loss is {loss}. Lower learning_rate "
            f"(now {training.learning_rate:g}) or use precision='float32'."
        )
    return loss


def _prepare(network: Backbone, training: Training, n_classes: int) -> None:
    """Give a network a new classifier and say which of its parameters learn."""
    beside = sum(member.width for member in network.members)
    dim = embedding_dim(network, training.crop_size) - beside
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.random_state)
        network.classifier = nn.Linear(dim, n_classes)
    network.requires_grad_(True)
    if network.body is not None:
        network.body.requires_grad_(training.mode == "full")
    network.ensemble.requires_grad_(False)
    if network.branch is not None:
        network.branch.requires_grad_(False)  # learnt before, see `cnnsvm.features.branch`


def class_auc(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the ROC AUC of class probabilities (n, n_classes), one-vs-rest if more than two."""
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    return float(roc_auc_score(targets, scores, multi_class="ovr"))
