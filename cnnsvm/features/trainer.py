"""The training loop of all networks: epochs, schedule, best weights, early stopping, resuming."""

import contextlib
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from cnnsvm.features.augmentation import Augmentation
from cnnsvm.features.devices import Processes, autocast
from cnnsvm.io.callbacks import Callback
from cnnsvm.io.files import replacing

logger = logging.getLogger(__name__)

OPTIMIZERS: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
#: Learning rate of a restarted attempt as a part of the one before.
RATE_FACTOR = 0.2

#: What the history holds of one epoch.
Entry = dict[str, Any]


class DivergedError(ArithmeticError, ValueError):
    """Training whose loss became NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training needs.

    ``epochs`` are the most, ``patience`` those without improvement on the validation images before
    it stops; ``learning_rate`` is the peak of the one-cycle schedule (Smith & Topin 2019). The
    weight decay of the optimizer "adam" is part of the gradient (Kingma & Ba 2015), that of "adamw"
    is not (Loshchilov & Hutter 2019). ``batch_size`` crops, over all processes, are a step;
    ``n_crops`` is how many of each validation image, ``crop_size`` their side. ``n_jobs`` processes
    decode images (0: this one). ``callbacks`` are told of each epoch.
    """

    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    crop_size: int
    n_crops: int | None
    augmentation: Augmentation
    random_state: int
    n_jobs: int
    device: torch.device
    dtype: torch.dtype
    optimizer: str = "adamw"
    callbacks: tuple[Callback, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Training(TrainingOptions):
    """How to train a network that classifies crops.

    ``mode`` "head" freezes the body and trains the projection on top of it, whose output is the
    embedding; "full" trains everything. Early stopping watches ``validation_fraction``, in (0,
    0.5], of the sources, with ``mirror`` the mirror images of their crops too. ``pairs`` is how
    many crops of each class a source gives in an epoch at most; None takes every image.
    """

    mode: str
    validation_fraction: float
    mirror: bool = False
    pairs: int | None = None


def best_epoch(history: Sequence[Entry]) -> int | None:
    """Find the epoch whose weights are kept: the lowest validation loss, else the last."""
    if not history:
        return None
    if "valid_loss" not in history[-1]:
        return int(history[-1]["epoch"])
    return int(min(history, key=lambda entry: entry["valid_loss"])["epoch"])


class Trainer(ABC):
    """One training run: a network, its optimiser and schedule, the history and the best weights.

    A subclass defines the batches of an epoch, the loss of one and the validation. `run` trains
    to the end and resumes an interrupted run. The parameters of the network that require a gradient
    are trained in place.
    """

    #: What the progress bar and the log call it.
    name = "training"

    def __init__(
        self, network: nn.Module, training: TrainingOptions, processes: Processes | None = None
    ) -> None:
        self.options, self.epochs = training, training.epochs
        self.device, self.dtype = training.device, training.dtype
        self.processes = processes or Processes()
        self.network = network.to(training.device)
        self.model = self.processes.wrap(self.network, self.entry)
        self.history: list[Entry] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self.begin(attempt=0, first_epoch=0)

    def entry(self, network: nn.Module) -> nn.Module:
        """Return the module whose ``forward`` several processes call in training."""
        return network

    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Return the number of batches of an epoch, for the schedule."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterable[Sequence[torch.Tensor]]:
        """Iterate over this process's batches of an epoch."""

    @abstractmethod
    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch in training."""

    @abstractmethod
    def validate(self) -> Entry:
        """Return the metrics of the validation images; empty without any."""

    def best(self) -> int | None:
        """Return the epoch whose weights are kept, None if there is none."""
        return best_epoch(self.history)

    def goes_on(self) -> bool:
        """Return whether to train another epoch; False if patience is over."""
        best = self.best()
        return best is None or len(self.history) - 1 - best < self.options.patience

    def train_mode(self) -> None:
        """Set the layers to training mode."""
        self.model.train()

    def run(self, checkpoint: Path | None = None) -> list[Entry]:
        """Train, put the weights of the best epoch back, and return the history.

        The checkpoint is written after each epoch, and an interrupted run resumes from it. The
        network ends on the CPU, in evaluation mode and without gradients.

        Raises
        ------
        DivergedError
            If the loss is no longer finite.
        """
        self.resume(checkpoint)
        hidden = not (sys.stderr.isatty() and self.processes.is_first)
        first = len(self.history)
        with tqdm(total=self.epochs, desc=self.name, initial=first, disable=hidden) as progress:
            while len(self.history) < self.epochs and self.goes_on():
                entry = self.run_epoch()
                self.remember(entry)
                self.save(checkpoint)
                for callback in self.options.callbacks if self.processes.is_first else ():
                    callback.on_epoch_end(entry, entry["epoch"])
                progress.update()
                shown = {k: f"{v:.3f}" for k, v in entry.items() if k.endswith(("loss", "iou"))}
                progress.set_postfix(shown)
                if self.processes.is_first:
                    logger.info("%s: %s", self.name, epoch_line(entry, self.epochs))
        self.finish()
        return self.history

    def run_epoch(self) -> Entry:
        """Train and validate for one epoch and return its entry of the history."""
        epoch = len(self.history)
        entry: Entry = {"epoch": epoch, "learning_rate": float(self.schedule.get_last_lr()[0])}
        with self.seeded(epoch):
            entry |= self.train_epoch(epoch)
            return entry | self.validate()

    def train_epoch(self, epoch: int) -> Entry:
        """Take the steps of an epoch and return their mean loss."""
        self.train_mode()
        losses = [self._step(batch) for batch in self.batches(epoch)]
        return {"train_loss": float(np.mean(losses))}

    @contextlib.contextmanager
    def seeded(self, epoch: int) -> Iterator[None]:
        """Seed dropout and the like, differently in every process; undo that afterwards."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.options.random_state + epoch + 1000 * self.processes.rank)
            yield

    def logits(
        self, network: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor
    ) -> torch.Tensor:
        """Run a forward pass in the chosen precision and return float32."""
        with autocast(self.device, self.dtype):
            return network(inputs.to(self.device, non_blocking=True)).float()

    def mean_loss(self, total: torch.Tensor, n: int) -> float:
        """Divide a sum of losses over all processes.

        A DivergedError is raised if it is not finite, in all processes alike: one that stops alone
        leaves the others waiting.
        """
        value = self.processes.total(total.detach().clone()).item() / max(1, n)
        if not np.isfinite(value):
            raise DivergedError(
                f"training diverged: the loss is {value}. Lower learning_rate (now "
                f"{self.options.learning_rate:g}) or use precision='float32'."
            )
        return value

    def class_metrics(self, logits: torch.Tensor, codes: np.ndarray, weight: torch.Tensor) -> Entry:
        """Return the weighted loss of logits (n, n_classes), and their ROC AUC.

        The AUC is one-vs-rest of more than two classes, and left out if one of them is missing.
        """
        targets = torch.from_numpy(codes).to(logits.device)
        weight = weight.to(logits.device)
        loss = nn.functional.cross_entropy(logits, targets, weight=weight)
        metrics = {"valid_loss": self.mean_loss(loss, self.processes.count)}
        if len(np.unique(codes)) == logits.shape[1]:
            from sklearn.metrics import roc_auc_score  # half a second

            proba = logits.softmax(1).cpu().numpy()
            scores = proba[:, 1] if proba.shape[1] == 2 else proba
            metrics["valid_auc"] = float(roc_auc_score(codes, scores, multi_class="ovr"))
        return metrics

    def begin(self, attempt: int, first_epoch: int) -> None:
        """Make optimiser and schedule for the epochs that are left."""
        self.attempt, self.first_epoch = attempt, first_epoch
        rate = self.options.learning_rate * RATE_FACTOR**attempt
        self.optimiser = OPTIMIZERS[self.options.optimizer](
            [p for p in self.network.parameters() if p.requires_grad],
            lr=rate,
            weight_decay=self.options.weight_decay,
        )
        n_steps = max(1, self.epochs - first_epoch) * self.steps_per_epoch()
        one_cycle = torch.optim.lr_scheduler.OneCycleLR
        self.schedule = one_cycle(self.optimiser, rate, total_steps=n_steps + 1)
        self.scaler = torch.amp.GradScaler(enabled=self.dtype == torch.float16)

    def remember(self, entry: Entry) -> None:
        """Add an epoch to the history and keep its weights if it is the best."""
        self.history.append(entry)
        if self.best() == entry["epoch"]:
            self.best_weights = weights_of(self.network)

    def finish(self) -> None:
        """Leave the network with the weights of the best epoch, ready for inference."""
        self.network.load_state_dict(self.best_weights)
        self.network.cpu().eval().requires_grad_(False)

    def save(self, checkpoint: Path | None) -> None:
        """Write all that `resume` needs, in one step; the first process does."""
        if checkpoint is None or not self.processes.is_first:
            return
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {"attempt": self.attempt, "first_epoch": self.first_epoch}
        content |= {"history": self.history, "best_weights": self.best_weights}
        with replacing(checkpoint) as partial:
            torch.save(content, partial)

    def resume(self, checkpoint: Path | None) -> None:
        """Go on where a checkpoint was written, if there is one: all where the first process is."""
        content = None
        if self.processes.is_first and checkpoint is not None and checkpoint.is_file():
            try:
                content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            except (RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as error:
                logger.warning("%s is damaged, training starts over: %s", checkpoint, error)
        content = self.processes.from_first(content)
        if content is None:
            return
        self.begin(content["attempt"], content["first_epoch"])
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.history, self.best_weights = content["history"], content["best_weights"]
        logger.info("%s resumes after epoch %d", self.name, len(self.history) - 1)

    def _parts(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("network", "optimiser", "schedule", "scaler")}

    def _step(self, batch: Sequence[torch.Tensor]) -> float:
        """Take one step and return the loss, the mean over the processes."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(*batch)
        value = self.mean_loss(loss, self.processes.count)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        return value


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a network's parameters and statistics to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def class_weights(codes: np.ndarray, n_classes: int) -> torch.Tensor:
    """Weigh classes so that each counts the same, float32 (n_classes,), 1 on average over rows."""
    counts = np.bincount(codes, minlength=n_classes).clip(min=1)
    return torch.tensor(len(codes) / (n_classes * counts), dtype=torch.float32)


def epoch_line(entry: Mapping[str, Any], epochs: int) -> str:
    """Describe an epoch, counted from 0, in one line: "epoch 3 of 20, train_loss 0.031"."""
    parts = [f"epoch {entry['epoch'] + 1} of {epochs}"]
    for name, value in entry.items():
        if name != "epoch":
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)
