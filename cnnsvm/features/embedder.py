"""Embedders: scikit-learn transformers from images to vectors, by way of crops and a network."""

import os
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.estimators import (
    check_auxiliary_labels,
    check_labelled_images,
    install,
    real_class,
    seed_of,
)
from cnnsvm.data.images import check_images
from cnnsvm.data.splits import encode_groups
from cnnsvm.features.backbones import Backbone, embedding_dim
from cnnsvm.features.backends import BACKENDS, Way, choose_backend
from cnnsvm.features.cache import fit_network, task_folder
from cnnsvm.features.crops import (
    OUTPUTS,
    POOLINGS,
    cut_crops,
    embed_crops,
    score_crops,
    to_tensor,
)
from cnnsvm.features.devices import HELPERS, PRECISIONS, choose_device, choose_precision
from cnnsvm.features.finetuning import AuxiliaryLabels, validation_split
from cnnsvm.features.reading import Decoded, read_ahead
from cnnsvm.features.saved import is_saved_network, load_saved_network
from cnnsvm.features.state import plain_params
from cnnsvm.features.trainer import Training
from cnnsvm.features.tuning import FineTuning, training_of
from cnnsvm.io.callbacks import check_callbacks

_FRACTION = [Interval(Real, 0, 1, closed="right"), None]


class CropEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """What `CNNEmbedder` and `ResidualStatistics` share: all but their network.

    Attributes
    ----------
    network_ : Backbone
        The fitted network, on the CPU.
    history_ : list of dict
        Losses and metrics of the fine-tuning, one entry an epoch. With auxiliary labels the
        training loss is theirs, all else is of the classes.
    embedding_dim_ : int
        Length of an embedding.
    validation_rows_ : ndarray of bool, shape (n_images,), or None
        Training images that early stopping watched and the network did not learn from; None if
        nothing was trained.
    trained_on_ : ndarray of uint64 or None
        Perceptual hashes of the images that the initial weights were trained on, if they come from
        a saved detector.
    fitted_way_ : Way
        Backend and precision of the embeddings that a classifier on top was fitted on.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "weights": [str, os.PathLike, None],
        "finetune": [StrOptions({"none", "head", "full"}), FineTuning],
        "crop_size": [Interval(Integral, 16, 4096, closed="both")],
        "n_crops": [Interval(Integral, 1, 10_000, closed="both"), None],
        "mirror": ["boolean"],
        "pooling": [StrOptions(set(POOLINGS))],
        "output": [StrOptions(set(OUTPUTS))],
        "resize": [Interval(Integral, 16, 4096, closed="both"), None],
        "batch_size": [Interval(Integral, 2, 65_536, closed="both")],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "backend": [StrOptions(set(BACKENDS))],
        "gpu_memory_fraction": _FRACTION,
        "n_jobs": [Interval(Integral, 1, None, closed="left"), None],
        "cache_dir": [str, os.PathLike, None],
        "random_state": ["random_state"],
    }
    #: Parameters that saved weights must agree with.
    architecture: ClassVar[tuple[str, ...]] = ()

    weights: Any
    finetune: Any
    crop_size: int
    n_crops: int | None
    mirror: bool
    pooling: str
    output: str
    resize: int | None = None
    batch_size: int
    device: str
    precision: str
    backend: str
    gpu_memory_fraction: float | None
    n_jobs: int | None
    cache_dir: Any
    random_state: Any
    network_: Backbone
    fitted_way_: Way
    embedding_dim_: int

    def fit(self, images: Any, y: Any = None, groups: Any = None) -> Self:
        """Build the network and fine-tune it.

        Parameters
        ----------
        images : list, Series or array of images, or a manifest
            Paths, bytes, PIL images or uint8 arrays, also mixed; or a DataFrame with a ``path``
            column.
        y : array-like of shape (n_images,)
            Class labels; not needed with ``finetune="none"``.
        groups : array-like of shape (n_images,), optional
            The source of each image: early stopping watches whole sources.

        Raises
        ------
        ValueError
            For bad parameters, labels, groups, images (`ImageError`), weights (`WeightsError`) or
            devices (`DeviceError`).
        """
        return self._fit(images, y, groups, None)

    def _fit(self, images: Any, y: Any, groups: Any, auxiliary_labels: Any) -> Self:
        self.check_params()
        seed, tuning = seed_of(self.random_state), self._tuning()
        if is_saved_network(self.weights):
            mode = None if tuning is None else tuning.mode
            network, trained_on = load_saved_network(self.weights, self, mode)
        else:
            network, trained_on = self._new_network(seed, tuning), None
        embedding_dim(network, self.crop_size)
        history: list[dict[str, float]] = []
        validation_rows = None
        if tuning is not None:
            images, y, groups = check_labelled_images(images, y, groups)
            auxiliary_labels = check_auxiliary_labels(auxiliary_labels, y)
            data = (images, y, groups, auxiliary_labels)
            history, validation_rows = self._finetune(network, tuning, seed, *data)
        elif auxiliary_labels is not None:
            raise ValueError("auxiliary_labels train a network, but finetune='none' trains none.")
        install(
            self,
            network_=network,
            history_=history,
            validation_rows_=validation_rows,
            embedding_dim_=self._embedding_dim(network),
            trained_on_=trained_on,
            fitted_way_=self.choose_way(network),
        )
        return self

    def transform(self, images: Any) -> np.ndarray:
        """Embed images in their order, float32 (n_images, ``embedding_dim_``).

        An ImageError is raised if one cannot be read.
        """
        check_is_fitted(self, "network_")
        decoded = Decoded(check_images(images), memory=0, resize=self.resize)
        device, dtype = self.place()
        backend = self.choose_way(self.network_).backend
        shape = (int(self.crop_size), self.n_crops, bool(self.mirror))
        embeddings = embed_crops(
            self.network_,
            (cut_crops(image, *shape) for image in read_ahead(decoded, self.n_jobs)),
            pooling=self.pooling,
            output=self.output,
            batch_size=int(self.batch_size),
            device=device,
            dtype=dtype,
            backend=backend,
        )
        self.network_.cpu()
        return embeddings

    def score_crops(self, crops: np.ndarray) -> np.ndarray:
        """Return the log-odds that crops are fake, by the classifier that fine-tuning trained.

        From uint8 (n, crop_size, crop_size, 3) to float32 (n,).
        """
        check_is_fitted(self, "network_")
        device, dtype = self.place()
        backend = self.choose_way(self.network_).backend
        network = self.network_.to(device)
        scores = score_crops(network, to_tensor(crops), dtype, int(self.batch_size), backend)
        self.network_.cpu()
        return scores

    def held_out(self, y: np.ndarray, groups: Any = None) -> np.ndarray:
        """Find the images that `fit` would keep from the network, for early stopping.

        They are what a classifier of frozen embedders can be fitted on where there are no other
        images: what a network says of those that it has learnt from is too good. Returns sorted
        positions, the same for every embedder of this ``validation_fraction`` and integer
        ``random_state``.
        """
        tuning = self._tuning()
        if tuning is None:
            raise ValueError("finetune='none' keeps no images from the network. Use a FineTuning.")
        codes = np.unique(y, return_inverse=True)[1]
        return _validation_rows(
            codes, groups, training_of(self, tuning, seed_of(self.random_state))
        )

    @property
    def has_classifier(self) -> bool:
        """Whether fine-tuning has left a classifier of crops, which heatmaps need."""
        return self.network_.classifier is not None

    def check_params(self) -> None:
        """Check the parameters alone and against each other (`ValueError`)."""
        self._validate_params()
        if isinstance(self.finetune, FineTuning):
            self.finetune._validate_params()
            check_callbacks(self.finetune.callbacks)
        untrained = self._tuning() is None and not is_saved_network(self.weights)
        for name, value in (("pooling", self.pooling), ("output", self.output)):
            if untrained and ("top" in value or value == "scores"):
                raise ValueError(
                    f"{name}={value!r} uses the classifier that fine-tuning trains, and "
                    "finetune='none' trains none. Use finetune='full' or 'head', or the weights "
                    "of a saved detector."
                )

    def _new_network(self, seed: int, tuning: FineTuning | None) -> Backbone:
        raise NotImplementedError

    def empty_network(self, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Backbone:
        """Build a network of the architecture that `cnnsvm.features.state.to_state` described."""
        raise NotImplementedError

    def _tuning(self) -> FineTuning | None:
        if isinstance(self.finetune, FineTuning):
            return self.finetune
        return None if self.finetune == "none" else FineTuning(self.finetune)

    def _finetune(
        self,
        network: Backbone,
        tuning: FineTuning,
        seed: int,
        images: Sequence[Any],
        y: np.ndarray,
        groups: np.ndarray | None,
        auxiliary_labels: np.ndarray | None,
    ) -> tuple[list[dict[str, float]], np.ndarray]:
        classes, codes = np.unique(y, return_inverse=True)
        network.real_class = real_class(classes)
        auxiliary = None
        if auxiliary_labels is not None:
            auxiliary = AuxiliaryLabels.of(auxiliary_labels, codes)
        training = training_of(self, tuning, seed)
        settings = [type(self).__name__, plain_params(self), classes.tolist()]
        settings[1].pop("backend", None)  # torch trains
        settings += [replace(training, callbacks=())]
        settings += [] if auxiliary is None else [auxiliary.parents, auxiliary.codes.tobytes()]
        together = HELPERS.get()
        settings += [] if together.count == 1 else [together]
        cache = task_folder(self.cache_dir, [network], images, codes, groups, settings)
        decoded = images
        if self.resize is not None:
            decoded = Decoded(images, resize=self.resize)
        history = fit_network(network, decoded, codes, groups, training, cache, auxiliary)
        held_out = np.zeros(len(codes), dtype=bool)
        held_out[_validation_rows(codes, groups, training)] = True
        return history, held_out

    def choose_way(self, network: Backbone) -> Way:
        """Find the backend and the precision that ``backend`` and ``precision`` ask for here."""
        device, dtype = self.place()
        backend = choose_backend(self.backend, network, int(self.crop_size), device, dtype)
        return Way(backend, str(dtype).removeprefix("torch."))

    def place(self) -> tuple[torch.device, torch.dtype]:
        """Return where and how precisely the network runs."""
        device = choose_device(self.device, self.gpu_memory_fraction)
        return device, choose_precision(self.precision, device)

    def usual_rate(self, tuning: FineTuning) -> float:
        """Return the learning rate that a training has unless it is given."""
        return 1e-3

    def _embedding_dim(self, network: Backbone) -> int:
        one = embedding_dim(network, self.crop_size)
        if self.output == "scores":
            with torch.inference_mode():
                one = network.class_scores(torch.zeros(1, one)).shape[1]
        return one * len(POOLINGS[self.pooling])

    @property
    def _n_features_out(self) -> int:
        return self.embedding_dim_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags


def _validation_rows(codes: np.ndarray, groups: Any, training: Training) -> np.ndarray:
    return np.sort(validation_split(codes, encode_groups(groups, len(codes)), training)[1])
