"""What is asked of an image, all evidence or one detector, and what is said of it in words."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.io.memory import is_short_of_memory
from cnnsvm.report.metadata import describe_metadata, names_generator

if TYPE_CHECKING:
    import numpy as np

    from cnnsvm import InpaintDetector, RegionDetector

logger = logging.getLogger(__name__)

#: Kinds of verdicts, as the summary counts them.
TRACES, NOTHING, UNDECIDED = "with traces", "without known traces", "unsure"
#: What else rows count as: those that failed, and those that also name a generator.
FAILED, NAMED = "failed", "whose metadata name a generator"
#: How the ``error`` of a file begins that was not opened.
SKIPPED = "skipped: "
NO_TRACE = "no_trace"
#: Verdict -> what it says in words.
SAID = {
    "generated": "a generator made the whole image",
    "regenerated": "every pixel passed through an engine",
    "spliced": "a part was repainted",
    NO_TRACE: "no known trace found",
}
#: What may be the most probable where the verdict is unsure, besides the verdicts.
_UNCOVERED = {"uncovered": "a repainting that leaves no known trace"}
#: Kind of evidence -> where to look.
EVIDENCE = {
    "generated": "the whole image",
    "trace": "traces in the pixels",
    "region": "regions unlike the rest",
}
Row = dict[str, Any]


class Judge:
    """What judges images, and says what it finds in rows of plain values and in words.

    ``fields`` are the columns of a row, ``model`` identifies what judges: rows of one model and
    file are the same.

    Parameters
    ----------
    name : str, optional
        One detector alone: the name of one that ships, a folder, or ``owner/name`` on the hub. By
        default, all evidence that ships.
    revision : str, optional
        Commit, tag or branch of a detector on the hub.
    device : str, default="auto"
    backend, precision : str, optional
        As for `InpaintDetector.from_pretrained`.

    Raises
    ------
    ValueError
        If a revision is given without a name, or the detector states no probabilities.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        revision: str | None = None,
        device: str = "auto",
        backend: str | None = None,
        precision: str | None = None,
    ) -> None:
        from cnnsvm import CombinedDetector, InpaintDetector
        from cnnsvm.data.estimators import real_class

        self.origin = name, revision
        how: dict[str, Any] = {"device": device, "backend": backend, "precision": precision}
        self.combined: CombinedDetector | None = None
        if name is None:
            if revision is not None:
                raise ValueError(f"revision {revision} needs the model that it is one of.")
            self.combined = CombinedDetector.from_pretrained(**how)
            self.detector: InpaintDetector = self.combined.trace
            self.names = [str(name) for name in self.combined.classes_]
        else:
            self.detector = InpaintDetector.from_pretrained(name, revision=revision, **how)
            self.names = class_names(self.detector)
        real = real_class(self.detector.classes_)
        self.nothing = NO_TRACE if self.combined else self.names[real]
        self.whole = self.combined or self.detector
        if not hasattr(self.detector, "predict_proba"):
            raise ValueError(
                "the detector's classifier has calibrate=False and states no probabilities. Fit "
                "one with calibrate=True."
            )
        also = ["coverage", "was_jpeg", "was_resampled"] if self.combined else []
        stated = [f"probability_{name}" for name in self.names]
        evidence = ["evidence"] if self.combined else []
        self.fields = ["path", "verdict", *evidence, *stated, *also, "metadata"]

    @property
    def model(self) -> str:
        """Return an id of detectors, thresholds, their rule, and a backend that is not theirs."""
        from cnnsvm.detection.parity import other_ways

        parts: Sequence[Any] = [self.detector]
        if self.combined is not None:
            parts = [self.combined.generated, self.combined.trace, self.combined.region]
        chosen = self.whole.false_alarms_
        thresholds = [] if chosen is None else [f"{chosen.threshold:.6f}"]
        embedders = [each for part in parts[:2] for each in part.embedder_]
        ways = {word for way in other_ways(embedders) for word in way}
        return "-".join([*(str(part.model_id_) for part in parts), *thresholds, *sorted(ways)])

    def rows(self, images: "list[np.ndarray]") -> list[Row]:
        """Judge images, uint8 (H, W, 3)."""
        if self.combined is None:
            return self._rows_of_one(images)
        found: list[Row] = []
        for said in self.combined.rows(images):
            stated = {f"probability_{name}": round(said.pop(name), 4) for name in self.names}
            flags = {name: said[name] for name in ("was_jpeg", "was_resampled")}
            row = {"verdict": said["verdict"], "evidence": said["evidence"]}
            found.append(row | stated | {"coverage": round(said["coverage"], 3)} | flags)
        return found

    def _rows_of_one(self, images: "list[np.ndarray]") -> list[Row]:
        from cnnsvm.detection.reject import UNSURE

        judged = self.detector.judge(images)
        said = {self.nothing: NO_TRACE}
        return [
            {"verdict": UNSURE if unsure else said.get(self.names[code], self.names[code])}
            | {f"probability_{n}": round(float(p), 4) for n, p in zip(self.names, row, strict=True)}
            for unsure, code, row in zip(
                judged.is_unsure, judged.codes, judged.probabilities, strict=True
            )
        ]

    def kind(self, row: Row) -> str:
        """Return the kind of a row's verdict, which is of the pixels alone."""
        from cnnsvm.detection.reject import UNSURE

        if row["verdict"] == UNSURE:
            return UNDECIDED
        return NOTHING if row["verdict"] == NO_TRACE else TRACES

    def counts_as(self, row: Row) -> list[str]:
        """Name what a row counts as: its kind, `FAILED`, or why it was skipped; and `NAMED`."""
        if error := row.get("error"):
            return [error if error.startswith(SKIPPED) else FAILED]
        return [self.kind(row), *([NAMED] if names_generator(row) else [])]

    def sentence(self, row: Row) -> str:
        """Say in words what a row says: of the pixels, and apart from them of the metadata."""
        said, metadata = self.sentence_of_pixels(row), row.get("metadata")
        if not metadata:
            return said
        if self.kind(row) == NOTHING and names_generator(row):
            return f"{said}, but {metadata}: look at that"
        return f"{said}; {metadata}"

    def sentence_of_pixels(self, row: Row) -> str:
        """Say in words what a row says without the metadata."""
        stated = {name: float(row[f"probability_{name}"]) for name in self.names}
        seen = float(row.get("coverage", 1))
        part = "" if seen >= 1 else f"; {seen:.0%} of its pixels were looked at for traces"
        evidence = [EVIDENCE[name] for name in row.get("evidence", "").split(", ") if name]
        if self.kind(row) == UNDECIDED:
            likely = max(stated, key=lambda name: stated[name])
            known = SAID | _UNCOVERED | {self.nothing: SAID[NO_TRACE]}
            where = f": look here: {', '.join(evidence)}" if evidence else ""
            return (
                f"unsure{where} (most probable: {known.get(likely, likely)}, {stated[likely]:.2f})"
                f"{part}"
            )
        verdict = row["verdict"]
        probability = stated[self.nothing if verdict == NO_TRACE else verdict]
        if row.get("evidence") == "region":  # which sees no traces, and so does not tell these two
            probability += stated["uncovered"]
        where = f", seen in {', '.join(evidence)}" if evidence and verdict != NO_TRACE else ""
        return f"{SAID.get(verdict, verdict)} ({probability:.2f}{where}){part}"

    def speaker(self, row: Row) -> "InpaintDetector | RegionDetector":
        """Return the detector whose heatmap shows what a row says."""
        if self.combined and self.combined.region and row["evidence"] == "region":
            return self.combined.region
        return self.detector

    def threshold(self, row: Row) -> float | None:
        """Return from where a place of that heatmap counts; None if its values are not calibrated.

        That of ``region`` says what its verdict would be if the whole image looked like the place.
        """
        region = self.combined.region if self.combined else None
        is_region = region is not None and self.speaker(row) is region
        return float(region.rejection_threshold_) if is_region and region is not None else None

    def caption(self, row: Row) -> str:
        """Say under a heatmap what was found, and by which model."""
        said, shown = self.sentence_of_pixels(row), ""
        if self.combined is not None:
            is_region = self.speaker(row) is self.combined.region
            shown = f" Shown: {EVIDENCE['region' if is_region else 'trace']}."
        return f"{said[:1].upper()}{said[1:]}.{shown} Model {self.model}."

    def asked(self) -> "dict[str, tuple[InpaintDetector | RegionDetector, Path]]":
        """Return each detector that is asked, by name, and the folder of its files."""
        from cnnsvm.detection.pretrained import find_pretrained
        from cnnsvm.io.bundle import SHIPPED, SHIPPED_REGION

        if self.combined is None:
            name, revision = self.origin
            return {str(name): (self.detector, find_pretrained(name, revision=revision))}
        generated, region = self.combined.generated, self.combined.region
        found: dict[str, tuple[InpaintDetector | RegionDetector, Path]] = {
            "generated": (generated, SHIPPED["generated"]),
            "trace": (self.combined.trace, SHIPPED["cnnsvm"]),
        }
        return found if region is None else found | {"region": (region, SHIPPED_REGION)}

    def knows(self) -> list[str]:
        """Say what judges was trained on and what it does not know, as the model cards do."""
        from cnnsvm.report.knowledge import sentences_of

        return [
            f"{name}, {EVIDENCE[name]}: {sentence}" if self.combined else sentence
            for name, (detector, folder) in self.asked().items()
            for sentence in sentences_of(detector, class_names(detector), folder)
        ]

    def recalibrate(self, paths: list[Path], share: float) -> None:
        """Choose the threshold on untouched images, and say what it promises."""
        found = self.whole.recalibrate(paths, share).false_alarms_
        if found is not None:
            logger.info(
                "of images like these %d, %.1f %% will be named fake on average, %.1f to %.1f %% "
                "in 95 of 100 recalibrations",
                *(found.n_images, 100 * found.expected, 100 * found.low, 100 * found.high),
            )


def class_names(detector: "InpaintDetector | RegionDetector") -> list[str]:
    """Name the classes; the labels 0 and 1 of a manifest are real and fake."""
    classes = detector.classes_.tolist()
    return ["real", "fake"] if classes == [0, 1] else [str(label) for label in classes]


def judge_all(judge: Judge, paths: Sequence[Path], n_jobs: int, batch: int) -> Iterator[Row]:
    """Yield the row of each file in their order: what is said of it, or ``error``.

    Files are decoded ahead, each once, and judged ``batch`` at a time, more of small ones. What
    their metadata say is in ``metadata`` (see `describe_metadata`), and has no part in the rest.
    """
    from cnnsvm.data.metadata import read_metadata
    from cnnsvm.features.reading import Decoded

    decoded = Decoded(paths, memory=0, max_pixels=judge.whole.max_pixels)
    for path, row in zip(paths, judge_pixels(judge, decoded, n_jobs, batch), strict=True):
        metadata = {} if "error" in row else {"metadata": describe_metadata(read_metadata(path))}
        yield row | metadata


def judge_pixels(
    judge: Judge, decoded: "Sequence[np.ndarray]", n_jobs: int, batch: int
) -> Iterator[Row]:
    """Yield the row of each image, as `judge_all` does without the metadata.

    ``decoded[i]`` makes the pixels of image i, or raises an ImageError; threads ask for it.
    """
    import numpy as np

    from cnnsvm.features.reading import LARGE, is_batch, read_or_fail

    held: list[np.ndarray] = []
    for item in read_or_fail(decoded, n_jobs):
        if isinstance(item, np.ndarray):
            held.append(item)
        if is_batch(held, batch) or not isinstance(item, np.ndarray) or item.nbytes >= LARGE:
            yield from _judge_some(judge, held)
            held = []
        if not isinstance(item, np.ndarray):
            yield {"error": str(item)}
        del item
    yield from _judge_some(judge, held)


def _judge_some(judge: Judge, images: "list[np.ndarray]") -> list[Row]:
    """Judge images at once; if memory is short, one by one."""
    if not images:
        return []
    try:
        return judge.rows(images)
    except (MemoryError, RuntimeError) as error:
        if not is_short_of_memory(error):
            raise
        if len(images) > 1:
            return [row for image in images for row in _judge_some(judge, [image])]
        height, width = images[0].shape[:2]
        return [{"error": f"{width}x{height} pixels are more than there is memory for."}]
