"""The designs to beat: what `cnnsvm` would be without its rules, as scikit-learn classifiers.

Both resize whole pictures to a square, which `cnnsvm.InpaintDetector` never does. They
exist to be measured beside it (`baselines.comparison`), not to be used.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from baselines.small_cnn import build_small_cnn, train_small_cnn
from baselines.squashing import Squashed, SquashingClassifier, check_whole
from cnnsvm.features.backbones import Backbone, build_backbone
from cnnsvm.features.cache import load_network, network_arrays
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.loading import Decoded
from cnnsvm.io.files import write_text


class ResizedSVM(SquashingClassifier):
    """The naive design: resize to 224 pixels, embed by a frozen backbone, classify by an SVM.

    Parameters
    ----------
    backbone, weights, preprocessing
        As `cnnsvm.features.backbones.build_backbone` takes them; the backbone learns nothing.
    size : int, default=224
        Side in pixels to which whole pictures are resized, whatever their shape (bilinear).
    kernel : str, default="rbf"
    n_trials, cv : int, default=30, 3
        Optuna trials and inner folds of `cnnsvm.svm.TunedSVC`.
    threshold, device, precision, batch_size, n_jobs, cache_dir, random_state
        As for `cnnsvm.detection.detector.InpaintDetector`.

    Attributes
    ----------
    classes_, network_, history_, svm_, threshold_
        As of `cnnsvm.detection.detector.InpaintDetector`; ``history_`` is empty.
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = "imagenet",
        preprocessing: str | dict[str, Any] = "imagenet",
        size: int = 224,
        kernel: str = "rbf",
        n_trials: int = 30,
        cv: int = 3,
        threshold: float | str = 0.5,
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
        self.kernel = kernel
        self.n_trials = n_trials
        self.cv = cv
        self.threshold = threshold
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    def _build(self, seed: int) -> Backbone:
        return build_backbone(self.backbone, self.weights, self.preprocessing, random_state=seed)


class SeedDesign(SquashingClassifier):
    """The seed project's design: a small CNN learns on pictures of 256 pixels, an SVM classifies.

    Whole pictures are resized (Lanczos); four 3x3 convolutions and a layer of 256 features are
    trained by cross-entropy on the training images, without augmentation or early stopping; the
    SVM is fitted on the 256 features.

    Parameters
    ----------
    size : int, default=256
        Side in pixels to which whole pictures are resized, whatever their shape.
    epochs : int, default=10
    learning_rate : float, default=1e-3
        Of Adam.
    batch_size : int, default=32
    kernel, n_trials, cv, threshold, device, precision, n_jobs, cache_dir, random_state
        As for `ResizedSVM`.

    Attributes
    ----------
    classes_, network_, history_, svm_, threshold_
        As of `cnnsvm.detection.detector.InpaintDetector`.
    """

    resample = "lanczos"

    def __init__(
        self,
        *,
        size: int = 256,
        epochs: int = 10,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        kernel: str = "rbf",
        n_trials: int = 30,
        cv: int = 3,
        threshold: float | str = 0.5,
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
        self.kernel = kernel
        self.n_trials = n_trials
        self.cv = cv
        self.threshold = threshold
        self.device = device
        self.precision = precision
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    @property
    def _training(self) -> tuple[Any, ...]:
        return self.epochs, self.learning_rate, self.batch_size

    def _check_params(self) -> None:
        super()._check_params()
        check_whole("epochs", self.epochs, 1)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}.")

    def _build(self, seed: int) -> Backbone:
        return build_small_cnn(self.size, n_classes=2, random_state=seed)

    def _train(
        self, images: list[Any], codes: np.ndarray, seed: int, cache: Path | None
    ) -> list[dict[str, float]]:
        """Train the network, or take the finished one out of the cache."""
        done = None if cache is None else cache / "history.json"
        if cache is not None and done is not None and done.is_file():
            load_network(self.network_, load_file(cache / "network.safetensors"))
            return json.loads(done.read_text(encoding="utf-8"))
        device = choose_device(self.device)
        history = train_small_cnn(
            self.network_,
            Squashed(Decoded(images), self.size, self.resample),
            codes,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            random_state=seed,
            device=device,
            dtype=choose_precision(self.precision, device),
            n_jobs=int(self.n_jobs or 0),
        )
        if cache is not None and done is not None:
            cache.mkdir(parents=True, exist_ok=True)
            save_file(network_arrays(self.network_), cache / "network.safetensors")
            write_text(done, json.dumps(history))  # last: marks it finished
        return history
