"""Fine-tuning a backbone on labelled images, with early stopping on unseen sources."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.features.backbones import Backbone, embedding_dim
from cnnsvm.features.backbones.network import collapse
from cnnsvm.features.branch import train_branch
from cnnsvm.features.crops import batches, cut_crops
from cnnsvm.features.devices import HELPERS, Processes
from cnnsvm.features.loading import Draw, DrawnCrops, paired_draws
from cnnsvm.features.reading import MEMORY, Decoded, read_ahead
from cnnsvm.features.trainer import Entry, Trainer, Training, class_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AuxiliaryLabels:
    """What a network is trained on instead of the classes, such as "cat, fake" instead of "fake".

    A network that also learns what an image shows tells real from fake better (multi-task learning:
    Caruana, Machine Learning 28, 1997). ``codes``, int (n_samples,), is the label of each image, 0
    .. n_labels - 1, and ``parents`` the class of each label.
    """

    codes: np.ndarray
    parents: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray, codes: np.ndarray) -> "AuxiliaryLabels":
        """Number auxiliary labels, (n_samples,), and find the class of each among ``codes``.

        A ValueError says that images of one auxiliary label are of several classes.
        """
        names, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
        parents = codes[first]
        astray = np.flatnonzero(parents[numbers] != codes)
        if len(astray):
            image, label = astray[0], numbers[astray[0]]
            raise ValueError(
                f"auxiliary_labels: {names[label].item()!r} is in two classes of y, as images "
                f"{first[label]} and {image} show. An auxiliary label lies within one class, such "
                "as 'cat, fake'."
            )
        return cls(numbers, tuple(parents.tolist()))


def finetune(
    network: Backbone,
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    training: Training,
    checkpoint: Path | None = None,
    auxiliary: AuxiliaryLabels | None = None,
) -> list[Entry]:
    """Train a backbone in place and leave it with the weights of its best epoch.

    ``codes`` are int (n_samples,), 0 .. n_classes - 1; images of one of ``groups`` stay on one side
    of the validation split; an interrupted run resumes from ``checkpoint``, a file that is written
    after each epoch; ``auxiliary`` are finer classes to train on, not for residual statistics.

    Returns a dict an epoch: ``epoch``, ``train_loss``, ``learning_rate`` and, unless there are too
    few sources for a validation split, ``valid_loss`` and ``valid_auc``; with ``auxiliary`` the
    training loss is that of these labels, all else of the classes. A DivergedError says that the
    loss is no longer finite.
    """
    group_codes = encode_groups(groups, len(codes))
    fit, valid = validation_split(codes, group_codes, training)
    data = (network, images, codes, group_codes, fit, valid, training)
    if network.body is None:
        history = train_branch(*data, None if checkpoint is None else checkpoint.parent)
        network.cpu().eval().requires_grad_(False)
        return history
    together = HELPERS.get()
    names = ("network", "images", "codes", "groups", "fit", "valid")
    task: dict[str, Any] = dict(zip(names, data, strict=False)) | {"auxiliary": auxiliary}
    together.from_first(task | {"training": replace(training, callbacks=())})
    return FineTuner(**task, training=training, processes=together).run(checkpoint)


class _Logits(nn.Module):
    """A backbone whose ``forward`` classifies, for several processes."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.backbone.logits(pixels)


class FineTuner(Trainer):
    """The training of a backbone and of a classifier on its embeddings, in place.

    ``codes`` and ``groups``, int (n_samples,), are the class and the group of each image; ``fit``
    and ``valid`` are the positions of those that train and those that early stopping watches (may
    be none). ``auxiliary`` labels are trained on instead of the classes; validation is of the
    classes. ``processes`` are those that train together: each takes its part of every batch, and
    gradients are those of the whole batch.
    """

    name = "fine-tuning"

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
        processes: Processes | None = None,
    ) -> None:
        # worker processes start anew each epoch: what they keep would only cost memory
        self.images = Decoded(images, 0 if training.n_jobs else MEMORY)
        together = processes or Processes()
        self.own_valid = np.arange(len(valid))[together.rank :: together.count]
        self.valid_images = self.images.part(valid[self.own_valid])
        self.codes, self.groups, self.fit, self.valid = codes, groups, fit, valid
        self.training = training
        self.n_classes = int(codes.max()) + 1
        self.targets = codes if auxiliary is None else auxiliary.codes
        network.parents = None if auxiliary is None else auxiliary.parents
        classes = torch.tensor(network.parents or range(self.n_classes))
        self.class_of = classes.to(training.device)
        self.weight = torch.ones(len(classes))
        self.is_right: list[torch.Tensor] = []
        _prepare(network, training, len(classes))
        super().__init__(network, training, together)
        self.backbone: Any = self.network

    def entry(self, network: nn.Module) -> nn.Module:
        """Return the module that classifies crops."""
        return _Logits(network)  # type: ignore[arg-type]

    def steps_per_epoch(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self.draws(0)) // self.training.batch_size)

    def batches(self, epoch: int) -> Iterable[Sequence[torch.Tensor]]:
        """Iterate over crops, uint8 (n, 3, size, size), and their targets, int64 (n,).

        Of several processes, each also gets the sum of the weights of the whole batch.
        """
        training, draws = self.training, self.draws(epoch)
        targets = self.targets[[draw.index for draw in draws]]
        self.weight = class_weights(targets, len(self.class_of)).to(self.device)
        dataset = DrawnCrops(
            self.images, self.targets, draws, training.crop_size, training.augmentation
        )
        if self.processes.count > 1:
            return self._parts_of_batches(dataset, targets)
        alone = len(draws) % training.batch_size == 1  # batch norm cannot use a single crop
        return DataLoader(
            dataset, training.batch_size, num_workers=training.n_jobs, drop_last=alone
        )

    def _parts_of_batches(
        self, dataset: DrawnCrops, targets: np.ndarray
    ) -> Iterator[Sequence[torch.Tensor]]:
        """Iterate over this process's part of each batch, but for a last one too small for all."""
        size, ranks = self.training.batch_size, range(self.processes.count)
        batches = [np.arange(k, min(k + size, len(targets))) for k in range(0, len(targets), size)]
        cuts = [replace(self.processes, rank=rank).part_of_batch for rank in ranks]
        if not all(len(batches[-1][cut(len(batches[-1]))]) for cut in cuts):
            batches.pop()
        own = self.processes.part_of_batch
        parts = [batch[own(len(batch))].tolist() for batch in batches]
        loader = DataLoader(dataset, batch_sampler=parts, num_workers=self.training.n_jobs)
        for batch, (crops, codes) in zip(batches, loader, strict=True):
            yield crops, codes, self.weight[torch.from_numpy(targets[batch])].sum()

    def loss(self, *batch: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of a batch, and note which crops are classified right.

        Of several processes, the mean over these is the loss of the whole batch, so that averaged
        gradients are its gradients, whatever the parts.
        """
        crops, targets, *total = batch
        targets = targets.to(self.device)
        network = self.model if total else self.backbone.logits
        logits = self.logits(network, crops)
        classes = collapse(logits.detach(), self.backbone.parents).argmax(1)
        self.is_right.append(classes == self.class_of[targets])
        if not total:
            return nn.functional.cross_entropy(logits, targets, weight=self.weight)
        own = nn.functional.cross_entropy(logits, targets, weight=self.weight, reduction="sum")
        return own * self.processes.count / total[0]

    def train_epoch(self, epoch: int) -> Entry:
        """Take the steps of an epoch and return mean loss and accuracy."""
        self.is_right = []
        entry = super().train_epoch(epoch)
        right = torch.cat(self.is_right).double()
        counts = self.processes.total(torch.stack([right.sum(), right.new_tensor(len(right))]))
        return entry | {"train_accuracy": (counts[0] / counts[1]).item()}

    def validate(self) -> Entry:
        """Judge the validation images by their pooled crops; return loss, accuracy, ROC AUC."""
        if not len(self.valid):
            return {}
        self.processes.spread(self.network)
        self.network.eval()
        training, found, owners = self.training, [], []
        shape = (training.crop_size, training.n_crops, training.mirror)
        crops = (cut_crops(image, *shape) for image in read_ahead(self.valid_images))
        with torch.inference_mode():
            for numbers, batch in batches(crops, training.batch_size):
                found.append(self.logits(self.backbone.logits, batch))
                owners += numbers
        pooled = self._joined(found, np.bincount(owners).tolist() if owners else [])
        logits = collapse(pooled, self.backbone.parents)
        codes = self.codes[self.valid]
        metrics = self.class_metrics(logits, codes, class_weights(codes, self.n_classes))
        right = (logits.argmax(1).cpu() == torch.from_numpy(codes)).double().mean().item()
        return metrics | {"valid_accuracy": right}

    def _joined(self, found: list[torch.Tensor], counts: list[int]) -> torch.Tensor:
        """Pool the logits of each image's crops, and put the images of all processes in order."""
        own = [part.mean(dim=0) for part in torch.cat(found).split(counts)] if found else []
        if self.processes.count == 1:
            return torch.stack(own)
        gathered = self.processes.gather((self.own_valid.tolist(), [row.cpu() for row in own]))
        rows = {place: row for part in gathered for place, row in zip(*part, strict=True)}
        return torch.stack([rows[place] for place in range(len(rows))]).to(self.device)

    def train_mode(self) -> None:
        """Set what learns to training mode."""
        self.model.train()
        if self.training.mode == "head" and self.backbone.body is not None:
            self.backbone.body.eval()  # frozen: its batch statistics stay as they are

    def draws(self, epoch: int) -> list[Draw]:
        """List the crops of an epoch."""
        training, fit = self.training, self.fit
        draws = paired_draws(
            self.codes[fit], self.groups[fit], training.random_state, epoch, training.pairs
        )
        return [Draw(int(fit[d.index]), d.plan_seed) for d in draws]


def validation_split(
    codes: np.ndarray, groups: np.ndarray, training: Training
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into those that train and those that early stopping watches, by whole groups.

    Returns positions, the latter empty if there are too few groups.
    """
    fewest = min(len(np.unique(groups[codes == code])) for code in np.unique(codes))
    n_splits = min(round(1 / training.validation_fraction), fewest)
    if n_splits >= 2:
        fit, valid = grouped_folds(codes, groups, n_splits, training.random_state)[0]
        if len(np.unique(codes[fit])) == len(np.unique(codes)):
            return fit, valid
    logger.warning(
        "too few sources for a validation split: fine-tuning runs all %d epochs without early "
        "stopping",
        training.epochs,
    )
    return np.arange(len(codes)), np.arange(0)


def _prepare(network: Backbone, training: Training, n_outputs: int) -> None:
    """Give a network a new classifier and say which of its parameters learn."""
    dim = embedding_dim(network, training.crop_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.random_state)
        network.classifier = nn.Linear(dim, n_outputs)
    network.requires_grad_(True)
    if network.body is not None:
        network.body.requires_grad_(training.mode == "full")
