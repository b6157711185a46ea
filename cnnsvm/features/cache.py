"""From labelled images to a fitted embedding network, with everything kept that took long."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import cnnsvm
from cnnsvm.data.images import image_hash
from cnnsvm.data.splits import encode_groups
from cnnsvm.features import branch
from cnnsvm.features.augmentation import Augmentation
from cnnsvm.features.auxiliary_labels import AuxiliaryLabels
from cnnsvm.features.backbones import Backbone
from cnnsvm.features.embeddings import embed_crops
from cnnsvm.features.finetuning import finetune
from cnnsvm.features.loading import MEMORY, Decoded, DegradedViews, Draw, FixedCrops
from cnnsvm.features.trainer import Training
from cnnsvm.io.files import replacing, write_text

logger = logging.getLogger(__name__)

#: Raised with every change of what a fit computes, so that no cache or run mixes old and new.
RECIPE = 3


@dataclass(frozen=True)
class Embedding:
    """How images are seen: crops of ``crop_size`` pixels, ``n_crops`` an image, pooled.

    With ``mirror`` each crop has its mirror image beside it; ``fusion`` is one of
    `cnnsvm.features.embeddings.FUSIONS`.
    """

    crop_size: int
    n_crops: int
    pooling: str
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    n_jobs: int
    mirror: bool = False
    fusion: str = "embeddings"

    def __call__(self, network: Backbone, images: Sequence[Any]) -> np.ndarray:
        """Embed images in their order, float32 of shape (n, d); the network ends on the CPU."""
        decoded = Decoded(images, memory=0)
        dataset = FixedCrops(decoded, self.crop_size, self.n_crops, self.mirror)
        return self._embed(network, dataset)

    def embed_views(
        self,
        network: Backbone,
        images: Sequence[Any],
        draws: Sequence[Draw],
        augmentation: Augmentation,
    ) -> np.ndarray:
        """Embed the views that the draws ask for (see `DegradedViews`), float32 (n_draws, d)."""
        # each process would keep its own
        decoded = Decoded(images, 0 if self.n_jobs else MEMORY)
        dataset = DegradedViews(
            decoded, draws, self.crop_size, self.n_crops, augmentation, self.mirror
        )
        return self._embed(network, dataset)

    def _embed(self, network: Backbone, dataset: FixedCrops | DegradedViews) -> np.ndarray:
        own = ("pooling", "batch_size", "device", "dtype", "n_jobs", "fusion")
        embeddings = embed_crops(network, dataset, **{name: getattr(self, name) for name in own})
        network.cpu()
        return embeddings


def fit_network(
    network: Backbone,
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    training: Training,
    cache: Path | None,
    auxiliary: AuxiliaryLabels | None = None,
) -> list[dict[str, float]]:
    """Fine-tune a network in place, or take the finished one out of the cache.

    Parameters
    ----------
    network : Backbone
        Changed in place.
    images, codes, groups, auxiliary
        As for `cnnsvm.features.finetuning.finetune`.
    training : Training
        With ``mode`` "none" nothing is done.
    cache : path or None
        Folder of this very task (see `task_folder`): holds the checkpoint of a running and the
        weights of a finished fine-tuning.

    Returns
    -------
    list of dict
        The history of losses and metrics, one entry an epoch.
    """
    if training.mode == "none":
        return []
    if cache is not None and (cache / "history.json").is_file():
        load_network(network, load_file(cache / "network.safetensors"))
        network.parents = None if auxiliary is None else auxiliary.parents
        logger.info("fine-tuned network taken from %s", cache)
        return json.loads((cache / "history.json").read_text(encoding="utf-8"))
    checkpoint = None if cache is None else cache / "checkpoint.pt"
    history = finetune(network, images, codes, groups, training, checkpoint, auxiliary)
    if cache is not None and checkpoint is not None:
        cache.mkdir(parents=True, exist_ok=True)
        save_file(network_arrays(network), cache / "network.safetensors")
        write_text(cache / "history.json", json.dumps(history))  # last: marks it finished
        for left in (checkpoint, *cache.glob("statistics_*.safetensors")):
            left.unlink(missing_ok=True)
    return history


def fit_embeddings(embed: Callable[[], np.ndarray], cache: Path | None) -> np.ndarray:
    """Call what embeds the training images, or take its result out of the cache."""
    if cache is None:
        return embed()
    file = cache / "embeddings.safetensors"
    if not file.is_file():
        with replacing(file) as partial:
            save_file({"embeddings": embed()}, partial)
    return load_file(file)["embeddings"]


def network_arrays(network: Backbone) -> dict[str, np.ndarray]:
    """Return a network's parameters and statistics as arrays, fit for safetensors."""
    return {name: value.cpu().numpy().copy() for name, value in network.state_dict().items()}


def load_network(network: Backbone, arrays: dict[str, np.ndarray]) -> None:
    """Put saved parameters into a network of the same make, ready for embedding."""
    if "classifier.weight" in arrays and network.classifier is None:
        n_classes, dim = arrays["classifier.weight"].shape
        network.classifier = torch.nn.Linear(dim, n_classes)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    network.eval().requires_grad_(False)


def task_folder(
    cache_dir: str | os.PathLike[str] | None,
    network: Backbone,
    images: Sequence[Any],
    codes: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None,
    settings: Sequence[Any],
) -> Path | None:
    """Name the cache folder of one task by all that its result depends on.

    The name is a hash of the initial weights, the preprocessing, the content of the images, their
    classes, groups and the settings, so that a changed file or parameter never meets an old
    result. One process at a time may work in it.
    """
    if cache_dir is None:
        return None
    made_of = (
        cnnsvm.__version__,
        RECIPE,
        branch.PASSES,
        network.preprocessing,
        *map(_plain, settings),
    )
    digest = hashlib.sha256(repr(made_of).encode())
    for value in network_arrays(network).values():
        digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(codes.astype(np.int64).tobytes())
    digest.update(encode_groups(groups, len(codes)).tobytes())
    for image in images:
        digest.update(image_hash(image).encode())
    return Path(cache_dir) / digest.hexdigest()[:20]


def _plain(item: Any) -> Any:
    if isinstance(item, Training):
        return asdict(replace(item, n_jobs=0))
    if isinstance(item, Embedding):
        return asdict(replace(item, n_jobs=0))
    return item
