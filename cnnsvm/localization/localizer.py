"""InpaintLocalizer: a segmentation network that marks repainted pixels, as an estimator."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.images import as_image_list, load_image
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.processes import writes
from cnnsvm.localization import bundle
from cnnsvm.localization.checks import check_localizer_params, check_training_pairs
from cnnsvm.localization.fitting import fit_on_pairs
from cnnsvm.localization.masks import load_pair
from cnnsvm.localization.pixel_scores import edges_with, histogram_scores, pixel_histogram
from cnnsvm.localization.tiling import Tiling, predict_map


class InpaintLocalizer(BaseEstimator):
    """Mark the pixels of a picture that were repainted.

    A fully convolutional network, trained on native-resolution patches of images and their masks.
    Nothing is resized, and no mask is needed to predict. Images of one group are never separated
    by the split that tells when to stop.

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
    mask_policy : {"any", "half", "full"}, default="half"
        Grey values of a mask that count as repainted: above 0, from 128, or 255 only. Arrays of
        bool are taken as they are.
    loss : {"focal", "bce", "dice"}, default="focal"
        See `cnnsvm.localization.losses`.
    optimizer : {"adamw", "adam"}, default="adamw"
    learning_rate : float, default=1e-3
        Peak rate of the one-cycle schedule.
    weight_decay : float, default=0.01
    epochs, patience : int, default=20, 5
        Most epochs, and epochs without a better validation IoU before training stops.
    max_restarts : int, default=2
        How often a training that collapsed (it calls nothing repainted, or everything, and stays
        there) or diverged begins again at a fifth of the rate, with the best weights so far.
        After that its best weights are kept with a ``ConvergenceWarning``.
    validation_fraction : float in (0, 0.5], default=0.2
        Share of the training sources that early stopping watches.
    augmentation : {"none", "geometric", "full", "jpeg", "robust"}, default="full"
        See `cnnsvm.features.augmentation.AUGMENTATIONS`. The mask goes through the same place,
        resizing, turns and flips; blur, noise and codecs are the image's alone. Half of the
        recompressed patches lie on the picture's own 8-pixel grid.
    warmup : float in [0, 1], default=0.5
        Share of the epochs over which degradations (resizing, blur, noise, codecs) grow from
        never to as often as the augmentation says. Strong ones from the first step on leave
        little to learn from. The weights kept are of an epoch after that, if one is of use.
    crop_size : int, default=256
        Side of a training patch in pixels; smaller images are wrapped.
    crops_per_image : int, default=1
        Patches that an image gives in an epoch.
    n_crops : int, default=4
        Patches of a validation image, at most.
    balance : float in [0, 1], default=0.5
        Share of the patches that are placed so that both kinds of pixels occur in them.
    tile_size, tile_overlap : int, default=512, 64
        Longest side of what the network sees at once when it predicts, and least overlap of two
        such tiles, in pixels. A picture that is not larger goes in whole.
    threshold : float in (0, 1) or "iou", default=0.5
        Probability from which a pixel is called repainted. "iou" chooses the one with the
        highest IoU on the validation images.
    distributed : bool, default=False
        Train in all processes that ``torchrun`` has started with this one. Each takes its part
        of every batch; the first one writes.
    device, precision : str, default="auto"
        "cpu", "cuda", "cuda:N"; "float32", "bfloat16", "float16". Automatic: CUDA and bfloat16
        where the hardware has them.
    gpu_memory_fraction : float in (0, 1] or None, default=None
        Largest share of the GPU's memory.
    batch_size : int, default=8
        Patches a step, over all processes.
    n_jobs : int or None, default=None
        Processes that decode images; None decodes in this one.
    cache_dir : path or None, default=None
        Folder for checkpoints and finished networks, so that an interrupted ``fit`` goes on after
        its last epoch and a repeated one is quick. Entries are named by the content they depend
        on.
    random_state : int, RandomState instance or None, default=None
        Seed of everything random.

    Attributes
    ----------
    network_ : nn.Module
        The trained network.
    history_ : list of dict
        One entry an epoch: what it did, in which attempt, and how it did on the validation images
        (see `cnnsvm.localization.trainer.LocalizerTrainer`).
    threshold_ : float
        Probability from which `predict` calls a pixel repainted.
    trained_on_ : ndarray of uint64
        Hashes of the training images, if whoever trained it has set them
        (`cnnsvm.detection.pretrained.hash_images`); saved with it.

    Notes
    -----
    Memory of a prediction: 11 bytes a pixel of the picture, and in the network at once about as
    many pixels as a training batch has (``batch_size * crop_size**2``), or one tile if that has
    more. What that takes depends on the network, but not on the size of the picture. The maps
    that are returned take 4 bytes a pixel: give large collections in parts.

    In several processes on the CPU batch norm sees the part of the batch that a process has; on
    CUDA it sees all of it.

    Examples
    --------
    >>> from cnnsvm import InpaintLocalizer
    >>> localizer = InpaintLocalizer("iidnet", random_state=0)         # doctest: +SKIP
    >>> localizer.fit(paths, mask_paths, groups=source_ids)            # doctest: +SKIP
    >>> localizer.predict_proba(["painting.png"])[0]                   # doctest: +SKIP
    """

    def __init__(
        self,
        architecture: str = "fcn_resnet50",
        *,
        size: str | None = None,
        genotype: Sequence[Sequence[str]] | None = None,
        weights: str | os.PathLike[str] | None = None,
        preprocessing: str | None = None,
        mask_policy: str = "half",
        loss: str = "focal",
        optimizer: str = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        epochs: int = 20,
        patience: int = 5,
        max_restarts: int = 2,
        validation_fraction: float = 0.2,
        augmentation: str = "full",
        warmup: float = 0.5,
        crop_size: int = 256,
        crops_per_image: int = 1,
        n_crops: int = 4,
        balance: float = 0.5,
        tile_size: int = 512,
        tile_overlap: int = 64,
        threshold: float | str = 0.5,
        distributed: bool = False,
        device: str = "auto",
        precision: str = "auto",
        gpu_memory_fraction: float | None = None,
        batch_size: int = 8,
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.architecture = architecture
        self.size = size
        self.genotype = genotype
        self.weights = weights
        self.preprocessing = preprocessing
        self.mask_policy = mask_policy
        self.loss = loss
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.patience = patience
        self.max_restarts = max_restarts
        self.validation_fraction = validation_fraction
        self.augmentation = augmentation
        self.warmup = warmup
        self.crop_size = crop_size
        self.crops_per_image = crops_per_image
        self.n_crops = n_crops
        self.balance = balance
        self.tile_size = tile_size
        self.tile_overlap = tile_overlap
        self.threshold = threshold
        self.distributed = distributed
        self.device = device
        self.precision = precision
        self.gpu_memory_fraction = gpu_memory_fraction
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    def fit(
        self, images: Any, masks: Any = None, groups: Sequence[Any] | np.ndarray | None = None
    ) -> Self:
        """Train the network.

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

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, groups, images (`ImageError`), masks (`MaskError`), weights
            (`WeightsError`) or devices (`DeviceError`), masks that are all empty, and training
            that never had a finite loss (`DivergedError`).
        """
        check_localizer_params(self.get_params(deep=False))
        pairs = check_training_pairs(images, masks, groups)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        self.__dict__.pop("trained_on_", None)  # what an earlier fit has seen
        fit_on_pairs(self, *pairs, seed)
        return self

    def predict_proba(self, images: Any) -> list[np.ndarray]:
        """Tell of each pixel how likely it was repainted.

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
        with self._placed() as tiling:
            listed = as_image_list(images)
            return [predict_map(self.network_, load_image(image), tiling) for image in listed]

    def predict(self, images: Any) -> list[np.ndarray]:
        """Mark the pixels whose probability is at least ``threshold_``.

        Returns
        -------
        list of ndarray of bool, shape (H, W)
        """
        check_is_fitted(self, "network_")
        limit = np.float32(self.threshold_)
        with self._placed() as tiling:
            return [
                predict_map(self.network_, load_image(image), tiling) >= limit
                for image in as_image_list(images)
            ]

    def score(self, images: Any, masks: Any = None) -> float:
        """Return the mean IoU over the images.

        An untouched image counts 1 if nothing is called repainted in it and else 0;
        `cnnsvm.evaluation.localization_metrics` tells such images apart.

        Parameters
        ----------
        images, masks
            As for `fit`.
        """
        given = check_training_pairs(images, masks, None)[:2]
        ious = []
        with self._placed() as tiling:
            edges = edges_with(self.threshold_)
            for pair in zip(*given, strict=True):
                pixels, mask = load_pair(*pair, self.mask_policy)
                probability = predict_map(self.network_, pixels, tiling)
                counts = pixel_histogram(mask, probability, edges)
                ious.append(histogram_scores(counts, edges, self.threshold_)["iou"])
        return float(np.mean(ious))

    def save(self, folder: str | os.PathLike[str], *, half: bool = False) -> Path:
        """Write the fitted localiser to a folder of safetensors and JSON (no pickle).

        Parameters
        ----------
        folder : path
            Made new; a saved model that is there already is replaced, anything else is refused.
        half : bool
            Store the weights of two and more axes as float16, which halves the size.
        """
        check_is_fitted(self, "network_")
        if not writes(self.distributed):
            return Path(folder)
        return bundle.save(self, folder, half)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a localiser that `save` wrote.

        Raises
        ------
        BundleError
            If the folder's schema is newer, or a file is missing, changed or outside it.
        """
        return bundle.load(cls, folder)

    @contextlib.contextmanager
    def _placed(self) -> Iterator[Tiling]:
        """Bring the network to its device for a while, and say how pictures go through it."""
        check_is_fitted(self, "network_")
        device = choose_device(self.device, self.gpu_memory_fraction)
        tiling = Tiling(
            tile=self.tile_size,
            overlap=self.tile_overlap,
            most_pixels=self.batch_size * self.crop_size**2,
            device=device,
            dtype=choose_precision(self.precision, device),
        )
        self.network_.to(device)
        try:
            yield tiling
        finally:  # an image that cannot be read must not leave it on the GPU
            self.network_.cpu()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.target_tags.required = True
        return tags
