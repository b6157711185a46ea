"""torchvision networks, each cut at its pooled embedding."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from cnnsvm.features.auxiliary_labels import collapse
from cnnsvm.features.plain_cnn import PLAIN_CNN, PLAIN_CNN_7, PlainCNN, PlainCNN7
from cnnsvm.features.preprocessing import RAW, InputLayer, Preprocessing, as_preprocessing
from cnnsvm.features.statistics import STATISTICS_DIM, residual_statistics
from cnnsvm.features.stems import set_channels, set_stem
from cnnsvm.features.weights import load_weights

PROJECTION_DIM = 256
STATISTICS = "statistics"
BLOCK = 65_536  # rows that are turned to double precision at a time
STATISTICS_BATCH = 8  # crops; more of them do not fit the caches of a processor


def _cut_fc(network: Any) -> nn.Module:
    network.fc = nn.Identity()
    return network


def _cut_features(network: Any) -> nn.Module:
    return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _cut_densenet(network: Any) -> nn.Module:
    # its feature stack ends in a batch norm whose ReLU torchvision applies in forward
    return nn.Sequential(network.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


_FC = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")
_FEATURES = (
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "efficientnet_b0", "efficientnet_b2"),
)

#: Networks of our own, which torchvision has not.
_PLAIN: dict[str, Callable[[], nn.Module]] = {PLAIN_CNN: PlainCNN, PLAIN_CNN_7: PlainCNN7}

#: Name of each network, torchvision's and ours, -> function that cuts it at its embedding.
BACKBONES: dict[str, Callable[[nn.Module], nn.Module]] = {
    **dict.fromkeys(_FC, _cut_fc),
    **dict.fromkeys(_FEATURES, _cut_features),
    **dict.fromkeys(("densenet121", "densenet169"), _cut_densenet),
    **dict.fromkeys(_PLAIN, _cut_features),
}


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

    Parameters
    ----------
    body : nn.Module or None
        From a normalised (N, C, H, W) batch to (N, d).
    preprocessing : Preprocessing
    branch : nn.Module or None
        From the residual statistics of the pixels, float (N, STATISTICS_DIM), to (N, e), which
        stand behind the body's embedding.
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
        #: What fine-tuning trained on top, from the embedding to one logit a class or fine class.
        self.classifier: nn.Linear | None = None
        #: Class of each of the classifier's outputs, if these are finer than the classes.
        self.parents: tuple[int, ...] | None = None
        #: Which of the classes is that of untouched images.
        self.real_class = 0
        #: Networks of saved detectors whose embeddings follow this one's. They are never trained.
        self.ensemble = nn.ModuleList()
        #: What a saved detector says of its network, if it comes from one.
        self.description: dict[str, Any] | None = None
        #: Hashes of what it had learnt from before, if it comes from a saved detector that knows.
        self.trained_on: np.ndarray | None = None
        #: Whether those are all that it had learnt from.
        self.knows_all = True

    @property
    def preprocessing(self) -> Preprocessing:
        """How pixels become the body's input."""
        return self.enter.preprocessing

    @property
    def width(self) -> int:
        """Length of a fine-tuned network's embedding, with those of its ensemble."""
        return self._trained().in_features + sum(member.width for member in self.members)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a uint8 batch of shape (N, 3, H, W), RGB, 0-255, as float (N, d)."""
        own = self._embed(pixels)
        return torch.cat([own, *(member(pixels) for member in self.ensemble)], dim=1)

    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        parts = []
        if self.body is not None:
            values = self.enter(pixels).contiguous(memory_format=torch.channels_last)
            parts.append(self.projection(self.body(values)).float())
        if self.branch is not None:
            found = [residual_statistics(part) for part in pixels.split(STATISTICS_BATCH)]
            with torch.autocast(pixels.device.type, enabled=False):  # it costs next to nothing
                parts.append(self.branch(torch.cat(found)))
        return torch.cat(parts, dim=1)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classify crops by the fine-tuned classifier, float (N, n_outputs)."""
        return self._classify(self._embed(pixels))

    def fake_score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the log-odds (N,) that crops are not real, the mean over the ensemble."""
        return self.fake_scores(embeddings).mean(dim=1)

    def fake_scores(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the log-odds that crops are not real by this network and each of its ensemble.

        Parameters
        ----------
        embeddings : float tensor, shape (N, d)

        Returns
        -------
        float tensor, shape (N, 1 + len(ensemble))
        """
        widths = [self._trained().in_features, *(member.width for member in self.members)]
        own, *others = embeddings.split(widths, dim=1)
        parts = [m.fake_score(part) for m, part in zip(self.members, others, strict=True)]
        return torch.stack([self._own_score(own), *parts], dim=1)

    def class_scores(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return what this network's own layer and those of its ensemble say of each class.

        Parameters
        ----------
        embeddings : float tensor, shape (N, d)

        Returns
        -------
        float tensor, shape (N, k)
            Of each network in turn the log-odds of the second of two classes, or the log
            probabilities of more.
        """
        widths = [self._trained().in_features, *(member.width for member in self.members)]
        own, *others = embeddings.split(widths, dim=1)
        said = collapse(self._classify(own), self.parents).log_softmax(dim=1)
        said = said[:, 1:] - said[:, :1] if said.shape[1] == 2 else said
        parts = zip(self.members, others, strict=True)
        return torch.cat([said, *(member.class_scores(part) for member, part in parts)], dim=1)

    def _own_score(self, embeddings: torch.Tensor) -> torch.Tensor:
        logits = collapse(self._classify(embeddings), self.parents)
        others = [k for k in range(logits.shape[1]) if k != self.real_class]
        return logits[:, others].logsumexp(dim=1) - logits[:, self.real_class]

    def _classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self._trained()(embeddings.float()).float()

    def _trained(self) -> nn.Linear:
        if self.classifier is None:
            raise RuntimeError("this backbone was not fine-tuned, so it has no classifier.")
        return self.classifier

    @property
    def members(self) -> list["Backbone"]:
        """The networks of the ensemble."""
        return [member for member in self.ensemble if isinstance(member, Backbone)]


def build_backbone(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | dict[str, Any] = "imagenet",
    random_state: int = 0,
    projection: bool = False,
    *,
    stem: str = "native",
    truncate_at: str | None = None,
    statistics: str | None = None,
) -> Backbone:
    """Build a backbone.

    Parameters
    ----------
    name : str
        A key of `BACKBONES`, or "statistics" for no network but the branch of ``statistics``; the
        other parameters then have no meaning.
    weights : None, "imagenet" or path
        None draws random weights from ``random_state``; "imagenet" loads torchvision's; a path
        names a .safetensors, .pth or .pt file with torchvision's parameter names. Parameters of
        the classifier that is cut off may be missing.
    preprocessing : str or dict
        A key of `cnnsvm.features.preprocessing.PREPROCESSING`, or the fields of a `Preprocessing`.
        With other than three channels the first convolution is a new one.
    random_state : int
        Seed of the random weights.
    projection : bool
        Put a linear layer of 256 features and a ReLU on top, whose output is the embedding: the
        part that ``finetune="head"`` trains.
    stem : {"native", "nopool", "nodown", "small"}
        See `cnnsvm.features.stems.STEMS`.
    truncate_at : str or None
        Last stage that is kept, such as "layer2" of a ResNet, or the name of a child of the
        feature stack of other networks, such as "15" of vgg16. The embedding is then the mean and
        the standard deviation of each of its channels. None keeps the network whole.
    statistics : None, "raw" or "learnt"
        Put residual statistics (`cnnsvm.features.statistics`) behind the embedding: as they are,
        or what two layers of 512 and 256 features make of them.

    Returns
    -------
    Backbone
        In float32 on the CPU, with gradients on.

    Raises
    ------
    ValueError
        If the name, the stem or the stage is not known.
    WeightsError
        If the weights cannot be had or do not fit the network.
    """
    if name not in (*BACKBONES, STATISTICS):
        raise ValueError(
            f"backbone {name!r} is not known. Choose one of "
            f"{', '.join((*sorted(BACKBONES), STATISTICS))}."
        )
    settings = RAW if name == STATISTICS else as_preprocessing(preprocessing)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        body = None
        if name != STATISTICS:
            own = _PLAIN.get(name)
            network = own() if own else torchvision.models.get_model(name, weights=None)
            set_channels(network, settings.n_channels)
            if weights is not None:
                load_weights(network, name, weights)
            set_stem(network, stem)
            body = _cut(network, name, truncate_at)
        backbone = Backbone(body, settings)
        if projection and body is not None:
            dim = embedding_dim(backbone)
            backbone.projection = nn.Sequential(nn.Linear(dim, PROJECTION_DIM), nn.ReLU())
        if statistics is not None or name == STATISTICS:
            backbone.branch = _learnt_branch() if statistics == "learnt" else nn.Identity()
    return backbone.to(memory_format=torch.channels_last)


def _learnt_branch() -> nn.Module:
    """Two layers over standardised statistics; dropout, as there are few sources and many rows."""
    return nn.Sequential(
        Standardise(STATISTICS_DIM),
        nn.Linear(STATISTICS_DIM, 2 * PROJECTION_DIM),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(2 * PROJECTION_DIM, PROJECTION_DIM),
        nn.ReLU(),
    )


def embedding_dim(network: nn.Module, crop_size: int = 64) -> int:
    """Find the length of a network's embedding by one forward pass on a black crop.

    Raises
    ------
    ValueError
        If the network cannot take crops of that size.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            crop = torch.zeros(1, 3, crop_size, crop_size, dtype=torch.uint8)
            return int(network(crop).shape[1])
    except RuntimeError as error:
        raise ValueError(
            f"crop_size={crop_size} is too small for this backbone ({error}). Try 64 or more."
        ) from error
    finally:
        network.train(was_training)


def _cut(network: Any, name: str, truncate_at: str | None) -> nn.Module:
    if truncate_at is None:
        return BACKBONES[name](network)
    stages = dict((getattr(network, "features", network)).named_children())
    allowed = [stage for stage in stages if stage not in ("avgpool", "fc")]
    if truncate_at not in allowed:
        raise ValueError(
            f"truncate_at must name a stage of {name}, got {truncate_at!r}. Choose one of "
            f"{', '.join(allowed)}."
        )
    kept = allowed[: allowed.index(truncate_at) + 1]
    body = nn.Sequential()
    for stage in kept:
        body.add_module(stage, stages[stage])
    body.add_module("pooled", MeanAndDeviation())
    return body
