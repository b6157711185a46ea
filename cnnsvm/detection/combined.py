"""CombinedDetector: detectors of several kinds of evidence, and the rule that combines them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator

from cnnsvm.data.images import check_images, image_sides
from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.detection.region import RegionDetector
from cnnsvm.detection.reject import UNSURE, FalseAlarms, Judgement, choose_false_alarms
from cnnsvm.features.crops import MOST_CROPPED, covered_share
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.reading import Decoded, in_chunks, read_ahead
from cnnsvm.features.traces import WAS_JPEG, double_compression, was_resampled

if TYPE_CHECKING:
    import pandas as pd

GENERATED, REGENERATED, SPLICED, ORIGINAL = "generated", "regenerated", "spliced", "original"
NO_TRACE, UNCOVERED = "no_trace", "uncovered"
_NO_TRACE = 3  # column of probabilities
_MOST_REDUCED = 3 * 448  # shorter side in pixels: a third of it is what ``region`` sees
_MOST_SEEN = 2 * MOST_CROPPED  # pixels: of more, not even half is in crops
_BOUNDS = (0.02, 0.98)  # no more weight than this for one kind of evidence beside another


class CombinedDetector(BaseEstimator):
    """Ask a detector for each kind of evidence, and combine what they say by a stated rule.

    1. ``generated`` sees the whole image, resized: what it shows and how. If it is sure that the
       image is generated, that is the verdict.
    2. Else ``trace`` sees crops at native resolution: what an engine leaves in the pixels. If it is
       sure of "regenerated" (every pixel passed through an engine) or "spliced" (a part did), that
       is the verdict; but where ``region`` finds "spliced" less probable than not, the two
       disagree, and it is "unsure". (Images with a shorter side of more than 1344 pixels are so
       much reduced for ``region`` that its silence says nothing.)
    3. Else ``region`` sees the patches of the whole image: whether some are unlike the rest. If it
       is sure of "spliced", that is the verdict, but of images that are smaller than all that
       ``trace`` was trained on.
    4. If the first two are sure that the image is original, and the third does not find "spliced"
       more probable, the verdict is "no_trace": of the generators and engines that they cover. It
       never says authentic. ``trace`` is not sure of that if an image has more than 210
       megapixels: beyond 105, its crops no longer lie side by side but at even distances.
    5. Else the verdict is "unsure".

    Probabilities follow the same order: ``generated`` has its own, and what it leaves is divided as
    ``trace`` says, with the odds of "spliced" multiplied by those of ``region``, as if what the two
    see were independent. Of what is then left, a part is "uncovered": a repainting that leaves no
    trace that ``trace`` knows. It has the probability that ``region`` gives "spliced", so that a
    detector that is blind to an engine does not outvote one that sees something; and the share
    ``uncovered`` is set aside whatever is seen. So "no_trace" has the product of what all three
    leave for it.

    Parameters
    ----------
    generated : InpaintDetector
        Fitted, of the classes "generated" and "original".
    trace : InpaintDetector
        Fitted, of the classes "original", "regenerated" and "spliced".
    region : RegionDetector or None, default=None
        Fitted.
    max_pixels : int or None, default=None
        Most pixels of an image; its header is looked at before any pixel is decoded. None: 200
        million, or what the environment variable CNNSVM_MAX_PIXELS says.
    uncovered : float in [0, 1), default=0.12
        Share of the probability of "no_trace" that is set aside for engines that no detector
        covers. It is an assumption, not a measurement of your images: 0.12 is about right where a
        fifth of the fakes are by such engines and half of those pass; of 44 inpaintings by engines
        never trained on 26 did (docs/results/regions.md).

    Attributes
    ----------
    classes_ : ndarray of str
        The columns of `predict_proba`.
    false_alarms_ : FalseAlarms or None
        What `recalibrate` chose.

    Examples
    --------
    >>> detector = CombinedDetector.from_pretrained()                 # doctest: +SKIP
    >>> detector.verdict(["photo.jpg", "painting.png"])               # doctest: +SKIP
    array(['no_trace', 'generated'], dtype=object)
    """

    classes_ = np.array([GENERATED, REGENERATED, SPLICED, NO_TRACE, UNCOVERED])
    false_alarms_: FalseAlarms | None = None

    def __init__(
        self,
        generated: InpaintDetector,
        trace: InpaintDetector,
        region: RegionDetector | None = None,
        *,
        max_pixels: int | None = None,
        uncovered: float = 0.12,
    ) -> None:
        self.generated = generated
        self.trace = trace
        self.region = region
        self.max_pixels = max_pixels
        self.uncovered = uncovered

    @classmethod
    def from_pretrained(cls, device: str = "auto", **machine: str | None) -> Self:
        """Load the detectors that ship.

        ``device``, and also ``backend`` and ``precision``, as for
        `InpaintDetector.from_pretrained`.
        """
        how: Any = {"device": device, **machine}
        generated = InpaintDetector.from_pretrained("generated", **how)
        (tower,) = generated.embedder_  # one for both
        trace = InpaintDetector.from_pretrained(**how)
        for embedder in trace.embedder_:
            embedder.set_params(n_crops=None)  # all, up to a budget; fitted on nine
        return cls(generated, trace, RegionDetector.from_pretrained(tower))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Give a probability of each of ``classes_``, float64 (n_samples, 5), rows sum to 1."""
        return np.concatenate([self._judge(pixels)[0] for pixels in self._read(X)])

    def verdict(self, X: Any) -> np.ndarray:
        """Name what each image shows traces of.

        Returns
        -------
        ndarray of object, shape (n_samples,)
            "generated", "regenerated", "spliced", "no_trace" or "unsure".
        """
        return np.concatenate([self._judge(pixels)[1] for pixels in self._read(X)])

    def explain(self, X: Any) -> "pd.DataFrame":
        """Say for each image what each kind of evidence says.

        Returns
        -------
        DataFrame
            One row an image: ``verdict``; ``evidence``, the detectors that it rests on or, where it
            is "unsure", those that are; a probability for each of ``classes_``; ``coverage``, the
            share of its pixels that ``trace`` looked at, in (0, 1]; and what happened to the file,
            which weakens what ``trace`` says: ``was_jpeg`` and ``was_resampled``
            (`cnnsvm.features.traces`).
        """
        import pandas as pd  # half a second

        return pd.DataFrame(self.rows(X))

    def rows(self, X: Any) -> list[dict[str, Any]]:
        """Say the same as `explain`, as one dict an image."""
        return [row for pixels in self._read(X) for row in self._explain(pixels)]

    def recalibrate(self, X: Any, max_false_alarms: float = 0.05, groups: Any = None) -> Self:
        """Choose when `verdict` names an image, on your own untouched ones.

        As `InpaintDetector.recalibrate`, for the probability of all but "no_trace": what exceeds
        the threshold is named by the most probable kind ("spliced" for "uncovered"), and nothing
        else is.
        """
        scores = 1 - self.predict_proba(X)[:, _NO_TRACE]
        self.false_alarms_ = choose_false_alarms(scores, max_false_alarms, groups)
        return self

    def coverage(self, image: Any) -> float:
        """Return the share of an image's pixels that ``trace`` looks at, in (0, 1]."""
        return coverage_of(self.trace, image)

    def _read(self, X: Any) -> Iterator[list[np.ndarray]]:
        """Decode each image once, for all detectors."""
        if not 0 <= self.uncovered < 1:
            raise ValueError(f"uncovered must lie in [0, 1), got {self.uncovered!r}.")
        decoded = Decoded(check_images(X), memory=0, max_pixels=self.max_pixels)
        return in_chunks(read_ahead(decoded))

    def _explain(self, images: list[np.ndarray]) -> list[dict[str, Any]]:
        names = self.classes_.tolist()
        return [
            {"verdict": verdict, "evidence": evidence}
            | dict(zip(names, row.tolist(), strict=True))
            | {
                "coverage": self.coverage(image),
                "was_jpeg": bool(double_compression(image) > WAS_JPEG),
                "was_resampled": bool(was_resampled(image)),
            }
            for image, row, verdict, evidence in zip(images, *self._judge(images), strict=True)
        ]

    def _judge(self, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return probabilities, verdicts, and the evidence that these rest on."""
        asked: list[InpaintDetector | RegionDetector] = [self.generated, self.trace]
        asked += [] if self.region is None else [self.region]
        judged = [detector.judge(images) for detector in asked]
        probabilities = self._probabilities(*judged)
        said = [each.named(one.classes_) for each, one in zip(judged, asked, strict=True)]
        is_small = self._doubt(images, said, judged)
        both = [
            combine(*each, region_counts=small)
            for *each, small in zip(*said, is_small, strict=True)
        ]
        verdicts, evidence = map(list, zip(*both, strict=True))
        if self.false_alarms_ is not None:
            alarm = 1 - probabilities[:, _NO_TRACE] > self.false_alarms_.threshold
            kinds = np.delete(probabilities, _NO_TRACE, axis=1).argmax(axis=1)
            for row, kind in enumerate(kinds):
                if alarm[row]:
                    verdicts[row] = (GENERATED, REGENERATED, SPLICED, SPLICED)[kind]
                    evidence[row] = "generated" if verdicts[row] == GENERATED else "trace, region"
                elif verdicts[row] != NO_TRACE:
                    verdicts[row] = UNSURE
        return probabilities, np.array(verdicts, dtype=object), evidence

    def _probabilities(
        self, whole: Judgement, trace: Judgement, region: Judgement | None = None
    ) -> np.ndarray:
        generated = _column(self.generated, whole, GENERATED)
        left = {name: _column(self.trace, trace, name) for name in (REGENERATED, SPLICED, ORIGINAL)}
        unseen: Any = 1.0
        if region is not None:
            chance = region.probabilities[:, 1].clip(*_BOUNDS)
            left[SPLICED] = left[SPLICED] * chance / (1 - chance)
            total = sum(left.values())
            left = {name: value / total for name, value in left.items()}
            unseen = 1 - chance
        rest = 1 - generated
        nothing = rest * left[ORIGINAL]
        no_trace = nothing * (1 - self.uncovered) * unseen
        spliced = rest * left[SPLICED]
        return np.column_stack(
            [generated, rest * left[REGENERATED], spliced, no_trace, nothing - no_trace]
        )

    def _doubt(
        self, images: list[np.ndarray], said: list[np.ndarray], judged: list[Judgement]
    ) -> np.ndarray:
        """Take back, in place, what detectors cannot say of such sizes; return which are small."""
        sides = np.array([image_sides(image) for image in images])
        said[1][(said[1] == ORIGINAL) & (sides.prod(axis=1) > _MOST_SEEN)] = UNSURE
        if self.region is not None:
            # not more probable; alone, it convicts no image that is smaller than all it knows
            said[2][(said[2] == UNSURE) & (judged[2].codes == 0)] = ORIGINAL
            said[2][(said[2] == SPLICED) & (sides[:, 0] < self.trace.min_side_)] = UNSURE
        return sides[:, 0] <= _MOST_REDUCED


def combine(
    whole: str, trace: str, region: str | None = None, *, region_counts: bool = True
) -> tuple[str, str]:
    """Return the verdict, and what it rests on, of what the detectors say of an image.

    ``region_counts`` is whether it says something that ``region`` finds nothing.
    """
    if whole == GENERATED:
        return GENERATED, "generated"
    if trace == SPLICED and region == ORIGINAL and region_counts:
        return UNSURE, "trace, region"
    if trace in (REGENERATED, SPLICED):
        return trace, "trace"
    if region == SPLICED:
        return SPLICED, "region"
    said = {"generated": whole, "trace": trace} | ({"region": region} if region else {})
    unsure = [name for name, one in said.items() if one == UNSURE]
    return (UNSURE, ", ".join(unsure)) if unsure else (NO_TRACE, ", ".join(said))


def _column(detector: InpaintDetector, judged: Judgement, name: str) -> np.ndarray:
    column = np.flatnonzero(detector.classes_ == name)
    if len(column) != 1:
        raise ValueError(
            f"a detector of the classes {', '.join(map(str, detector.classes_))} does not tell "
            f"{name!r}. Fit it on labels with that class."
        )
    return judged.probabilities[:, column[0]]


def coverage_of(detector: InpaintDetector, image: Any) -> float:
    """Return the share of an image's pixels that a detector looks at, in (0, 1].

    It is 1 of a detector that looks at the resized whole alone.
    """
    shorter, longer = image_sides(image)
    crops = [e for e in detector.embedder_ if isinstance(e, CropEmbedder) and not e.resize]
    shares = (covered_share(shorter, longer, e.crop_size, e.n_crops) for e in crops)
    return max(shares, default=1.0)
