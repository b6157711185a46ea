"""InpaintDetector: a fine-tuned CNN backbone and tuned SVMs as one scikit-learn classifier."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.metrics import roc_curve
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from cnnsvm import bundle
from cnnsvm.checks import PRECOMPUTED, check_detector_params, check_images, check_labelled_images
from cnnsvm.devices import choose_device, choose_precision
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.backbones import Backbone, build_backbone, embedding_dim
from cnnsvm.features.extractor import Embedding, fit_embeddings, fit_network, task_folder
from cnnsvm.features.trainer import Training
from cnnsvm.folds import grouped_folds
from cnnsvm.svm import TunedSVC
from cnnsvm.svm.checks import check_finite


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
    weights : None, "imagenet" or path, default="imagenet"
        Initial weights: torchvision's, a .safetensors/.pth file, or None for random ones.
    preprocessing : str or dict, default="auto"
        How pixels become the network's input: a key of
        `cnnsvm.features.backbones.PREPROCESSING` ("imagenet", "caffe", "residual") or the fields
        of a `Preprocessing`. "auto" is "residual" for a network that starts from random weights,
        which then sees high-pass residuals rather than pictures, and else "imagenet".
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
    augmentation : {"none", "geometric", "full"}, default="full"
        See `cnnsvm.features.augmentation.AUGMENTATIONS`.
    crop_size : int, default=128
        Side of a crop in pixels; nothing is resized, smaller images are wrapped.
    n_crops : int, default=4
        Crops of an image at most, when embedding.
    pooling : {"mean", "mean_max", "mean_std"}, default="mean_std"
        How the embeddings of an image's crops become one.
    kernel : str or tuple of str, default="rbf"
        Kernels of `cnnsvm.svm.TunedSVC`.
    voting : None or "soft", default=None
        Soft vote of the best of each kernel.
    n_trials, cv : int, default=30, 3
        Optuna trials a kernel, and inner folds.
    calibrate : bool, default=True
        Whether there are probabilities.
    threshold : float in (0, 1) or "balanced_accuracy", default=0.5
        Probability of ``classes_[1]`` from which an image is called that, for two classes.
        "balanced_accuracy" chooses it on the grouped out-of-fold scores of the training images.
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
        Losses and metrics of the fine-tuning, one entry an epoch.
    svm_ : TunedSVC
        The tuned classifier.
    threshold_ : float
        Probability from which ``classes_[1]`` is predicted (two classes).
    n_features_in_ : int
        Length of a precomputed embedding; absent for images.

    Notes
    -----
    The inner folds that tune, calibrate and choose the threshold separate sources for the SVM,
    but a fine-tuned network has seen the labels of all of them but those of early stopping.
    Probabilities of a network that has learnt its training images by heart are therefore too
    sure; the outer folds of
    `cnnsvm.evaluation.study.run_study` show by how much (Brier score, ECE).

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
        preprocessing: str | dict[str, Any] = "auto",
        finetune: str = "full",
        epochs: int = 20,
        patience: int = 5,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        validation_fraction: float = 0.2,
        augmentation: str = "full",
        crop_size: int = 128,
        n_crops: int = 4,
        pooling: str = "mean_std",
        kernel: str | tuple[str, ...] = "rbf",
        voting: str | None = None,
        n_trials: int = 30,
        cv: int = 3,
        calibrate: bool = True,
        threshold: float | str = 0.5,
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
        self.preprocessing = preprocessing
        self.finetune = finetune
        self.epochs = epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.augmentation = augmentation
        self.crop_size = crop_size
        self.n_crops = n_crops
        self.pooling = pooling
        self.kernel = kernel
        self.voting = voting
        self.n_trials = n_trials
        self.cv = cv
        self.calibrate = calibrate
        self.threshold = threshold
        self.device = device
        self.precision = precision
        self.gpu_memory_fraction = gpu_memory_fraction
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, groups: Sequence[Any] | np.ndarray | None = None) -> Self:
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

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, labels, groups, images (`ImageError`), weights (`WeightsError`)
            or devices (`DeviceError`).
        """
        check_detector_params(self.get_params(deep=False))
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if self.backbone == PRECOMPUTED:
            embeddings, labels = validate_data(self, X, y, ensure_all_finite=False)
            return self._fit_svm(embeddings, labels, groups, seed, None)
        images, labels, groups = check_labelled_images(X, y, groups)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if groups is not None:
            grouped_folds(labels, groups, self.cv)  # better now than after the fine-tuning
        self.network_ = self._build_network(seed)
        embedding_dim(self.network_, self.crop_size)
        training, embedding = self._training(seed), self._embedding()
        settings = [self.backbone, self.classes_.tolist(), training, embedding]
        cache = task_folder(self.cache_dir, self.network_, images, codes, groups, settings)
        self.history_ = fit_network(self.network_, images, codes, groups, training, cache)
        embeddings = fit_embeddings(self.network_, images, embedding, cache)
        return self._fit_svm(embeddings, labels, groups, seed, cache)

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_embedding)
            In the order of X; precomputed embeddings come back as they are.
        """
        check_is_fitted(self, "svm_")
        if self.backbone == PRECOMPUTED:
            embeddings = validate_data(self, X, reset=False, ensure_all_finite=False)
            check_finite(embeddings)
            return embeddings
        return self._embedding()(self.network_, check_images(X))

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
        return scores if scores.ndim == 2 else scores - self._offset()

    @available_if(_calibrates)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Give calibrated probabilities, float64 of shape (n_samples, n_classes), rows sum to 1."""
        embeddings = self.transform(X)
        return self.svm_.predict_proba(embeddings)

    def predict(self, X: Any) -> np.ndarray:
        """Name the class of each image, an array of ``classes_`` of shape (n_samples,)."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[codes]

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

    @property
    def _n_features_out(self) -> int:
        return self.svm_.n_features_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.backbone == PRECOMPUTED
        tags.input_tags.string = self.backbone != PRECOMPUTED
        return tags

    def _fit_svm(
        self, embeddings: np.ndarray, y: np.ndarray, groups: Any, seed: int, cache: Path | None
    ) -> Self:
        self.svm_ = TunedSVC(
            self.kernel,
            voting=self.voting,
            n_trials=self.n_trials,
            cv=self.cv,
            calibrate=self.calibrate,
            storage=None if cache is None else cache / f"studies-{self.cv}.journal",
            verbose=self.verbose,
            random_state=seed,
        ).fit(embeddings, y, groups)
        self.classes_ = self.svm_.classes_
        self.threshold_ = self._choose_threshold(y)
        return self

    def _choose_threshold(self, y: np.ndarray) -> float:
        scores = self.svm_.oof_decision_
        if self.threshold != "balanced_accuracy" or scores.ndim == 2:
            return 0.5 if isinstance(self.threshold, str) else float(self.threshold)
        known = np.isfinite(scores)
        false_rate, true_rate, cuts = roc_curve(y[known] == self.classes_[1], scores[known])
        best = int(np.argmax(true_rate - false_rate))
        below = scores[known][scores[known] < cuts[best]]
        cut = cuts[best] if len(below) == 0 else (cuts[best] + below.max()) / 2
        return float(1 / (1 + np.exp(-np.clip(cut, -30, 30))))

    def _offset(self) -> float:
        return float(np.log(self.threshold_ / (1 - self.threshold_)))

    def _build_network(self, seed: int) -> Backbone:
        usual = "residual" if self.weights is None else "imagenet"
        return build_backbone(
            self.backbone,
            self.weights,
            usual if self.preprocessing == "auto" else self.preprocessing,
            random_state=seed,
            projection=self.finetune == "head",
        )

    def _place(self) -> dict[str, Any]:
        device = choose_device(self.device, self.gpu_memory_fraction)
        return {
            "crop_size": int(self.crop_size),
            "n_crops": int(self.n_crops),
            "batch_size": int(self.batch_size),
            "device": device,
            "dtype": choose_precision(self.precision, device),
            "n_jobs": int(self.n_jobs or 0),
        }

    def _embedding(self) -> Embedding:
        return Embedding(pooling=self.pooling, **self._place())

    def _training(self, seed: int) -> Training:
        whole_pretrained = self.finetune == "full" and self.weights is not None
        return Training(
            mode=self.finetune,
            epochs=self.epochs,
            patience=self.patience,
            learning_rate=self.learning_rate or (1e-4 if whole_pretrained else 1e-3),
            weight_decay=self.weight_decay,
            validation_fraction=self.validation_fraction,
            augmentation=AUGMENTATIONS[self.augmentation],
            random_state=seed,
            **self._place(),
        )
