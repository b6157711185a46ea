"""RegionDetector: whether a part was repainted, as the patches of a transformer show it."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2
import numpy as np
import torch
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from cnnsvm.data.estimators import install, seed_of
from cnnsvm.data.images import check_images, read_header
from cnnsvm.data.splits import encode_groups
from cnnsvm.detection.heatmap import as_stored
from cnnsvm.detection.parity import MOST_IMAGES, check_parity
from cnnsvm.detection.reject import UNSURE, Judgement, choose_rejection_threshold
from cnnsvm.detection.training_overlap import hash_images
from cnnsvm.features.backends import run
from cnnsvm.features.cnn_embedder import CNNEmbedder
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.reading import Decoded, resize
from cnnsvm.io.bundle import SHIPPED_REGION, BundleError, bundle_id, read_bundle, write_bundle
from cnnsvm.io.progress import show_progress
from cnnsvm.svm.calibration import fit_platt

#: Largest side that images are brought to: its patches are seen at once.
MAX_SIDE = 4480
KIND = "RegionDetector"
CLASSES = np.array(["original", "spliced"])
_LARGEST = 1e9  # of what is learnt
_NOT_SAVED = ("embedder", "max_pixels")  # the latter is of a machine
#: Share of a patch's pixels that were repainted, above and below which it is learnt from.
REPAINTED, UNTOUCHED = 0.8, 0.02
#: Patches of one image and kind that are learnt from, at most.
MOST_PATCHES = 24
#: Share of the patches, those that look the most repainted, whose mean is an image's score.
TOP_SHARE = 0.1


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
        if len(np.unique(sources)) < 2 or len(np.unique(names[fake])) < 2:
            raise ValueError(
                "calibration leaves out a source and an engine in turn, so it needs two of each; "
                f"got {len(np.unique(sources))} and {len(np.unique(names[fake]))}. Add some."
            )
        tokens = [
            self.patches(image).astype(np.float16)  # there are hundreds in each image
            for image in show_progress(images, len(images), "patches")
        ]
        rng = np.random.default_rng(seed_of(self.random_state))
        learnt = [
            _patches_to_learn(each, mask, rng) for each, mask in zip(tokens, masks, strict=True)
        ]
        scores = self._out_of_fold(tokens, learnt, fake, sources % 2, names)
        coef, intercept = self._fit_machine(learnt)
        few = min(fake.sum(), (~fake).sum())  # as if both classes were equally frequent
        kinds = (np.flatnonzero(fake), np.flatnonzero(~fake))
        chosen = np.concatenate([rng.permutation(kind)[:few] for kind in kinds])
        slope, offset = fit_platt(scores[chosen], fake[chosen])
        log_odds = slope * scores + offset
        rejection = 0.0
        if self.max_error is not None:
            proba = expit(np.column_stack([-log_odds, log_odds]))[chosen]
            rejection = choose_rejection_threshold(
                proba, proba.argmax(axis=1), fake[chosen].astype(int), self.max_error
            )
        install(
            self,
            coef_=coef,
            intercept_=intercept,
            slope_=slope,
            offset_=offset,
            rejection_threshold_=rejection,
            trained_on_=hash_images(images),
            cv_decision_=log_odds,
            model_id_=None,
        )
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the log-odds of "spliced", float64 of shape (n_samples,)."""
        check_is_fitted(self, "coef_")
        images = check_images(X)
        if hasattr(self.embedder, "network_"):
            check_parity(self, [self.embedder], lambda: self._decide(images[:MOST_IMAGES]))
        return self._decide(images)

    def _decide(self, images: Sequence[Any]) -> np.ndarray:
        scores = [_score(self._margins(self.patches(image))) for image in images]
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
        judged = self.judge(X)
        found = CLASSES[judged.codes].astype(object)
        found[judged.is_unsure] = UNSURE
        return found

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
        embedder = self.embedder
        if not hasattr(embedder, "network_"):
            embedder.fit(None)
        size, n_tiles = int(embedder.crop_size), self._n_tiles()
        (pixels,) = Decoded([image], max_pixels=self.max_pixels)
        square = resize(pixels, (n_tiles * size, n_tiles * size))
        tiles = square.reshape(n_tiles, size, n_tiles, size, 3).swapaxes(1, 2)
        batch = torch.from_numpy(tiles.reshape(-1, size, size, 3).transpose(0, 3, 1, 2).copy())
        device = choose_device(embedder.device, embedder.gpu_memory_fraction)
        network = embedder.network_.to(device).eval()
        dtype = choose_precision(embedder.precision, device)
        backend = embedder.choose_way(network).backend
        with torch.inference_mode():
            found = run(network, batch.to(device), dtype, backend, self.layer)
        network.cpu()
        rows = found.cpu().numpy()  # (n_tiles ** 2, h, w, d)
        _, height, width, dim = rows.shape
        rows = rows.reshape(n_tiles, n_tiles, height, width, dim).swapaxes(1, 2)
        return rows.reshape(n_tiles * height, n_tiles * width, dim)

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
        names = ("intercept_", "slope_", "offset_", "rejection_threshold_")
        config = {"kind": KIND, "params": params, **{k: float(getattr(self, k)) for k in names}}
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
        config, arrays = read_bundle(folder)
        if config.get("kind") != KIND:
            raise BundleError(f"{folder} holds a {config.get('kind')!r}, not a {KIND}.")
        try:
            loaded = cls(embedder, **config["params"])
            loaded._validate_params()
            names = ("intercept_", "slope_", "offset_", "rejection_threshold_")
            learnt = {k: config[k] for k in names} | {"coef_": arrays["machine"]["coef"]}
            hashes = arrays["trained_on"]["hashes"]
            scores = [learnt[k] for k in names]
            if not all(type(k) in (int, float) and abs(k) < _LARGEST for k in scores):
                raise ValueError(f"numbers that are none: {scores!r:.80}")
            if learnt["coef_"].ndim != 1 or not 0 <= learnt["rejection_threshold_"] <= 1:
                raise ValueError("no machine of patches")
            loaded._n_tiles()
            if hasattr(embedder, "network_"):
                n_features = len(learnt["coef_"]) // 2  # of a patch, and of what is unlike it
                body: Any = embedder.network_.body
                body.check_layer(loaded.layer, n_features)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{folder} describes no {KIND} of this cnnsvm: {error}") from error
        install(loaded, **learnt, trained_on_=hashes, model_id_=bundle_id(config))
        return loaded

    def _margins(self, tokens: np.ndarray) -> np.ndarray:
        return _beside_rest(tokens) @ self.coef_ + self.intercept_

    def _fit_machine(self, learnt: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
        from sklearn.preprocessing import StandardScaler  # half a second
        from sklearn.svm import LinearSVC

        rows, targets = (np.concatenate(part) for part in zip(*learnt, strict=True))
        scaler = StandardScaler().fit(rows)
        machine = LinearSVC(C=self.C, dual=False, class_weight="balanced")
        machine.fit(scaler.transform(rows), targets)
        coef = machine.coef_[0] / scaler.scale_
        return coef, float(machine.intercept_[0] - scaler.mean_ @ coef)

    def _out_of_fold(
        self,
        tokens: list[np.ndarray],
        learnt: list[tuple[np.ndarray, np.ndarray]],
        fake: np.ndarray,
        half: np.ndarray,
        engines: np.ndarray,
    ) -> np.ndarray:
        """Score each image by a machine of the other half of the sources and other engines."""
        names = np.unique(engines[fake])
        found = np.zeros((len(tokens), len(names)))
        for part in (0, 1):
            seen = [(half != part) & ~(fake & (engines == name)) for name in names]
            machines = [self._fit_machine([learnt[i] for i in np.flatnonzero(s)]) for s in seen]
            coef, intercept = (np.stack(each, axis=-1) for each in zip(*machines, strict=True))
            for i in np.flatnonzero(half == part):
                margins = _beside_rest(tokens[i]) @ coef + intercept
                found[i] = [_score(margins[..., k]) for k in range(len(names))]
        own = np.searchsorted(names, np.where(fake, engines, names[0]))
        return np.where(fake, found[np.arange(len(found)), own], found.mean(axis=1))


def _beside_rest(tokens: np.ndarray) -> np.ndarray:
    """Put what is unlike the rest of the image beside each patch: itself less the median."""
    own = tokens.astype(np.float32)
    return np.concatenate([own, own - np.median(own, axis=(0, 1))], axis=-1)


def _patches_to_learn(
    tokens: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw patches of an image, (n, d), and whether they were repainted, bool (n,)."""
    whole = _beside_rest(tokens)
    rows = whole.reshape(-1, whole.shape[-1])
    if mask is None:
        chosen = rng.permutation(len(rows))[: MOST_PATCHES // 2]
        return rows[chosen], np.zeros(len(chosen), dtype=bool)
    share = cv2.resize(
        mask.astype(np.float32), tokens.shape[1::-1], interpolation=cv2.INTER_AREA
    ).ravel()
    kinds = [np.flatnonzero(share > REPAINTED), np.flatnonzero(share < UNTOUCHED)]
    parts = [rng.permutation(kind)[:MOST_PATCHES] for kind in kinds]
    return rows[np.concatenate(parts)], np.repeat([True, False], [len(part) for part in parts])


def _score(margins: np.ndarray) -> float:
    smooth = cv2.blur(margins.astype(np.float64), (3, 3), borderType=cv2.BORDER_REPLICATE)
    n_top = max(1, round(TOP_SHARE * smooth.size))
    return float(np.sort(smooth.ravel())[-n_top:].mean())
