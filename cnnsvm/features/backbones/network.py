"""The network from a batch of crops to embeddings, whatever library its body comes from."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from cnnsvm.features.preprocessing import InputLayer, Preprocessing
from cnnsvm.features.statistics import residual_statistics

BLOCK = 65_536  # rows that are turned to double precision at a time
STATISTICS_BATCH = 8  # crops; more of them do not fit the caches of a processor


class MeanAndDeviation(nn.Module):
    """Pool a map of shape (N, C, H, W) to the mean and standard deviation of its channels."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return float32 of shape (N, 2 * C)."""
        whole = values.float()
        variance = whole.var(dim=(2, 3), unbiased=False)
        return torch.cat([whole.mean(dim=(2, 3)), (variance + 1e-6).sqrt()], dim=1)


class Standardise(nn.Module):
    """Bring features to zero mean and unit variance, as found on training rows by `fit`."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def is_fitted(self) -> bool:
        """Tell whether `fit` was called, here or before these weights were saved."""
        return bool((self.mean != 0).any() or (self.scale != 1).any())

    def fit(self, rows: torch.Tensor) -> None:
        """Take mean and standard deviation of float rows (n, dim); constant ones stay."""
        mean = torch.stack([part.double().sum(dim=0) for part in rows.split(BLOCK)]).sum(0)
        mean /= len(rows)
        squares = [((part.double() - mean) ** 2).sum(dim=0) for part in rows.split(BLOCK)]
        deviation = (torch.stack(squares).sum(0) / len(rows)).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Standardise (n, dim)."""
        return (rows - self.mean) / self.scale


class Backbone(nn.Module):
    """A network from pixels to embeddings, with its preprocessing inside.

    ``body`` maps a normalised (N, C, H, W) batch to (N, d); ``branch`` maps residual statistics of
    the pixels, float (N, STATISTICS_DIM), to (N, d), in place of the body.
    """

    def __init__(
        self,
        body: nn.Module | None,
        preprocessing: Preprocessing,
        branch: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.enter = InputLayer(preprocessing)
        self.body = body
        self.branch = branch
        self.projection: nn.Module = nn.Identity()
        #: Linear layer that fine-tuning trains on top: one logit a class or auxiliary label.
        self.classifier: nn.Linear | None = None
        #: Class of each of the classifier's outputs, if it was trained on auxiliary labels.
        self.parents: tuple[int, ...] | None = None
        #: Index of the class of untouched images.
        self.real_class = 0
        #: Name that builds the same architecture without its file or hub, if it needs another one.
        self.offline_name: str | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become the body's input."""
        return self.enter.preprocessing

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a uint8 batch of shape (N, 3, H, W), RGB, 0-255, as float (N, d)."""
        if self.body is not None:
            values = self.enter(pixels).contiguous(memory_format=torch.channels_last)
            return self.projection(self.body(values)).float()
        if self.branch is None:
            raise RuntimeError("a backbone needs a body or a branch.")
        found = _statistics_of(pixels)
        with torch.autocast(pixels.device.type, enabled=False):  # it costs next to nothing
            return self.branch(found)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classify crops by the fine-tuned classifier, float (N, n_outputs)."""
        return self._classify(self(pixels))

    def fake_score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the log-odds (N,) that crops are not of the real class."""
        logits = collapse(self._classify(embeddings), self.parents)
        others = [k for k in range(logits.shape[1]) if k != self.real_class]
        return logits[:, others].logsumexp(dim=1) - logits[:, self.real_class]

    def class_scores(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return what the fine-tuned classifier says of each class, from embeddings (N, d).

        Float (N, k): the log-odds of the second of two classes, or the log probabilities of more.
        """
        said = collapse(self._classify(embeddings), self.parents).log_softmax(dim=1)
        return said[:, 1:] - said[:, :1] if said.shape[1] == 2 else said

    def _classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        if self.classifier is None:
            raise RuntimeError("this backbone was not fine-tuned, so it has no classifier.")
        return self.classifier(embeddings.float()).float()


def _statistics_of(pixels: torch.Tensor) -> torch.Tensor:
    """Compute `residual_statistics` of uint8 (N, 3, H, W), on a processor one part a thread.

    The operations are so small that threads which share each of them mostly wait for each other.
    """
    parts, n_threads = pixels.split(STATISTICS_BATCH), torch.get_num_threads()
    if pixels.device.type != "cpu" or min(n_threads, len(parts)) == 1:
        return torch.cat([residual_statistics(part) for part in parts])
    try:
        with ThreadPoolExecutor(
            n_threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return torch.cat(list(pool.map(residual_statistics, parts)))
    finally:
        torch.set_num_threads(n_threads)  # what threads that are made from now on begin with


def embedding_dim(network: nn.Module, crop_size: int = 64) -> int:
    """Find the length of a network's embedding by one forward pass on a black crop.

    A ValueError is raised if the network cannot take crops of that size.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            crop = torch.zeros(1, 3, crop_size, crop_size, dtype=torch.uint8)
            return int(network(crop).shape[1])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"crop_size={crop_size} does not fit this backbone ({error}). Convolutional ones need "
            "64 or more; transformers the size that they were trained with, such as 224."
        ) from error
    finally:
        network.train(was_training)


def collapse(logits: torch.Tensor, parents: Sequence[int] | None) -> torch.Tensor:
    """Add up the probabilities of each class's auxiliary labels.

    From logits of the labels, (N, n_labels), to those of the classes, (N, n_classes). ``parents``
    is the class of each label; None leaves the logits as they are.
    """
    if parents is None:
        return logits
    # numbers, not a mask: an exported graph has to know how many there are
    members = [
        [i for i, parent in enumerate(parents) if parent == k] for k in range(max(parents) + 1)
    ]
    parts = [logits[:, member].logsumexp(dim=1) for member in members]
    return torch.stack(parts, dim=1)
