"""InpaintDetector: a fine-tuned CNN backbone and tuned SVMs as one scikit-learn classifier."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from cnnsvm.detection import bundle, pretrained
from cnnsvm.detection.checks import (
    PRECOMPUTED,
    check_auxiliary_labels,
    check_class_names,
    check_detector_params,
    check_images,
    check_labelled_images,
    check_teaches,
)
from cnnsvm.detection.fitting import embedding_of, fit_on_images, fit_svm, seed_of
from cnnsvm.detection.heatmap import heatmap
from cnnsvm.detection.reject import of_unknown_size, offset, predicted_codes, with_unsure

if TYPE_CHECKING:
    from cnnsvm.detection.model_card import ModelCard


#: Attributes that not every fit sets: those of an earlier one must not stay.
_OF_ONE_FIT = (
    "network_",
    "history_",
    "n_features_in_",
    "feature_names_in_",
    "trained_on_",
    "max_side_",
    "min_side_",
)


def _calibrates(detector: "InpaintDetector") -> bool:
    if not detector.calibrate:
        raise AttributeError("predict_proba needs calibrate=True; decision_function gives margins.")
    return True


class InpaintDetector(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Tell inpainted images from untouched ones.

    A torchvision backbone, fine-tuned on the training images, turns native-resolution crops into
    embeddings; a support vector machine tuned by Optuna classifies the pooled embedding of each
    image. Whatever is fitted (network, scaling, tuning, calibration, threshold) sees the training
    images only, and images of one group are never separated by an inner split.

    Parameters
    ----------
    backbone : str, default="resnet18"
        A key of `cnnsvm.features.backbones.BACKBONES`, or "precomputed": X is then a 2-D array of
        embeddings and only the SVM is used.
    weights : None, "imagenet", "cnnsvm", "cifake" or path, default="imagenet"
        Initial weights: torchvision's, a .safetensors/.pth file, or None for random ones. The
        folder of a saved detector, or the name of one that ships, gives that detector's network;
        the parameters that shape it must be as they were there.
    stem : {"native", "nopool", "nodown", "small"}, default="native"
        How the network begins: as published, without its first max pool, with its first
        convolution and max pool at stride 1, or with a 3x3 convolution at stride 1 and no pool,
        for pictures of 32 pixels (see `cnnsvm.features.stems.STEMS`).
    truncate_at : str or None, default=None
        Last stage that is kept, such as "layer2" of a ResNet; low-level traces need no deep ones.
    preprocessing : str or dict, default="auto"
        How pixels become the network's input: a key of
        `cnnsvm.features.preprocessing.PREPROCESSING` ("imagenet", "caffe", "residual",
        "residual_bank") or the fields of a `Preprocessing`. "auto" is "residual" for a network
        that starts from random weights, which then sees high-pass residuals rather than pictures,
        and else "imagenet".
    finetune : {"none", "head", "full"}, default="full"
        What is trained before the SVM: nothing, a 256-feature projection on the frozen backbone,
        or the whole backbone.
    epochs, patience : int, default=20, 5
        Most epochs of fine-tuning, and epochs without improvement before it stops.
    learning_rate : float or None, default=None
        Peak learning rate; None takes 1e-4 for a whole pretrained backbone, else 1e-3.
    weight_decay : float, default=0.01
    validation_fraction : float in (0, 0.5], default=0.2
        Share of the training sources that early stopping watches.
    augmentation : {"none", "geometric", "small", "full", "jpeg", "robust"}, default="full"
        See `cnnsvm.features.augmentation.AUGMENTATIONS`. A source and its fakes get the same.
    pairs_per_source : int or None, default=None
        Crops of each class that a source gives in an epoch, at most; None takes every image.
    crop_size : int, default=128
        Side of a crop in pixels; nothing is resized, smaller images are wrapped.
    n_crops : int, default=4
        Crops of an image at most, when embedding.
    mirror : bool, default=False
        Embed the mirror image of each crop too, which takes twice as long.
    pooling : {"mean", "mean_max", "mean_std", "mean_top", "mean_std_top"}, default="mean_std"
        How the embeddings of an image's crops become one; "top" is the mean of the quarter of the
        crops that look the most fake, for images that were repainted in part.
    statistics : bool, default=False
        Put residual statistics (`cnnsvm.features.statistics`) behind the network's embedding: as
        they are with ``finetune="none"``, else what two layers make of them, trained before the
        network on ``epochs`` rounds of crops. ``backbone="statistics"`` has them alone.
    ensemble : tuple of "cnnsvm", "cifake" or paths, default=()
        Saved detectors whose networks see the crops too, as they are: their embeddings stand behind
        this network's. Fit the SVM on images that none of the frozen networks has learnt from, as
        what they say of others is too good.
    fusion : {"embeddings", "scores"}, default="embeddings"
        What the SVM is fitted on: the embeddings of all networks, or only what the layer says that
        fine-tuning trained on each, a few numbers an image, where there are not thousands of images
        for the embeddings of several networks.
    n_views : int or None, default=None
        None fits the SVM on the images as they are. A number fits it on so many views of each
        class of each source: the first as it is, the others degraded by the augmentation, so that
        the SVM knows what a codec does to the embedding and the classes are balanced.
    kernel : str or tuple of str, default="rbf"
        Kernels of `cnnsvm.svm.TunedSVC`.
    voting : None or "soft", default=None
        Soft vote of the best of each kernel.
    n_trials, cv : int, default=30, 3
        Optuna trials a kernel, and inner folds.
    nystroem : int or None, default=None
        Landmarks that stand for all rows in the SVM, for tens of thousands of images, such as
        1000; None is exact. See `cnnsvm.svm.TunedSVC`.
    calibrate : bool, default=True
        Whether there are probabilities.
    threshold : float in (0, 1) or "balanced_accuracy", default=0.5
        Probability of ``classes_[1]`` from which an image is called that, for two classes.
        "balanced_accuracy" chooses it on the grouped out-of-fold scores of the training images.
    max_error : float in (0, 1) or None, default=None
        Share of verdicts to be wrong at most; `verdict` says "unsure" where that cannot be kept.
        It is a target, met on average on held-out sources of the training, and no guarantee for
        other pictures.
    device, precision : str, default="auto"
        "cpu", "cuda", "cuda:N"; "float32", "bfloat16", "float16". Automatic: CUDA and bfloat16
        where the hardware has them.
    gpu_memory_fraction : float in (0, 1] or None, default=None
        Largest share of the GPU's memory.
    batch_size : int, default=16
        Crops a step.
    n_jobs : int or None, default=None
        Processes that decode images; None decodes in this one.
    cache_dir : path or None, default=None
        Folder for the fine-tuned network, embeddings and studies, so that an interrupted ``fit``
        goes on and a repeated one is quick. Entries are named by the content they depend on.
    verbose : bool, default=False
        Progress bars of the Optuna search, if standard error is a terminal.
    random_state : int, RandomState instance or None, default=None
        Seed of everything random.

    Attributes
    ----------
    classes_ : ndarray
        Class labels, sorted. With labels 0 and 1, 1 is fake.
    network_ : Backbone
        The fine-tuned network; absent with precomputed embeddings.
    history_ : list of dict
        Losses and metrics of the fine-tuning, one entry an epoch. With ``auxiliary_labels`` the
        training loss is that of the finer classes, all else of the classes.
    svm_ : TunedSVC
        The tuned classifier.
    threshold_ : float
        Probability from which ``classes_[1]`` is predicted (two classes).
    confidence_ : float
        Probability of the predicted class above which `verdict` commits itself (0 without
        ``max_error``), chosen on the grouped out-of-fold scores that calibrate.
    min_side_, max_side_ : int
        Shortest and longest side of the training images in pixels (0: unknown); absent for
        precomputed embeddings.
    n_features_in_ : int
        Length of a precomputed embedding; absent for images.

    Notes
    -----
    The inner folds separate sources for the SVM, but a fine-tuned network has learnt from all of
    them but those of early stopping. If these are at least 10 sources, only their out-of-fold
    scores calibrate and choose the threshold and the confidence; with fewer, all scores do, and
    the probabilities of a network that has learnt its training images by heart are too sure. The
    outer folds of `cnnsvm.evaluation.protocol.run_study` show by how much (Brier score, ECE).

    Examples
    --------
    >>> detector = InpaintDetector(weights=None, random_state=0)      # doctest: +SKIP
    >>> detector.fit(paths, y, groups=source_ids)                     # doctest: +SKIP
    >>> detector.predict_proba(["painting.png"])                      # doctest: +SKIP
    """

    def __init__(
        self,
        backbone: str = "resnet18",
        *,
        weights: str | os.PathLike[str] | None = "imagenet",
        stem: str = "native",
        truncate_at: str | None = None,
        preprocessing: str | dict[str, Any] = "auto",
        finetune: str = "full",
        epochs: int = 20,
        patience: int = 5,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.2,
        augmentation: str = "full",
        pairs_per_source: int | None = None,
        crop_size: int = 128,
        n_crops: int = 4,
        mirror: bool = False,
        pooling: str = "mean_std",
        statistics: bool = False,
        ensemble: tuple[str | os.PathLike[str], ...] = (),
        fusion: str = "embeddings",
        n_views: int | None = None,
        kernel: str | tuple[str, ...] = "rbf",
        voting: str | None = None,
        n_trials: int = 30,
        cv: int = 3,
        nystroem: int | None = None,
        calibrate: bool = True,
        threshold: float | str = 0.5,
        max_error: float | None = None,
        device: str = "auto",
        precision: str = "auto",
        gpu_memory_fraction: float | None = None,
        batch_size: int = 16,
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.stem = stem
        self.truncate_at = truncate_at
        self.preprocessing = preprocessing
        self.finetune = finetune
        self.epochs = epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.augmentation = augmentation
        self.pairs_per_source = pairs_per_source
        self.crop_size = crop_size
        self.n_crops = n_crops
        self.mirror = mirror
        self.pooling = pooling
        self.statistics = statistics
        self.ensemble = ensemble
        self.fusion = fusion
        self.n_views = n_views
        self.kernel = kernel
        self.voting = voting
        self.n_trials = n_trials
        self.cv = cv
        self.nystroem = nystroem
        self.calibrate = calibrate
        self.threshold = threshold
        self.max_error = max_error
        self.device = device
        self.precision = precision
        self.gpu_memory_fraction = gpu_memory_fraction
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.verbose = verbose
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        groups: Sequence[Any] | np.ndarray | None = None,
        auxiliary_labels: Sequence[Any] | np.ndarray | None = None,
    ) -> Self:
        """Fine-tune, embed, tune, calibrate.

        Parameters
        ----------
        X : list, Series or array of images, or a manifest
            Paths, bytes, PIL images or uint8 arrays, also mixed; or a DataFrame with a ``path``
            column. With ``backbone="precomputed"``, an array of shape (n_samples, n_features).
        y : array-like of shape (n_samples,)
            Class labels; None takes the ``label`` column of a manifest.
        groups : array-like of shape (n_samples,), optional
            The source of each image; None takes the ``source_id`` column of a manifest, and
            otherwise makes each image its own source.
        auxiliary_labels : array-like of shape (n_samples,), optional
            Finer classes that the network is taught, each within one class of ``y``, such as "cat,
            fake" instead of "fake": what a picture shows beside whether it is real. The SVM is
            fitted on ``y`` all the same, and nothing finer is predicted.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, labels, groups, fine labels, images (`ImageError`), weights
            (`WeightsError`) or devices (`DeviceError`).
        """
        check_detector_params(self.get_params(deep=False))
        for left in _OF_ONE_FIT:
            self.__dict__.pop(left, None)
        seed = seed_of(self.random_state)
        check_teaches(self, auxiliary_labels)
        if self.backbone == PRECOMPUTED:
            embeddings, labels = validate_data(self, X, y, ensure_all_finite=False)
            check_class_names(labels)
            fit_svm(self, embeddings, labels, groups, seed)
        else:
            images, labels, groups = check_labelled_images(X, y, groups)
            fine = check_auxiliary_labels(auxiliary_labels, labels)
            fit_on_images(self, images, labels, groups, seed, fine)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_embedding)
            In the order of X; precomputed embeddings come back as they are.
        """
        check_is_fitted(self, "svm_")
        if self.backbone == PRECOMPUTED:
            return validate_data(self, X, reset=False)
        return embedding_of(self)(self.network_, check_images(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """Score images.

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_classes)
            For two classes the log-odds of ``classes_[1]`` above the threshold's, so that what is
            positive is predicted as that (margins with ``calibrate=False``); else one column a
            class.
        """
        embeddings = self.transform(X)
        scores = self.svm_.decision_function(embeddings)
        return scores if scores.ndim == 2 else scores - offset(self.threshold_)

    @available_if(_calibrates)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Give calibrated probabilities, float64 of shape (n_samples, n_classes), rows sum to 1."""
        embeddings = self.transform(X)
        return self.svm_.predict_proba(embeddings)

    def predict(self, X: Any) -> np.ndarray:
        """Name the class of each image, an array of ``classes_`` of shape (n_samples,)."""
        embeddings = self.transform(X)
        decisions = self.svm_.decision_function(embeddings)
        return self.classes_[predicted_codes(decisions, self.threshold_)]

    def verdict(self, X: Any) -> np.ndarray:
        """Name the class of each image, or say that it cannot be told.

        Returns
        -------
        ndarray of object, shape (n_samples,)
            Labels of ``classes_``, and "unsure" where the probability of the predicted class is
            not above ``confidence_``, or with ``max_error`` where the image is smaller than a crop
            and than all training images, or larger than a single crop that showed each of them
            whole (``min_side_``, ``max_side_``).
        """
        if not self.calibrate:
            raise ValueError("verdict compares probabilities; use calibrate=True.")
        embeddings = self.transform(X)
        probabilities = self.svm_.predict_proba(embeddings)
        codes = predicted_codes(self.svm_.decision_function(embeddings), self.threshold_)
        outside: Any = False
        if self.backbone != PRECOMPUTED and self.max_error is not None:
            outside = of_unknown_size(self, check_images(X))
        return with_unsure(codes, probabilities, self.classes_, self.confidence_, outside)

    def explain(self, image: Any) -> np.ndarray:
        """Show where a picture looks repainted.

        A crop slides over the picture, the classifier that fine-tuning trained judges each place,
        and each pixel averages the windows that it lies in. The map says where the evidence of
        `predict_proba` comes from; its values are those of single crops and not calibrated.

        Parameters
        ----------
        image : path, bytes, PIL image or uint8 array

        Returns
        -------
        ndarray of float32, shape (H, W), in [0, 1]
            1 where crops look the least like untouched ones (the class called real or original,
            else ``classes_[0]``), in the image's own pixels: of the size and orientation in which
            it is stored, before any EXIF rotation.

        Raises
        ------
        ValueError
            If the detector was not fine-tuned, or the image cannot be read (`ImageError`).
        """
        check_is_fitted(self, "svm_")
        return heatmap(self, image)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the fitted detector to a folder of safetensors and JSON (no pickle)."""
        check_is_fitted(self, "svm_")
        return bundle.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read a detector that `save` wrote.

        Raises
        ------
        BundleError
            If the folder's schema is newer, or a file is missing, changed or outside it.
        """
        return bundle.load(cls, folder)

    def save_pretrained(
        self, folder: str | os.PathLike[str], card: "ModelCard | None" = None
    ) -> Path:
        """Write the fitted detector to share: half-precision weights and a model card.

        Parameters
        ----------
        folder : path
        card : cnnsvm.detection.model_card.ModelCard or None
            What it was trained and tested on; None says that this is not known.
        """
        check_is_fitted(self, "svm_")
        return pretrained.save_pretrained(self, folder, card=card)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str] | None = None, *, revision: str | None = None
    ) -> Self:
        """Load a fitted detector.

        Parameters
        ----------
        name_or_path : str, path or None
            None is the detector of inpainting that ships with this package, "cifake" the one of
            32-pixel pictures that does; else a folder of `save` or `save_pretrained` (one of that
            name is ``./cifake``), or an id of the Hugging Face hub (``owner/name``).
        revision : str or None
            Commit, tag or branch on the hub; name a commit, so that nobody can change what you
            load.

        Raises
        ------
        BundleError
            If it cannot be had, or a byte of it has changed.
        """
        return pretrained.load_pretrained(cls, name_or_path, revision=revision)

    @property
    def _n_features_out(self) -> int:
        return self.svm_.n_features_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.backbone == PRECOMPUTED
        tags.input_tags.string = self.backbone != PRECOMPUTED
        return tags
