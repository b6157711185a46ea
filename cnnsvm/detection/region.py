"""RegionDetector: whether a part was repainted, as the patches of a transformer show it."""

import os
from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import cv2
import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.estimators import install, seed_of
from cnnsvm.data.images import check_images, read_header
from cnnsvm.data.splits import encode_groups
from cnnsvm.detection.heatmap import as_stored
from cnnsvm.detection.parity import MOST_IMAGES, check_parity
from cnnsvm.detection.patches import (
    beside_rest,
    embed_patches,
    fit_machine,
    out_of_fold,
    patches_to_learn,
    score_of,
)
from cnnsvm.detection.reject import Judgement, choose_rejection_threshold
from cnnsvm.detection.training_overlap import hash_images
from cnnsvm.features.cnn_embedder import CNNEmbedder
from cnnsvm.features.reading import Decoded
from cnnsvm.io.bundle import SHIPPED_REGION, rebuild, write_bundle
from cnnsvm.io.progress import show_progress
from cnnsvm.svm.calibration import fit_platt

#: Largest side that images are brought to: its patches are seen at once.
MAX_SIDE = 4480
KIND = "RegionDetector"
CLASSES = np.array(["original", "spliced"])
_LARGEST = 1e9  # of what is learnt
_SCORES = ("intercept_", "slope_", "offset_", "rejection_threshold_")
_NOT_SAVED = ("embedder", "max_pixels")  # the latter is of a machine
Detector = TypeVar("Detector", bound="RegionDetector")


class RegionDetector(ClassifierMixin, BaseEstimator):
    """Tell images of which a part was repainted from untouched ones.

    The whole image, resized to a square, goes through the transformer in tiles. A linear support
    vector machine tells repainted patches from untouched ones of the same image and of others, the
    mean of the tenth of the patches with the highest margins, each averaged with its neighbours,
    is the score, and Platt scaling turns it into a probability. All scores that calibrate are of
    sources and of engines that the machine was not fitted on.

    Parameters
    ----------
    embedder : CNNEmbedder
        Frozen, with a transformer ("hf:...") whose class token is not the only one.
    layer : int, default=8
        Whose patches are taken: early layers see texture, late ones content.
    side : int in 32-4480, default=448
        Of the square that the image is resized to, a multiple of the embedder's ``crop_size``.
    C : float, default=1e-4
        Of the support vector machine.
    max_error, max_pixels
        As of `InpaintDetector`.
    random_state : int, RandomState instance or None, default=None
        Which patches are learnt from.

    Attributes
    ----------
    classes_ : ndarray
        "original" and "spliced".
    coef_, intercept_ : ndarray of float64, shape (2 * n_features,), and float
        The machine's margin of a patch: of itself, and of what it is less the image's median.
    slope_, offset_ : float
        Platt scaling of an image's score.
    rejection_threshold_ : float
        As of `InpaintDetector`.
    trained_on_ : ndarray of uint64
        Perceptual hashes of the training images.
    model_id_ : str or None
        As of `InpaintDetector`.
    cv_decision_ : ndarray of float64, shape (n_images,)
        Log-odds of the training images, by machines that saw neither source nor engine.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "embedder": [CNNEmbedder],
        "layer": [Interval(Integral, 1, None, closed="left")],
        "side": [Interval(Integral, 32, MAX_SIDE, closed="both")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "max_error": [Interval(Real, 0, 1, closed="neither"), None],
        "max_pixels": [None, Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }
    classes_ = CLASSES
    model_id_: str | None = None

    def __init__(
        self,
        embedder: CNNEmbedder,
        *,
        layer: int = 8,
        side: int = 448,
        C: float = 1e-4,
        max_error: float | None = None,
        max_pixels: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.embedder = embedder
        self.layer = layer
        self.side = side
        self.C = C
        self.max_error = max_error
        self.max_pixels = max_pixels
        self.random_state = random_state

    def fit(self, X: Any, masks: Sequence[np.ndarray | None], groups: Any, engines: Any) -> Self:
        """Fit the machine on patches and calibrate it.

        Parameters
        ----------
        X : as for `InpaintDetector.fit`
        masks : sequence of ndarray of bool, shape (H, W), or None
            True where repainted, of the upright image; None for an untouched one.
        groups : array-like of shape (n_images,)
            The source of each image.
        engines : array-like of str, shape (n_images,)
            What repainted it; of an untouched image it does not matter.

        Raises
        ------
        ValueError
            If an image cannot be read (`ImageError`), or there are fewer than two sources or
            engines.
        """
        self._validate_params()
        images = check_images(X)
        sources, names = encode_groups(groups, len(images)), np.asarray(engines)
        fake = np.array([mask is not None for mask in masks])
        known = len(np.unique(sources)), len(np.unique(names[fake]))
        if min(known) < 2:
            raise ValueError(
                "calibration leaves out a source and an engine in turn, so it needs two of each; "
                f"got {known[0]} and {known[1]}. Add some."
            )
        tokens = [
            self.patches(image).astype(np.float16)  # there are hundreds in each image
            for image in show_progress(images, len(images), "patches")
        ]
        rng = np.random.default_rng(seed_of(self.random_state))
        learnt = [
            patches_to_learn(each, mask, rng) for each, mask in zip(tokens, masks, strict=True)
        ]
        scores = out_of_fold(self.C, tokens, learnt, fake, sources % 2, names)
        coef, intercept = fit_machine(self.C, learnt)
        chosen = _balanced(fake, rng)
        slope, offset = fit_platt(scores[chosen], fake[chosen])
        log_odds = slope * scores + offset
        install(
            self,
            coef_=coef,
            intercept_=intercept,
            slope_=slope,
            offset_=offset,
            rejection_threshold_=self._rejection(log_odds[chosen], fake[chosen]),
            trained_on_=hash_images(images),
            cv_decision_=log_odds,
            model_id_=None,
        )
        return self

    def _rejection(self, log_odds: np.ndarray, fake: np.ndarray) -> float:
        if self.max_error is None:
            return 0.0
        proba = expit(np.column_stack([-log_odds, log_odds]))
        codes = proba.argmax(axis=1)
        return choose_rejection_threshold(proba, codes, fake.astype(int), self.max_error)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of "spliced", float64 of shape (n_samples,)."""
        check_is_fitted(self, "coef_")
        images = check_images(X)
        if hasattr(self.embedder, "network_"):
            check_parity(self, [self.embedder], lambda: self._decide(images[:MOST_IMAGES]))
        return self._decide(images)

    def _decide(self, images: Sequence[Any]) -> np.ndarray:
        scores = [score_of(self._margins(self.patches(image))) for image in images]
        return self.slope_ * np.array(scores) + self.offset_

    def judge(self, X: Any) -> Judgement:
        """Score images once, and say what follows, as `InpaintDetector.judge`."""
        log_odds = self.decision_function(X)
        probabilities = expit(np.column_stack([-log_odds, log_odds]))
        unsure = probabilities.max(axis=1) <= self.rejection_threshold_
        return Judgement(log_odds, probabilities, (log_odds > 0).astype(int), unsure)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Give calibrated probabilities, float64 of shape (n_samples, 2)."""
        return self.judge(X).probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Name the more probable class of each image, shape (n_samples,)."""
        return CLASSES[self.judge(X).codes]

    def verdict(self, X: Any) -> np.ndarray:
        """Name the class of each image, or "unsure"; an object array of shape (n_samples,)."""
        return self.judge(X).named(CLASSES)

    def explain(self, image: Any) -> np.ndarray:
        """Show where an image looks repainted: float32 (H, W) in [0, 1], as it is stored.

        What `predict_proba` would say of an image all of whose patches look like the place.
        """
        check_is_fitted(self, "coef_")
        width, height = read_header(image).upright_size
        heat = expit(self.slope_ * self._margins(self.patches(image)) + self.offset_)
        shown = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return as_stored(np.asarray(shown), image)

    def patches(self, image: Any) -> np.ndarray:
        """Embed the patches of an image, float32 (n_rows, n_columns, n_features)."""
        if not hasattr(self.embedder, "network_"):
            self.embedder.fit(None)
        (pixels,) = Decoded([image], max_pixels=self.max_pixels)
        return embed_patches(self.embedder, pixels, self._n_tiles(), self.layer)

    def _n_tiles(self) -> int:
        """Return the tiles along a side."""
        size = int(self.embedder.crop_size)
        n_tiles, rest = divmod(self.side, size)
        if rest or not n_tiles:
            raise ValueError(
                f"side={self.side!r} must be a multiple of the embedder's crop_size={size}, which "
                f"are the tiles it is cut into. Use {max(1, n_tiles) * size}."
            )
        return n_tiles

    def save_pretrained(self, folder: str | os.PathLike[str], card: str = "") -> Path:
        """Write all but the embedder to a folder of safetensors and JSON."""
        check_is_fitted(self, "coef_")
        params = {k: v for k, v in self.get_params(deep=False).items() if k not in _NOT_SAVED}
        scores = {name: float(getattr(self, name)) for name in _SCORES}
        config = {"kind": KIND, "params": params, **scores}
        arrays = {"machine": {"coef": self.coef_}, "trained_on": {"hashes": self.trained_on_}}
        return write_bundle(folder, config, arrays, {"README.md": card})

    @classmethod
    def from_pretrained(
        cls, embedder: CNNEmbedder, folder: str | os.PathLike[str] = SHIPPED_REGION
    ) -> Self:
        """Load what `save_pretrained` wrote, for the embedder that it was fitted with.

        Without a folder it is the detector that ships, for the embedder of the one of generated
        images. A BundleError says that it cannot be read.
        """
        loaded, model_id = rebuild(folder, KIND, partial(_from_state, cls, embedder))
        loaded.model_id_ = model_id
        return loaded

    def _margins(self, tokens: np.ndarray) -> np.ndarray:
        return beside_rest(tokens) @ self.coef_ + self.intercept_


def _balanced(fake: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw images as if both classes were equally frequent."""
    few = min(fake.sum(), (~fake).sum())
    kinds = (np.flatnonzero(fake), np.flatnonzero(~fake))
    return np.concatenate([rng.permutation(kind)[:few] for kind in kinds])


def _from_state(
    kind: "type[Detector]",
    embedder: CNNEmbedder,
    config: dict[str, Any],
    arrays: dict[str, dict[str, np.ndarray]],
) -> "Detector":
    loaded = kind(embedder, **config["params"])
    loaded._validate_params()
    scores = {name: config[name] for name in _SCORES}
    coef = arrays["machine"]["coef"]
    if not all(type(k) in (int, float) and abs(k) < _LARGEST for k in scores.values()):
        raise ValueError(f"numbers that are none: {[*scores.values()]!r:.80}")
    if coef.ndim != 1 or not 0 <= scores["rejection_threshold_"] <= 1:
        raise ValueError("no machine of patches")
    loaded._n_tiles()
    if hasattr(embedder, "network_"):
        n_features = len(coef) // 2  # of a patch, and of what is unlike it
        body: Any = embedder.network_.body
        body.check_layer(loaded.layer, n_features)
    install(loaded, **scores, coef_=coef, trained_on_=arrays["trained_on"]["hashes"])
    return loaded
