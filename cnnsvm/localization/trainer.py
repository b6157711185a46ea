"""The training of a localiser, with restarts after a collapse."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn
from torch.utils.data import DataLoader

from cnnsvm.features.augmentation import weaken
from cnnsvm.features.devices import Processes
from cnnsvm.features.trainer import (
    RATE_FACTOR,
    DivergedError,
    Entry,
    Trainer,
    TrainingOptions,
    weights_of,
)
from cnnsvm.localization.collapse import (
    DIVERGED,
    LEARNING,
    best_epoch,
    failure,
    patience_is_over,
    state_of,
)
from cnnsvm.localization.patches import DrawnPatches, FixedPatches, Pairs, draw_patches
from cnnsvm.localization.pixel_scores import EDGES, edges_with, histogram_scores, pixel_histogram
from cnnsvm.localization.training import LOSSES, LocalizerTraining

logger = logging.getLogger(__name__)


class LocalizerTrainer(Trainer):
    """The training of a localiser's network, from uint8 (N, 3, H, W) to logits (N, 1, H, W).

    An attempt that collapsed or diverged (see `cnnsvm.localization.collapse.failure`) is followed
    by one with a lower rate, which begins with the best weights so far or, if none were of use,
    with the first ones; ``max_restarts`` times, and within the same number of epochs in all.

    An entry of the history has ``epoch``, ``attempt`` (0, 1, ..), ``learning_rate``, ``state`` (see
    `cnnsvm.localization.collapse.state_of`, or "diverged"), ``train_loss`` and, of the validation
    images, ``valid_loss``, ``valid_iou``, ``valid_called`` (share of pixels), ``valid_threshold``
    and ``valid_auc``, pooled over their pixels. An epoch that diverged lacks what it did not reach.

    ``fit`` and ``valid`` are the indices of the pairs that train and that early stopping watches
    (may be none). Of ``settings`` loss, restarts, patches and warm-up hold; the rest is in
    ``options``. ``threshold`` is where validation calls a pixel repainted, "iou" wherever its IoU
    is the highest; ``processes`` are those that train together.
    """

    def __init__(
        self,
        network: nn.Module,
        pairs: Pairs,
        fit: np.ndarray,
        valid: np.ndarray,
        options: TrainingOptions,
        settings: LocalizerTraining,
        threshold: float | str = 0.5,
        processes: Processes | None = None,
    ) -> None:
        self.pairs, self.fit, self.valid = pairs, fit, valid
        self.settings, self.threshold = settings, threshold
        self.criterion = LOSSES[settings.loss]
        self.initial_weights = weights_of(network)
        super().__init__(network, options, processes)

    def best(self) -> int | None:
        """Return the epoch whose weights are kept, None if every one diverged."""
        return best_epoch(self.history)

    def goes_on(self) -> bool:
        """Return whether to train another epoch; begin another attempt if the last one failed."""
        what = failure(self.history, self.attempt, self.options.patience)
        if what is None:
            return not patience_is_over(self.history, self.attempt, self.options.patience)
        if self.attempt >= self.settings.max_restarts:
            return False
        logger.warning(
            "attempt %d %s after epoch %d; restarted at %g of its learning rate",
            *(self.attempt, what, len(self.history) - 1, RATE_FACTOR),
        )
        self.restart()
        return True

    def restart(self) -> None:
        """Begin another attempt with the best weights if they were of use, else the first ones."""
        best = self.best()
        is_useful = best is not None and self.history[best]["state"] == LEARNING
        self.network.load_state_dict(self.best_weights if is_useful else self.initial_weights)
        self.begin(self.attempt + 1, len(self.history))

    def run_epoch(self) -> Entry:
        """Train and validate for one epoch and return its entry of the history."""
        entry: Entry = {
            "epoch": len(self.history),
            "attempt": self.attempt,
            "learning_rate": float(self.schedule.get_last_lr()[0]),
            "state": LEARNING,
        }
        if (share := self.degradations(entry["epoch"])) < 1:
            entry["degradations"] = share
        try:
            with self.seeded(entry["epoch"]):
                entry |= self.train_epoch(entry["epoch"])
                return entry | self.validate()
        except DivergedError as error:
            logger.warning("epoch %d: %s", entry["epoch"], error)
            return entry | {"state": DIVERGED}

    def degradations(self, epoch: int) -> float:
        """Return how often an epoch degrades patches, as a share of how often the last one does."""
        warm = self.settings.warmup * (self.epochs - self.first_epoch)
        augmentation = self.options.augmentation
        degrades = weaken(augmentation, 0.0) != augmentation
        return min(1.0, (epoch - self.first_epoch) / warm) if warm > 0 and degrades else 1.0

    def steps_per_epoch(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.fit) * self.settings.crops_per_image // self.options.batch_size)

    def batches(self, epoch: int) -> Iterable[Sequence[torch.Tensor]]:
        """Iterate over patches, uint8 (n, 3, size, size), and their targets (n, size, size)."""
        options, settings = self.options, self.settings
        draws = draw_patches(
            self.fit, settings.crops_per_image, options.batch_size, options.random_state, epoch
        )
        own = self.processes.share(draws)
        augmentation = weaken(options.augmentation, self.degradations(epoch))
        patches = DrawnPatches(self.pairs, own, options.crop_size, augmentation, settings.balance)
        size = options.batch_size // self.processes.count
        return DataLoader(patches, size, num_workers=options.n_jobs)

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch in training."""
        crops, targets = batch
        return self._compare(self.logits(self.model, crops), targets)

    def validate(self) -> Entry:
        """Judge the validation images, each process its part of them."""
        if not len(self.valid):
            return {}
        self.processes.spread(self.network)
        self.network.eval()
        edges = EDGES if self.threshold == "iou" else edges_with(float(self.threshold))
        counts = torch.zeros((2, len(edges) + 1), dtype=torch.int64)
        loss = torch.zeros((), dtype=torch.float64)
        with torch.inference_mode():
            for crops, targets in self._fixed_batches():
                logits = self.logits(self.network, crops)
                loss += len(crops) * self._compare(logits, targets).cpu()
                maps = torch.sigmoid(logits[:, 0]).cpu().numpy()
                if np.isfinite(maps).all():  # else the loss tells
                    counts += torch.from_numpy(pixel_histogram(targets.numpy(), maps, edges))
        counts = self.processes.total(counts.to(self.device)).cpu()
        n_crops = int(counts.sum()) // self.options.crop_size**2
        entry: Entry = {"valid_loss": self.mean_loss(loss.to(self.device), n_crops)}
        return entry | _judge(counts.numpy(), edges, self.threshold)

    def finish(self) -> None:
        """Leave the network with the weights of the best epoch, ready for inference."""
        if self.best() is None:
            raise DivergedError(
                f"training diverged in each of {self.attempt + 1} attempt(s), the last one at a "
                f"rate of {self.options.learning_rate * RATE_FACTOR**self.attempt:g}. Lower "
                f"learning_rate (now {self.options.learning_rate:g}) or use precision='float32'."
            )
        super().finish()

    def _fixed_batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        options = self.options
        own = self.processes.share(self.valid.tolist())
        patches = FixedPatches(self.pairs, own, options.crop_size, self.settings.n_crops)
        n_images = max(1, options.batch_size // self.settings.n_crops)
        for items in DataLoader(patches, n_images, num_workers=options.n_jobs, collate_fn=list):
            crops, targets = zip(*items, strict=True)
            yield torch.cat(crops), torch.cat(targets)

    def _compare(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.criterion(logits, targets.to(logits.device).float()[:, None])


def warn_of_collapse(history: list[Entry], patience: int) -> None:
    """Warn of a training whose best weights are of no use, or that ended in a collapse.

    Such weights are kept all the same, as a study of hard cases wants their numbers.
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
