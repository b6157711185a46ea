"""What a fitted detector sees of images, and what follows from it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import logit

from cnnsvm.data.estimators import real_class
from cnnsvm.data.images import check_images
from cnnsvm.detection.parity import MOST_IMAGES, check_parity
from cnnsvm.detection.reject import Judgement, lack_detail, of_unknown_size, predicted_codes
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.reading import Decoded, in_chunks, read_ahead

if TYPE_CHECKING:
    from cnnsvm.detection.detector import InpaintDetector


class Seen(NamedTuple):
    """What a detector needs of images: embeddings, whether they show nothing, both sides."""

    embeddings: np.ndarray
    is_empty: np.ndarray
    sides: np.ndarray  # shorter, longer


def look(detector: "InpaintDetector", X: Any) -> Seen:
    """Decode each image once, for all embedders."""
    images = check_images(X)
    own = [each for each in detector.embedder_ if isinstance(each, CropEmbedder)]
    n_jobs = max((each.n_jobs or 1 for each in own), default=1)  # of others it may be -1
    decoded = Decoded(images, memory=0, max_pixels=detector.max_pixels)
    parts, start = [], 0
    for pixels in in_chunks(read_ahead(decoded, n_jobs)):
        given = [images[start + i] for i in range(len(pixels))]
        _compare(detector, given[:MOST_IMAGES], pixels[:MOST_IMAGES])
        sides = [sorted(image.shape[:2]) for image in pixels]
        parts.append((embed(detector.embedder_, given, pixels), lack_detail(pixels), sides))
        start += len(pixels)
    return Seen(*map(np.concatenate, zip(*parts, strict=True)))


def _compare(detector: "InpaintDetector", images: Sequence[Any], pixels: Sequence[Any]) -> None:
    """Check once that another backend or precision leaves the decisions as they were."""

    def decide() -> np.ndarray:
        embeddings = embed(detector.embedder_, images, pixels)
        return detector.classifier_.decision_function(embeddings)

    check_parity(detector, detector.embedder_, decide)


def embed(
    embedders: Sequence[Any], images: Sequence[Any], pixels: Sequence[Any] | None = None
) -> np.ndarray:
    """Embed images by embedders side by side; ``pixels`` are what our own see, if decoded."""
    known = images if pixels is None else pixels
    parts = [e.transform(known if isinstance(e, CropEmbedder) else images) for e in embedders]
    return side_by_side(parts)


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Put the embeddings of several embedders beside each other; all must be finite numbers."""
    embeddings = np.hstack(parts)
    if not np.isfinite(embeddings).all():
        raise ValueError(
            "an embedding is no finite number. Use precision='float32', or other weights."
        )
    return embeddings


def above_threshold(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Subtract the threshold's log-odds from those of two classes; of more, nothing."""
    return scores if scores.ndim == 2 else scores - logit(threshold)


def probabilities(detector: "InpaintDetector", seen: Seen) -> np.ndarray:
    """Return those of the classes, which are equal for images that show nothing."""
    found = detector.classifier_.predict_proba(seen.embeddings)
    found[seen.is_empty] = 1 / len(detector.classes_)
    return found


def judge(detector: "InpaintDetector", seen: Seen) -> Judgement:
    """Say what follows from what was seen, by the thresholds of `fit` or of `recalibrate`."""
    scores = detector.classifier_.decision_function(seen.embeddings)
    chances = probabilities(detector, seen)
    codes = predicted_codes(scores, detector.threshold_)
    unsure = chances[np.arange(len(codes)), codes] <= detector.rejection_threshold_
    if detector.false_alarms_ is not None:
        real = real_class(detector.classes_)
        fake = np.delete(np.arange(len(detector.classes_)), real)
        is_fake = 1 - chances[:, real] > detector.false_alarms_.threshold
        codes = np.where(is_fake, fake[chances[:, fake].argmax(axis=1)], real)
        unsure = ~is_fake & (chances[:, real] <= detector.rejection_threshold_)
    if detector.max_error is not None:
        known = detector.min_side_, detector.max_side_
        unsure |= of_unknown_size(detector.embedder_, seen.sides, *known)
    decisions = above_threshold(scores, detector.threshold_)
    return Judgement(decisions, chances, codes, unsure | seen.is_empty)
