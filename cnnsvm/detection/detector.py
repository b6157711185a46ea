"""InpaintDetector: embedders, a classifier, calibration and the option to decline."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.estimators import install, real_class
from cnnsvm.detection import export, heatmap, inference, pretrained
from cnnsvm.detection.fitting import (
    check_together,
    check_training,
    embed_rows,
    fit_classifier,
    fit_embedders,
    out_of_fold,
)
from cnnsvm.detection.reject import (
    Judgement,
    OutOfFold,
    choose_false_alarms,
    choose_thresholds,
    predicted_codes,
)
from cnnsvm.detection.training_overlap import hash_training_images
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.cnn_embedder import CNNEmbedder

_FRACTION = Interval(Real, 0, 1, closed="neither")


def _calibrates(detector: "InpaintDetector") -> bool:
    if not getattr(detector.classifier, "calibrate", True):
        raise AttributeError(
            "predict_proba needs a classifier that calibrates, got TunedSVC(calibrate=False). Use "
            "calibrate=True; decision_function gives margins."
        )
    return True


class InpaintDetector(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Tell inpainted images from untouched ones.

    Embedders turn images into vectors, a classifier tells the vectors apart, out-of-fold scores
    calibrate it and choose its thresholds. Whatever is fitted sees the training images only, and
    images of one group are never separated by an inner split.

    Parameters
    ----------
    embedder : str, embedder or list of embedders, default="resnet18"
        `CNNEmbedder`, `ResidualStatistics` or any scikit-learn transformer from images to vectors;
        the vectors of several stand side by side. A string is the backbone of a `CNNEmbedder`.
    classifier : classifier or None, default=None
        Any scikit-learn classifier of vectors; None is ``TunedSVC()``. One that does not calibrate
        itself on out-of-fold scores is wrapped in a `CalibratedClassifier`.
    n_views : int or None, default=None
        None fits the classifier on the images as they are. A number fits it on so many views of
        each class of each source: the first as it is, the others degraded by ``augmentation``, so
        that it knows what a codec does to the embedding, and the classes are balanced.
    augmentation : str, default="robust"
        What degrades the views, a key of `cnnsvm.features.augmentation.AUGMENTATIONS`.
    threshold : float in (0, 1) or "balanced_accuracy", default=0.5
        Probability of ``classes_[1]`` above which an image is predicted as that, for two classes.
        "balanced_accuracy" chooses it on out-of-fold scores of the training images.
    max_error : float in (0, 1) or None, default=None
        Share of verdicts to be wrong at most; `verdict` says "unsure" where that cannot be kept. It
        is a target, met on average on held-out sources of the training, and no guarantee for
        other images.
    max_pixels : int or None, default=None
        Most pixels of an image; its header is looked at before any pixel is decoded. None: 200
        million, or what the environment variable CNNSVM_MAX_PIXELS says.
    cv : int, default=3
        Grouped folds whose held-out scores calibrate a classifier that does not do so itself.
    cache_dir : path or None, default=None
        Folder for fine-tuned networks, embeddings and studies, so that an interrupted ``fit``
        resumes and a repeated one is quick. Entries are named by the content they depend on.
    random_state : int, RandomState instance or None, default=None
        Seed of everything random in embedders and classifier that have none of their own.

    Attributes
    ----------
    classes_ : ndarray
        Class labels, sorted. With labels 0 and 1, 1 is fake.
    embedder_ : list of embedders
        The fitted embedders.
    classifier_ : TunedSVC or CalibratedClassifier
        The fitted classifier.
    threshold_ : float
        Probability above which ``classes_[1]`` is predicted (two classes).
    rejection_threshold_ : float
        Probability of the predicted class above which `verdict` commits itself (0 without
        ``max_error``).
    out_of_fold_ : OutOfFold or None
        The scores that the thresholds were chosen on; None of a loaded detector.
    false_alarms_ : FalseAlarms or None
        What `recalibrate` chose.
    min_side_, max_side_ : int
        Shortest and longest side of the training images in pixels (0: unknown).
    history_ : list of dict
        The training log of the first embedder that was fine-tuned, one entry an epoch.
    trained_on_ : ndarray of uint64
        Perceptual hashes of the training images, and of those that the initial weights were
        trained on (`cnnsvm.detection.training_overlap`).
    model_id_ : str or None
        Of a loaded detector, 12 hexadecimal digits that its files give; None after ``fit``.

    Notes
    -----
    The inner folds separate sources for the classifier, but a fine-tuned network has learnt from
    all of them but those of early stopping. If these are at least 10 sources, only their
    out-of-fold scores calibrate and choose the thresholds; with fewer, all scores do, and the
    probabilities of a network that has learnt its training images by heart are too sure. The
    outer folds of `cnnsvm.evaluation.protocol.run_study` show by how much (Brier score, ECE).

    Examples
    --------
    >>> detector = InpaintDetector("resnet50", random_state=0)        # doctest: +SKIP
    >>> detector.fit(paths, y, groups=source_ids)                     # doctest: +SKIP
    >>> detector.predict_proba(["painting.png"])                      # doctest: +SKIP
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "embedder": [str, list, tuple, HasMethods(["fit", "transform"])],
        "classifier": [HasMethods(["fit", "predict"]), None],
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "augmentation": [StrOptions(set(AUGMENTATIONS))],
        "threshold": [_FRACTION, StrOptions({"balanced_accuracy"})],
        "max_error": [_FRACTION, None],
        "max_pixels": [None, Interval(Integral, 1, None, closed="left")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "cache_dir": [str, os.PathLike, None],
        "random_state": ["random_state"],
    }

    model_id_: str | None = None
    out_of_fold_: OutOfFold | None = None

    def __init__(
        self,
        embedder: Any = "resnet18",
        classifier: Any = None,
        *,
        n_views: int | None = None,
        augmentation: str = "robust",
        threshold: float | str = 0.5,
        max_error: float | None = None,
        max_pixels: int | None = None,
        cv: int = 3,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.embedder = embedder
        self.classifier = classifier
        self.n_views = n_views
        self.augmentation = augmentation
        self.threshold = threshold
        self.max_error = max_error
        self.max_pixels = max_pixels
        self.cv = cv
        self.cache_dir = cache_dir
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        groups: Sequence[Any] | np.ndarray | None = None,
        auxiliary_labels: Sequence[Any] | np.ndarray | None = None,
    ) -> Self:
        """Fit the embedders, embed, fit the classifier, calibrate.

        A fit that fails or is interrupted leaves the detector as it was.

        Parameters
        ----------
        X : list, Series or array of images, or a manifest
            Paths, bytes, PIL images or uint8 arrays, also mixed; or a DataFrame with a ``path``
            column.
        y : array-like of shape (n_samples,)
            Class labels; None takes the ``label`` column of a manifest.
        groups : array-like of shape (n_samples,), optional
            The source of each image; None takes the ``source_id`` column of a manifest, and
            otherwise makes each image its own source.
        auxiliary_labels : array-like of shape (n_samples,), optional
            Finer classes that networks are trained on, see `CNNEmbedder.fit`. The classifier is
            fitted on ``y`` all the same, and nothing finer is predicted.

        Raises
        ------
        ValueError
            For bad parameters, labels, groups, images (`ImageError`), weights (`WeightsError`) or
            devices (`DeviceError`).
        """
        self.check_params()
        given = check_training(self, X, y, groups, auxiliary_labels)
        embedders = fit_embedders(self, given)
        rows = embed_rows(self, embedders, given)
        classifier = fit_classifier(self, embedders, given, rows)
        held_out = out_of_fold(classifier, given, rows)
        thresholds = choose_thresholds(
            self.threshold, self.max_error, held_out.decisions, held_out.codes, self.n_views or 1
        )
        install(
            self,
            classes_=given.classes,
            embedder_=embedders,
            classifier_=classifier,
            threshold_=thresholds.threshold,
            rejection_threshold_=thresholds.rejection,
            out_of_fold_=held_out,
            false_alarms_=None,
            min_side_=int(given.sides.min()),
            max_side_=int(given.sides.max()),
            history_=next((e.history_ for e in embedders if getattr(e, "history_", [])), []),
            trained_on_=hash_training_images(given.images, embedders),
            model_id_=None,
        )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images, float32 of shape (n_samples, n_features), in the order of X."""
        return self._look(X).embeddings

    def _look(self, X: Any) -> inference.Seen:
        check_is_fitted(self, "classifier_")
        return inference.look(self, X)

    def decision_function(self, X: Any) -> np.ndarray:
        """Score images.

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_classes)
            For two classes the log-odds of ``classes_[1]`` above the threshold's, so that what is
            positive is predicted as that (margins without calibration); else one column a class.
        """
        embeddings = self.transform(X)
        scores = self.classifier_.decision_function(embeddings)
        return inference.above_threshold(scores, self.threshold_)

    @available_if(_calibrates)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Give calibrated probabilities, float64 of shape (n_samples, n_classes), rows sum to 1.

        Images that show nothing, such as one grey, get the same for every class.
        """
        return inference.probabilities(self, self._look(X))

    def predict(self, X: Any) -> np.ndarray:
        """Name the class of each image, an array of ``classes_`` of shape (n_samples,)."""
        codes = predicted_codes(self.decision_function(X), 0.5)
        return self.classes_[codes]

    @available_if(_calibrates)
    def judge(self, X: Any) -> Judgement:
        """Score images once, and say what follows: decisions, probabilities, class, unsure."""
        return inference.judge(self, self._look(X))

    @available_if(_calibrates)
    def verdict(self, X: Any) -> np.ndarray:
        """Name the class of each image, or say that it cannot be told.

        Returns
        -------
        ndarray of object, shape (n_samples,)
            Labels of ``classes_``, and "unsure" where the probability of the predicted
            class is not above ``rejection_threshold_``, where the image shows nothing,
            or with ``max_error`` where the image is smaller than a crop and than all
            training images, or larger than a single crop that showed each of them whole
            (``min_side_``, ``max_side_``).
        """
        return self.judge(X).named(self.classes_)

    @available_if(_calibrates)
    def recalibrate(self, X: Any, max_false_alarms: float = 0.05, groups: Any = None) -> Self:
        """Choose when `verdict` names a fake, on your own untouched images.

        What a detector calls fake depends on cameras, codecs and sizes. Afterwards an image is
        named fake if the probability of all fake classes together is above a threshold that at most
        ``max_false_alarms`` of untouched images like these exceed; `predict` and `predict_proba`
        stay as they were.

        Parameters
        ----------
        X : as for `fit`
            Untouched images, none of which the detector was trained on.
        max_false_alarms : float in (0, 1), default=0.05
        groups : array-like of shape (n_samples,), optional
            The source of each image: the highest score of each counts.

        Returns
        -------
        InpaintDetector
            Itself, with what can be promised in ``false_alarms_`` (`FalseAlarms`).

        Raises
        ------
        ValueError
            If there are too few images for the promise.
        """
        scores = 1 - self.predict_proba(X)[:, real_class(self.classes_)]
        self.false_alarms_ = choose_false_alarms(scores, max_false_alarms, groups)
        return self

    explain = heatmap.explain
    save_pretrained = pretrained.save_pretrained
    to_onnx = export.to_onnx

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str = "auto",
        backend: str | None = None,
        precision: str | None = None,
    ) -> Self:
        """Load a fitted detector.

        Parameters
        ----------
        name_or_path : str, path or None
            None is the detector of inpainting that ships with this package, "cifake" the one of
            32-pixel images that does; else a folder of `save_pretrained` (one of that name is
            ``./cifake``), or an id of the Hugging Face hub (``owner/name``).
        revision : str or None
            Commit, tag or branch on the hub; name a commit, so that nobody can change what you
            load.
        token : str or None
            For a private model; None takes what ``hf auth login`` has stored.
        device : str
            Where its embedders run.
        backend, precision : str or None
            What runs them, as for `CNNEmbedder`, if not what it was fitted with. The first images
            are then judged by both: a DeviceError says that their log-odds differ by more than 0.1.

        Raises
        ------
        BundleError
            If it cannot be had, or a byte of it has changed.
        """
        machine = {"device": device, "backend": backend, "precision": precision}
        return pretrained.from_pretrained(
            cls, name_or_path, revision=revision, token=token, **machine
        )

    def check_params(self) -> None:
        """Check the parameters, and those of embedders and classifier, alone and together."""
        self._validate_params()
        check_together(self)

    def embedders(self) -> list[Any]:
        """List the unfitted embedders."""
        listed = self.embedder if isinstance(self.embedder, list | tuple) else [self.embedder]
        if not listed:
            raise ValueError("embedder=[] embeds nothing. Give at least one embedder.")
        return [CNNEmbedder(item) if isinstance(item, str) else item for item in listed]

    @property
    def _n_features_out(self) -> int:
        return self.classifier_.n_features_in_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
