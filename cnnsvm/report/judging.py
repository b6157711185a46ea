"""What is asked of an image, all evidence or one detector, and what is said of it in words."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from cnnsvm import InpaintDetector, RegionDetector

logger = logging.getLogger(__name__)

#: Kinds of verdicts, as the summary counts them.
TRACES, NOTHING, UNDECIDED = "with traces", "without known traces", "unsure"
#: Verdict of the combined detector -> what it says in words.
SAID = {
    "generated": "a generator made the whole image",
    "regenerated": "every pixel passed through an engine",
    "spliced": "a part was repainted",
    "no_trace": "no known trace found",
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
    max_pixels : int, optional
        Of an image; by default the detector's own limit.

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
        max_pixels: int | None = None,
    ) -> None:
        from cnnsvm import CombinedDetector, InpaintDetector

        self.combined: CombinedDetector | None = None
        if name is None:
            if revision is not None:
                raise ValueError(f"revision {revision} needs the model that it is one of.")
            self.combined = CombinedDetector.from_pretrained(device)
            self.detector: InpaintDetector = self.combined.trace
            self.names = [str(name) for name in self.combined.classes_]
        else:
            self.detector = InpaintDetector.from_pretrained(name, revision=revision, device=device)
            self.names = class_names(self.detector)
        self.whole = self.combined or self.detector
        if max_pixels is not None:
            known = self.whole.get_params()
            each = ("max_pixels", "trace__max_pixels", "region__max_pixels")
            self.whole.set_params(**{k: max_pixels for k in each if k in known})
        if not hasattr(self.detector, "predict_proba"):
            raise ValueError(
                "the detector's classifier has calibrate=False and states no probabilities. Fit "
                "one with calibrate=True."
            )
        also = ["coverage", "was_jpeg", "was_resampled"] if self.combined else []
        stated = [f"probability_{name}" for name in self.names]
        self.fields = ["path", "verdict", *(["evidence"] if self.combined else []), *stated, *also]

    @property
    def model(self) -> str:
        """Return an id of detectors, thresholds and the rule that combines them."""
        parts: Sequence[Any] = [self.detector]
        if self.combined is not None:
            parts = [self.combined.generated, self.combined.trace, self.combined.region]
        chosen = self.whole.false_alarms_
        thresholds = [] if chosen is None else [f"{chosen.threshold:.6f}"]
        return "-".join([*(str(part.model_id_) for part in parts), *thresholds])

    def rows(self, images: "list[np.ndarray]") -> list[Row]:
        """Judge images, uint8 (H, W, 3)."""
        if self.combined is None:
            return self._rows_of_one(images)
        found: list[Row] = []
        for said in self.combined.explain(images).to_dict("records"):
            stated = {f"probability_{name}": round(said.pop(name), 4) for name in self.names}
            flags = {name: bool(said[name]) for name in ("was_jpeg", "was_resampled")}
            row = {"verdict": said["verdict"], "evidence": said["evidence"]}
            found.append(row | stated | {"coverage": round(said["coverage"], 3)} | flags)
        return found

    def _rows_of_one(self, images: "list[np.ndarray]") -> list[Row]:
        from cnnsvm.detection.reject import UNSURE

        judged = self.detector.judge(images)
        return [
            {"verdict": UNSURE if unsure else self.names[code]}
            | {f"probability_{n}": round(float(p), 4) for n, p in zip(self.names, row, strict=True)}
            for unsure, code, row in zip(
                judged.is_unsure, judged.codes, judged.probabilities, strict=True
            )
        ]

    def kind(self, row: Row) -> str:
        """Return the kind of a row's verdict."""
        from cnnsvm.data.estimators import real_class
        from cnnsvm.detection.reject import UNSURE

        if row["verdict"] == UNSURE:
            return UNDECIDED
        real = "no_trace" if self.combined else self.names[real_class(self.detector.classes_)]
        return NOTHING if row["verdict"] == real else TRACES

    def sentence(self, row: Row) -> str:
        """Say in words what a row says."""
        stated = {name: float(row[f"probability_{name}"]) for name in self.names}
        if self.kind(row) == UNDECIDED:
            likely = max(stated, key=lambda name: stated[name])
            who = f"{row['evidence']} cannot tell; " if self.combined else ""
            return f"unsure ({who}most probable: {likely}, {stated[likely]:.2f})"
        said = SAID.get(row["verdict"], row["verdict"]) if self.combined else row["verdict"]
        evidence = f", by {row['evidence']}" if self.combined else ""
        return f"{said} ({stated[row['verdict']]:.2f}{evidence})"

    def speaker(self, row: Row) -> "InpaintDetector | RegionDetector":
        """Return the detector whose heatmap shows what a row says."""
        if self.combined and self.combined.region and row["evidence"] == "region":
            return self.combined.region
        return self.detector

    def recalibrate(self, paths: list[Path], share: float) -> None:
        """Choose the threshold on untouched images, and say what it promises."""
        found = self.whole.recalibrate(paths, share).false_alarms_
        if found is not None:
            logger.info(
                "of images like these %d, %.1f %% will be named fake on average, %.1f to %.1f %% "
                "in 95 of 100 recalibrations",
                *(found.n_images, 100 * found.expected, 100 * found.low, 100 * found.high),
            )


def class_names(detector: "InpaintDetector") -> list[str]:
    """Name the classes; the labels 0 and 1 of a manifest are real and fake."""
    classes = detector.classes_.tolist()
    return ["real", "fake"] if classes == [0, 1] else [str(label) for label in classes]


def judge_all(judge: Judge, paths: Sequence[Path], n_jobs: int, batch: int) -> Iterator[Row]:
    """Yield the row of each file in their order: what is said of it, or ``error``.

    Files are decoded ahead, each once, and judged ``batch`` at a time.
    """
    import numpy as np

    from cnnsvm.features.reading import LARGE, Decoded, read_or_fail

    decoded = Decoded(paths, memory=0, max_pixels=judge.whole.max_pixels)
    held: list[np.ndarray] = []
    for item in read_or_fail(decoded, n_jobs):
        if isinstance(item, np.ndarray):
            held.append(item)
        if len(held) == batch or not isinstance(item, np.ndarray) or item.nbytes >= LARGE:
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
    except MemoryError:
        if len(images) > 1:
            return [row for image in images for row in _judge_some(judge, [image])]
        height, width = images[0].shape[:2]
        return [{"error": f"{width}x{height} pixels are more than there is memory for."}]
