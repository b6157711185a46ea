"""The designs to beat: what `cnnsvm` would be without its rules, as embedders of its detector.

Both resize whole images to a square, which `CNNEmbedder` never does. They exist to be measured
beside it (`baselines.comparison`), not to be used.
"""

import json
import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import Dataset

from baselines.small_cnn import build_small_cnn, train_small_cnn
from cnnsvm.data.estimators import check_labelled_images, install, seed_of
from cnnsvm.data.images import check_images, load_image
from cnnsvm.features.backbones import Backbone, build_backbone
from cnnsvm.features.cache import load_network, network_arrays, task_folder
from cnnsvm.features.crops import embed_crops
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.reading import Decoded, read_ahead
from cnnsvm.io.files import replacing, write_text


def resize_to_square(image: Any, size: int, resample: Image.Resampling) -> np.ndarray:
    """Resize an image of any shape to a square, uint8 (size, size, 3), as Pillow does."""
    return np.asarray(Image.fromarray(load_image(image)).resize((size, size), resample))


class Squares(Dataset):
    """Item i: image i as the one square of ``size`` pixels, uint8 of shape (1, 3, size, size)."""

    def __init__(self, images: Decoded, size: int, resample: Image.Resampling) -> None:
        self.images, self.size, self.resample = images, size, resample

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = resize_to_square(self.images[index], self.size, self.resample)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])


class SquareEmbedder(TransformerMixin, BaseEstimator):
    """The naive design: resize to 224 pixels, embed by a frozen backbone.

    Parameters
    ----------
    backbone, weights, preprocessing
        As `cnnsvm.features.backbones.build_backbone` takes them; nothing is trained.
    size : int, default=224
        Side in pixels to which whole images are resized, whatever their shape (bilinear).
    device, precision, batch_size, n_jobs, cache_dir, random_state
        As for `cnnsvm.CNNEmbedder`.

    Attributes
    ----------
    network_ : Backbone
    history_ : list of dict
        Empty.
    """

    #: Four halvings leave something of at least so many pixels.
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "size": [Interval(Integral, 32, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
    }
    resample = Image.Resampling.BILINEAR
    network_: Backbone

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = "imagenet",
        preprocessing: str | dict[str, Any] = "imagenet",
        size: int = 224,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 16,
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.preprocessing = preprocessing
        self.size = size
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    def fit(self, images: Any, y: Any = None, groups: Any = None) -> Self:
        """Build the network."""
        self._validate_params()
        seed = seed_of(self.random_state)
        network = build_backbone(self.backbone, self.weights, self.preprocessing, random_state=seed)
        install(self, network_=network.eval().requires_grad_(False), history_=[])
        return self

    def transform(self, images: Any) -> np.ndarray:
        """Embed images in their order, float32 of shape (n_samples, n_embedding)."""
        check_is_fitted(self, "network_")
        device = choose_device(self.device)
        read = read_ahead(Decoded(check_images(images), memory=0), self.n_jobs)
        embeddings = embed_crops(
            self.network_,
            ([resize_to_square(image, self.size, self.resample)] for image in read),
            batch_size=self.batch_size,
            device=device,
            dtype=choose_precision(self.precision, device),
        )
        self.network_.cpu()
        return embeddings

    def _n_workers(self) -> int:
        return 0 if self.n_jobs in (None, 1) else int(self.n_jobs)


class SeedEmbedder(SquareEmbedder):
    """The seed project's design: a small CNN learns on images of 256 pixels.

    Whole images are resized (Lanczos); four 3x3 convolutions and a layer of 256 features are
    trained by cross-entropy on the training images, without augmentation or early stopping; the
    256 features are the embedding.

    Parameters
    ----------
    size : int, default=256
        Side in pixels to which whole images are resized, whatever their shape.
    epochs : int, default=10
    learning_rate : float, default=1e-3
        Of Adam.
    batch_size : int, default=32
    device, precision, n_jobs, cache_dir, random_state
        As for `SquareEmbedder`.
    """

    resample = Image.Resampling.LANCZOS

    def __init__(
        self,
        *,
        size: int = 256,
        epochs: int = 10,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        device: str = "auto",
        precision: str = "auto",
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.size = size
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    def fit(self, images: Any, y: Any = None, groups: Any = None) -> Self:
        """Train the network, or take the finished one out of the cache."""
        self._validate_params()
        images, y, groups = check_labelled_images(images, y, groups)
        classes, codes = np.unique(y, return_inverse=True)
        seed = seed_of(self.random_state)
        network = build_small_cnn(self.size, n_classes=len(classes), random_state=seed)
        history = self._train(network, images, codes, groups, seed)
        install(self, network_=network.eval().requires_grad_(False), history_=history)
        return self

    def _train(
        self,
        network: Backbone,
        images: Sequence[Any],
        codes: np.ndarray,
        groups: np.ndarray | None,
        seed: int,
    ) -> list[dict[str, float]]:
        training = (self.size, self.precision, self.epochs, self.learning_rate, self.batch_size)
        settings = [type(self).__name__, *training]
        cache = task_folder(self.cache_dir, [network], images, codes, groups, settings)
        if cache is not None and (cache / "history.json").is_file():
            load_network(network, load_file(cache / "network.safetensors"))
            return json.loads((cache / "history.json").read_text(encoding="utf-8"))
        device = choose_device(self.device)
        history = train_small_cnn(
            network,
            Squares(Decoded(images), self.size, self.resample),
            codes,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            random_state=seed,
            device=device,
            dtype=choose_precision(self.precision, device),
            n_jobs=self._n_workers(),
        )
        if cache is not None:
            with replacing(cache / "network.safetensors") as partial:
                save_file(network_arrays(network), partial)
            write_text(cache / "history.json", json.dumps(history))  # last: marks it finished
        return history
