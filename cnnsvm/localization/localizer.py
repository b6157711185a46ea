"""InpaintLocalizer: a segmentation network that marks repainted pixels, as an estimator."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.estimators import install
from cnnsvm.data.images import as_image_list, load_image
from cnnsvm.features.backends import folded
from cnnsvm.features.devices import PRECISIONS, choose_device, choose_precision
from cnnsvm.features.reading import is_rgb
from cnnsvm.io.bundle import SHIPPED_LOCALIZER, rebuild
from cnnsvm.localization import pretrained
from cnnsvm.localization.architectures import ARCHITECTURES, AnySize, build_network
from cnnsvm.localization.fitting import fit_localizer
from cnnsvm.localization.masks import POLICIES, check_training_pairs, load_pair
from cnnsvm.localization.patches import Tiling, predict_map
from cnnsvm.localization.pixel_scores import edges_with, histogram_scores, pixel_histogram
from cnnsvm.localization.training import LocalizerTraining


class InpaintLocalizer(BaseEstimator):
    """Mark the pixels of an image that were repainted.

    A fully convolutional network, trained on native-resolution patches of images and their masks.
    Nothing is resized, and no mask is needed to predict. Images of one group are never separated
    by the split that early stopping needs.

    Parameters
    ----------
    architecture : {"fcn_resnet50", "nixnet", "iidnet"}, default="fcn_resnet50"
        A key of `cnnsvm.localization.architectures.ARCHITECTURES`.
    size : str or None, default=None
        Preset of "nixnet" and "iidnet".
    genotype : sequence of sequences of str or None, default=None
        Operations of the cells of "iidnet"; None takes the published ones.
    weights : None, "imagenet" or path, default=None
        Initial weights of the backbone of "fcn_resnet50"; None takes random ones.
    preprocessing : str or None, default=None
        How pixels become the input of "fcn_resnet50": a key of
        `cnnsvm.features.preprocessing.PREPROCESSING`.
    training : LocalizerTraining or None, default=None
        Loss, schedule, patches and augmentation; None takes the defaults of `LocalizerTraining`.
    mask_policy : {"any", "half", "full"}, default="half"
        Grey values of a mask that count as repainted: above 0, from 128, or 255 only. Arrays of
        bool are taken as they are.
    crop_size : int, default=256
        Side of a training patch in pixels; smaller images are wrapped.
    tile_size, tile_overlap : int, default=512, 64
        Longest side of what the network gets at once when it predicts, and least overlap of two
        such tiles, in pixels. An image that is not larger goes in whole.
    threshold : float in (0, 1) or "iou", default=0.5
        Probability from which a pixel is called repainted. "iou" chooses the one with the
        highest IoU on the validation images.
    distributed : bool, default=False
        Train in all processes that ``torchrun`` has started with this one. Each takes its part
        of every batch; the first one writes.
    batch_size : int, default=8
        Patches a step, over all processes.
    max_pixels : int or None, default=None
        Most pixels of an image to predict; its header is looked at before any pixel is decoded.
        None: 200 million, or what the environment variable CNNSVM_MAX_PIXELS says.
    device, precision : str, default="auto"
        "cpu", "cuda", "cuda:N"; "float32", "bfloat16", "float16". Automatic: CUDA and bfloat16
        where the hardware has them.
    gpu_memory_fraction : float in (0, 1] or None, default=None
        Largest share of the GPU's memory.
    n_jobs : int or None, default=None
        Processes that decode images; None means 1, this one.
    cache_dir : path or None, default=None
        Folder for checkpoints and finished networks, so that an interrupted ``fit`` resumes after
        its last epoch and a repeated one is quick. Entries are named by the content they depend
        on.
    random_state : int, RandomState instance or None, default=None
        Seed of everything random.

    Attributes
    ----------
    network_ : nn.Module
        The trained network, on the CPU.
    history_ : list of dict
        One entry an epoch (see `cnnsvm.localization.trainer.LocalizerTrainer`).
    threshold_ : float
        Probability from which `predict` calls a pixel repainted.
    trained_on_ : ndarray of uint64
        Perceptual hashes of one training image of each source.

    Notes
    -----
    Memory of a prediction: 7 bytes a pixel of the image, and in the network at once about as
    many pixels as a training batch has (``batch_size * crop_size**2``), or one tile if that has
    more. What that takes depends on the network, but not on the size of the image. The maps that
    are returned take 4 bytes a pixel: give large collections in parts.

    Examples
    --------
    >>> from cnnsvm import InpaintLocalizer, LocalizerTraining
    >>> localizer = InpaintLocalizer(
    ...     "iidnet", training=LocalizerTraining(epochs=40), random_state=0
    ... )                                                               # doctest: +SKIP
    >>> localizer.fit(paths, mask_paths, groups=source_ids)            # doctest: +SKIP
    >>> localizer.predict_proba(["painting.png"])[0]                   # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "architecture": [StrOptions(set(ARCHITECTURES))],
        "size": [str, None],
        "genotype": [list, tuple, None],
        "weights": [str, os.PathLike, None],
        "preprocessing": [str, None],
        "training": [LocalizerTraining, None],
        "mask_policy": [StrOptions(set(POLICIES))],
        "crop_size": [Interval(Integral, 16, None, closed="left")],
        "tile_size": [Interval(Integral, 16, None, closed="left")],
        "tile_overlap": [Interval(Integral, 0, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="neither"), StrOptions({"iou"})],
        "distributed": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_pixels": [None, Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "precision": [StrOptions(set(PRECISIONS))],
        "gpu_memory_fraction": [Interval(Real, 0, 1, closed="right"), None],
        "n_jobs": [Interval(Integral, 1, None, closed="left"), None],
        "cache_dir": [str, os.PathLike, None],
        "random_state": ["random_state"],
    }

    network_: AnySize
    history_: list[dict[str, Any]]
    threshold_: float
    trained_on_: np.ndarray

    def __init__(
        self,
        architecture: str = "fcn_resnet50",
        *,
        size: str | None = None,
        genotype: Sequence[Sequence[str]] | None = None,
        weights: str | os.PathLike[str] | None = None,
        preprocessing: str | None = None,
        training: LocalizerTraining | None = None,
        mask_policy: str = "half",
        crop_size: int = 256,
        tile_size: int = 512,
        tile_overlap: int = 64,
        threshold: float | str = 0.5,
        distributed: bool = False,
        batch_size: int = 8,
        max_pixels: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        gpu_memory_fraction: float | None = None,
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.architecture = architecture
        self.size = size
        self.genotype = genotype
        self.weights = weights
        self.preprocessing = preprocessing
        self.training = training
        self.mask_policy = mask_policy
        self.crop_size = crop_size
        self.tile_size = tile_size
        self.tile_overlap = tile_overlap
        self.threshold = threshold
        self.distributed = distributed
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.device = device
        self.precision = precision
        self.gpu_memory_fraction = gpu_memory_fraction
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    @property
    def settings(self) -> LocalizerTraining:
        """The settings of the training, with their defaults if none are given."""
        return self.training or LocalizerTraining()

    def check_params(self) -> None:
        """Check the parameters alone and against each other (`ValueError`)."""
        self._validate_params()
        self.settings._validate_params()
        choose_device(self.device)
        if self.tile_overlap >= self.tile_size:
            raise ValueError(
                f"tile_overlap must be below tile_size, got {self.tile_overlap!r} and "
                f"{self.tile_size!r}."
            )

    def build_network(self, seed: int = 0) -> AnySize:
        """Build the untrained network that the parameters describe."""
        return build_network(
            self.architecture,
            size=self.size,
            genotype=self.genotype,
            weights=self.weights,
            preprocessing=self.preprocessing,
            random_state=seed,
        )

    def fit(
        self, images: Any, masks: Any = None, groups: Sequence[Any] | np.ndarray | None = None
    ) -> Self:
        """Train the network.

        A fit that fails or is interrupted leaves the estimator as it was.

        Parameters
        ----------
        images : list, Series or array of images, or a manifest
            Paths, bytes, PIL images or uint8 arrays, also mixed; or a DataFrame with a ``path``
            column.
        masks : sequence of masks
            One an image: a path, bytes, a PIL image, an array of bool or uint8 of the size of
            the upright image, or None (also NaN or "") for an untouched image. None instead of
            a sequence takes the ``mask_path`` column of a manifest.
        groups : array-like of shape (n_images,), optional
            The source of each image; None takes the ``source_id`` column of a manifest, and
            otherwise makes each image its own source.

        Raises
        ------
        ValueError
            For bad parameters, groups, images (`ImageError`), masks (`MaskError`), weights
            (`WeightsError`) or devices (`DeviceError`), masks that are all empty, and training
            that never had a finite loss (`DivergedError`).
        """
        self.check_params()
        pairs = check_training_pairs(images, masks, groups)
        install(self, **fit_localizer(self, *pairs))
        return self

    def predict_proba(self, images: Any) -> list[np.ndarray]:
        """Return the probability of each pixel that it was repainted.

        Parameters
        ----------
        images : list, Series or array of images, or a manifest
            Of any size, at least one pixel.

        Returns
        -------
        list of ndarray of float32, shape (H, W), in [0, 1]
            One an image, upright as `cnnsvm.data.images.load_image` gives it. The batch size does
            not matter but for rounding.

        Raises
        ------
        ImageError
            If an image cannot be read.
        """
        with self._placed() as (network, tiling):
            listed = as_image_list(images)
            return [predict_map(network, self._read(image), tiling) for image in listed]

    def predict(self, images: Any) -> list[np.ndarray]:
        """Mark pixels with at least ``threshold_``: a list of bool (H, W), one an image."""
        with self._placed() as (network, tiling):
            limit, listed = np.float32(self.threshold_), as_image_list(images)
            return [predict_map(network, self._read(x), tiling) >= limit for x in listed]

    def score(self, images: Any, masks: Any = None) -> float:
        """Return the mean IoU over the images; images and masks are as for `fit`.

        An untouched image counts 1 if nothing is called repainted in it and else 0;
        `cnnsvm.evaluation.localization_metrics` reports such images apart.
        """
        given = check_training_pairs(images, masks, None)[:2]
        ious = []
        with self._placed() as (network, tiling):
            edges = edges_with(self.threshold_)
            for pair in zip(*given, strict=True):
                pixels, mask = load_pair(*pair, self.mask_policy, self.max_pixels)
                probability = predict_map(network, pixels, tiling)
                counts = pixel_histogram(mask, probability, edges)
                ious.append(histogram_scores(counts, edges, self.threshold_)["iou"])
        return float(np.mean(ious))

    save_pretrained = pretrained.save_pretrained

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str] = SHIPPED_LOCALIZER) -> Self:
        """Read a localiser that `save_pretrained` wrote, or without a folder the one that ships.

        A BundleError is raised if the folder's schema is not this library's, or a file is missing,
        changed or outside it.
        """
        return rebuild(folder, pretrained.KIND, partial(pretrained.from_state, cls))[0]

    def _read(self, image: Any) -> np.ndarray:
        return image if is_rgb(image) else load_image(image, max_pixels=self.max_pixels)

    @contextlib.contextmanager
    def _placed(self) -> Iterator[tuple[AnySize, Tiling]]:
        """Bring the network to its device for a while, and say how images go through it."""
        check_is_fitted(self, "network_")
        device = choose_device(self.device, self.gpu_memory_fraction)
        tiling = Tiling(
            tile=self.tile_size,
            overlap=self.tile_overlap,
            most_pixels=self.batch_size * self.crop_size**2,
            device=device,
            dtype=choose_precision(self.precision, device),
        )
        network = self.network_.to(device)
        if isinstance(network, AnySize) and (device.type, tiling.dtype) == ("cpu", torch.float32):
            network = AnySize(folded(network.body))
        try:
            yield network, tiling
        finally:  # an image that cannot be read must not leave it on the GPU
            self.network_.cpu()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.target_tags.required = True
        return tags
