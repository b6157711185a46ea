"""What designs that resize pictures to a square have in common: all but their network."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch.utils.data import Dataset

from cnnsvm.data.images import load_image
from cnnsvm.data.splits import grouped_folds
from cnnsvm.detection.checks import check_images, check_labelled_images
from cnnsvm.detection.fitting import choose_threshold
from cnnsvm.detection.reject import offset
from cnnsvm.features.backbones import Backbone
from cnnsvm.features.cache import fit_embeddings, task_folder
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.embeddings import embed_crops
from cnnsvm.features.loading import Decoded
from cnnsvm.svm import TunedSVC

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}
#: Smallest side that four halvings leave something of.
MIN_SIZE = 32


def squash(image: Any, size: int, resample: str) -> np.ndarray:
    """Resize a picture of any shape to a square, as Pillow does it.

    Parameters
    ----------
    image : image input of `cnnsvm.data.images.load_image`
    size : int
        Side in pixels.
    resample : {"bilinear", "lanczos"}

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    picture = Image.fromarray(load_image(image))
    return np.asarray(picture.resize((size, size), RESAMPLING[resample]))


class Squashed(Dataset):
    """Item i: image i as the one square of ``size`` pixels, uint8 of shape (1, 3, size, size)."""

    n_crops, mirror = 1, False

    def __init__(self, images: Decoded, size: int, resample: str) -> None:
        self.images, self.size, self.resample = images, size, resample

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = squash(self.images[index], self.size, self.resample)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])


class SquashingClassifier(ClassifierMixin, BaseEstimator):
    """What both designs share: a square picture, a network, an SVM on its embedding."""

    #: There are always probabilities.
    calibrate = True
    resample = "bilinear"
    size: int
    kernel: str
    n_trials: int
    cv: int
    threshold: float | str
    device: str
    precision: str
    batch_size: int
    n_jobs: int | None
    cache_dir: str | os.PathLike[str] | None
    random_state: int | np.random.RandomState | None

    def fit(self, X: Any, y: Any = None, groups: Sequence[Any] | np.ndarray | None = None) -> Self:
        """Fit the network where it learns, embed, tune, calibrate.

        Parameters
        ----------
        X, y, groups
            As `cnnsvm.detection.detector.InpaintDetector.fit` takes them; two classes.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, labels, groups, images (`ImageError`), weights (`WeightsError`)
            or devices (`DeviceError`).
        """
        self._check_params()
        images, labels, groups = check_labelled_images(X, y, groups)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                f"y has the classes {self.classes_.tolist()!r}; {type(self).__name__} tells two "
                "apart. Join the fakes into one class."
            )
        if groups is not None:
            grouped_folds(labels, groups, self.cv)  # better now than after the training
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.network_ = self._build(seed)
        settings = [type(self).__name__, self.size, self.resample, self.precision, *self._training]
        cache = task_folder(self.cache_dir, self.network_, images, codes, groups, settings)
        self.history_ = self._train(images, codes, seed, cache)
        self.network_.eval().requires_grad_(False)
        embeddings = fit_embeddings(lambda: self._embed(images), cache)
        self.svm_ = self._svm(seed).fit(embeddings, labels, groups)
        held_out = np.isfinite(self.svm_.cv_decision_)
        scores = self.svm_.cv_decision_[held_out]
        self.threshold_ = choose_threshold(self.threshold, scores, codes[held_out])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images in their order, float32 of shape (n_samples, n_embedding)."""
        check_is_fitted(self, "svm_")
        return self._embed(check_images(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of ``classes_[1]`` above the threshold's, float64 (n_samples,)."""
        return self.svm_.decision_function(self.transform(X)) - offset(self.threshold_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return calibrated probabilities, float64 (n_samples, 2), rows sum to 1."""
        return self.svm_.predict_proba(self.transform(X))

    def predict(self, X: Any) -> np.ndarray:
        """Name the class of each image, an array of ``classes_`` of shape (n_samples,)."""
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    @property
    def _training(self) -> tuple[Any, ...]:
        """What the training of the network depends on."""
        return ()

    def _build(self, seed: int) -> Backbone:
        raise NotImplementedError

    def _train(
        self, images: list[Any], codes: np.ndarray, seed: int, cache: Path | None
    ) -> list[dict[str, float]]:
        return []

    def _embed(self, images: Sequence[Any]) -> np.ndarray:
        device = choose_device(self.device)
        embeddings = embed_crops(
            self.network_,
            Squashed(Decoded(images, memory=0), self.size, self.resample),
            batch_size=self.batch_size,
            device=device,
            dtype=choose_precision(self.precision, device),
            n_jobs=int(self.n_jobs or 0),
        )
        self.network_.cpu()
        return embeddings

    def _svm(self, seed: int) -> TunedSVC:
        own: dict[str, Any] = {"n_trials": self.n_trials, "cv": self.cv, "random_state": seed}
        return TunedSVC(self.kernel, **own)

    def _check_params(self) -> None:
        self._svm(0)._validate_params()
        for name, least in {"size": MIN_SIZE, "batch_size": 1}.items():
            check_whole(name, getattr(self, name), least)
        value = self.threshold
        chosen = value == "balanced_accuracy"
        if not chosen and not (isinstance(value, Real) and 0 < float(value) < 1):
            raise ValueError(
                f"threshold must be 'balanced_accuracy' or lie in (0, 1), got {value!r}."
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least ``least``."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}.")
