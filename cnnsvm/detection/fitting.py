"""The steps of `InpaintDetector.fit`: check, fit embedders, embed views, fit the classifier."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from cnnsvm.data.decoding import usual_max_pixels
from cnnsvm.data.estimators import check_auxiliary_labels, check_labelled_images
from cnnsvm.data.images import image_hash, image_sides, load_image
from cnnsvm.data.splits import encode_groups, grouped_folds
from cnnsvm.detection.inference import embed, side_by_side
from cnnsvm.detection.reject import UNSURE, OutOfFold
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.cache import hash_settings, task_folder
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.embedding_store import embed_stored
from cnnsvm.features.loading import DegradedImages, view_draws
from cnnsvm.features.reading import MEMORY, Decoded
from cnnsvm.features.state import plain_params
from cnnsvm.io.files import alone
from cnnsvm.svm import CalibratedClassifier, TunedSVC
from cnnsvm.svm.calibration import choose_calibration_rows, draw_seed
from cnnsvm.svm.database import is_url
from cnnsvm.svm.workers import leave_rows

if TYPE_CHECKING:
    from cnnsvm.detection.detector import InpaintDetector

#: Sources that early stopping must have watched for their scores alone to calibrate.
MIN_HELD_OUT = 10


class TrainingImages(NamedTuple):
    """What a detector is fitted on, checked: an image, a label, a code, a source each."""

    images: Sequence[Any]
    y: np.ndarray
    classes: np.ndarray
    codes: np.ndarray  # into classes
    groups: np.ndarray | None  # as they were given
    sources: np.ndarray  # as numbers; each image its own without groups
    auxiliary_labels: np.ndarray | None
    sides: np.ndarray  # as stored, in pixels
    seed: int


class Rows(NamedTuple):
    """What a classifier is fitted on: embeddings of the images, or of views of them."""

    embeddings: np.ndarray
    images: np.ndarray  # index of the image that a row shows
    groups: np.ndarray | None
    calibrating: np.ndarray | None  # rows that no embedder has learnt from; None: all may do
    is_unseen: bool  # whether no embedder has learnt from those that calibrate


def check_together(detector: "InpaintDetector") -> None:
    """Check parameters against each other, and those of embedders and classifier."""
    classifier = detector.classifier
    if hasattr(classifier, "_validate_params"):
        classifier._validate_params()
    degrades = detector.augmentation not in ("none", "geometric", "small")
    if (detector.n_views or 1) > 1 and not degrades:
        raise ValueError(
            f"n_views={detector.n_views!r} with augmentation={detector.augmentation!r} makes "
            "copies: it degrades nothing. Use augmentation='robust' or 'full', or n_views=None."
        )
    calibrates = getattr(classifier, "calibrate", True)
    for name, usual in (("threshold", (0.5, "balanced_accuracy")), ("max_error", (None,))):
        value = getattr(detector, name)
        if not calibrates and value not in usual:
            raise ValueError(
                f"{name}={value!r} needs probabilities, which TunedSVC(calibrate=False) does "
                f"not give. Use calibrate=True or {name}={usual[0]!r}."
            )
    for embedder in detector.embedders():
        if isinstance(embedder, CropEmbedder):
            embedder.check_params()


def check_training(
    detector: "InpaintDetector", X: Any, y: Any, groups: Any, auxiliary_labels: Any
) -> TrainingImages:
    """Check images, labels and groups before anything takes long."""
    images, y, groups = check_labelled_images(X, y, groups)
    auxiliary_labels = check_auxiliary_labels(auxiliary_labels, y)
    classes, codes = np.unique(y, return_inverse=True)
    if UNSURE in classes.tolist():
        raise ValueError(
            f"y contains the class {UNSURE!r}, which is what `verdict` says of images that it "
            "cannot tell. Give the class another name."
        )
    if groups is not None or detector.n_views is not None:
        grouped_folds(y, groups, count_inner_folds(detector))
    sides = np.array([image_sides(image) for image in images])
    images = [
        load_image(image, max_pixels=detector.max_pixels) if a * b > usual_max_pixels() else image
        for image, (a, b) in zip(images, sides.tolist(), strict=True)
    ]
    sources = encode_groups(groups, len(y))
    seed = draw_seed(detector.random_state)
    return TrainingImages(images, y, classes, codes, groups, sources, auxiliary_labels, sides, seed)


def count_inner_folds(detector: "InpaintDetector") -> int:
    """Return the number of folds whose held-out scores calibrate."""
    classifier = TunedSVC() if detector.classifier is None else detector.classifier
    return classifier.cv if isinstance(classifier, TunedSVC) else detector.cv


def fit_embedders(detector: "InpaintDetector", given: TrainingImages) -> list[Any]:
    """Fit copies of the embedders, with the detector's seed and cache where they have none."""
    fitted = []
    takers = 0
    for embedder in map(clone, detector.embedders()):
        known = embedder.get_params(deep=False)
        for name, value in (("random_state", given.seed), ("cache_dir", detector.cache_dir)):
            if name in known and known[name] is None:
                embedder.set_params(**{name: value})
        extra: dict[str, Any] = {}
        if has_fit_parameter(embedder, "groups"):
            extra["groups"] = given.groups
        if given.auxiliary_labels is not None and has_fit_parameter(embedder, "auxiliary_labels"):
            extra["auxiliary_labels"] = given.auxiliary_labels
            takers += 1
        fitted.append(embedder.fit(given.images, given.y, **extra))
    if given.auxiliary_labels is not None and takers == 0:
        raise ValueError("auxiliary_labels train a CNNEmbedder, and there is none. Leave them out.")
    return fitted


def embed_rows(
    detector: "InpaintDetector", embedders: Sequence[Any], given: TrainingImages
) -> Rows:
    """Embed the training images, or the views of them that ``n_views`` asks for."""
    images: Sequence[Any] = given.images
    shown = np.arange(len(given.y))
    if detector.n_views is not None:
        draws = view_draws(given.codes, given.sources, given.seed, detector.n_views)
        plans = AUGMENTATIONS[detector.augmentation]
        images = DegradedImages(Decoded(given.images, MEMORY), draws, plans)
        shown = np.array([draw.index for draw in draws])
    embeddings = _embed_training(detector, embedders, given.images, images)
    if not np.ptp(embeddings, axis=0).any():
        text = "all images have the same embedding: nothing tells the classes apart."
        warnings.warn(text, stacklevel=3)
    groups = given.groups if detector.n_views is None else given.sources
    calibrating = _held_out(embedders, given.sources)
    return Rows(
        embeddings,
        shown,
        None if groups is None else groups[shown],
        None if calibrating is None else calibrating[shown],
        calibrating is not None or not _learnt(embedders),
    )


def fit_classifier(
    detector: "InpaintDetector", embedders: Sequence[Any], given: TrainingImages, rows: Rows
) -> Any:
    """Fit a copy of the classifier, which resumes its search where the detector has a cache."""
    classifier = TunedSVC() if detector.classifier is None else clone(detector.classifier)
    if classifier.get_params(deep=False).get("random_state", 0) is None:
        classifier.set_params(random_state=given.seed)
    labelled = rows.embeddings, given.y[rows.images], rows.groups
    cache = _task_folder(detector, embedders, given)
    if not isinstance(classifier, TunedSVC):
        classifier = CalibratedClassifier(classifier, cv=detector.cv, random_state=given.seed)
    elif is_url(classifier.storage):
        if cache is not None:
            leave_rows(cache, classifier, *labelled)
        classifier.fit(*labelled, rows.calibrating)
        return classifier.set_params(storage=None)
    elif cache is not None and classifier.storage is None:
        name = f"studies-{classifier.cv}-{classifier.n_landmarks}.journal"
        with alone(cache / name):
            classifier.set_params(storage=cache / name).fit(*labelled, rows.calibrating)
        return classifier.set_params(storage=None)  # a place of this machine
    return classifier.fit(*labelled, rows.calibrating)


def out_of_fold(classifier: Any, given: TrainingImages, rows: Rows) -> OutOfFold:
    """Return the out-of-fold scores that choose thresholds."""
    codes, scores = given.codes[rows.images], classifier.cv_decision_
    wanted = choose_calibration_rows(rows.calibrating, codes)
    wanted &= np.isfinite(scores.reshape(len(codes), -1)).all(axis=1)
    sources = given.sources[rows.images]
    return OutOfFold(scores[wanted], codes[wanted], sources[wanted], rows.is_unseen)


def _embed_training(
    detector: "InpaintDetector",
    embedders: Sequence[Any],
    images: Sequence[Any],
    views: Sequence[Any],
) -> np.ndarray:
    """Embed what the classifier is fitted on, as far as the cache does not hold it."""
    if detector.cache_dir is None:
        return embed(embedders, views)
    keys = [image_hash(image) for image in images]
    if isinstance(views, DegradedImages):
        plans = AUGMENTATIONS[detector.augmentation]
        keys = [f"{keys[draw.index]} {draw.plan_seed} {plans}" for draw in views.draws]
    parts = [
        embed_stored(embedder, views, keys, detector.cache_dir)
        if isinstance(embedder, CropEmbedder)
        else embedder.transform(views)
        for embedder in embedders
    ]
    return side_by_side(parts)


def _task_folder(
    detector: "InpaintDetector", embedders: Sequence[Any], given: TrainingImages
) -> Path | None:
    if detector.cache_dir is None:
        return None
    known = [
        plain_params(e) | e.fitted_way_._asdict()
        if isinstance(e, CropEmbedder)
        else hash_settings(e)
        for e in embedders
    ]
    settings = ["detector", known, detector.n_views, detector.augmentation, given.seed]
    networks = [e.network_ for e in embedders if isinstance(e, CropEmbedder)]
    labelled = given.images, given.codes, given.groups
    return task_folder(detector.cache_dir, networks, *labelled, settings)


def _held_out(embedders: Sequence[Any], sources: np.ndarray) -> np.ndarray | None:
    """Find the images that no embedder has learnt from, if of sources enough to calibrate on."""
    trained = _learnt(embedders)
    if not trained:
        return None
    held_out = np.all(trained, axis=0)
    return held_out if len(np.unique(sources[held_out])) >= MIN_HELD_OUT else None


def _learnt(embedders: Sequence[Any]) -> list[np.ndarray]:
    """Return of each embedder that has learnt from the images which of them it has not."""
    known = [getattr(embedder, "validation_rows_", None) for embedder in embedders]
    return [rows for rows in known if rows is not None]
