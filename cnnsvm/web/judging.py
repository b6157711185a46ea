"""What is said of uploaded images: the judge's rows, and where an image looks repainted."""

import base64
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnsvm import __version__
from cnnsvm.data.images import (
    ImageError,
    ImageLimitError,
    UnknownFormatError,
    has_frames,
    image_hash,
    image_name,
    load_image,
)
from cnnsvm.data.metadata import read_metadata
from cnnsvm.data.scanning import begins_as_image
from cnnsvm.io.memory import is_short_of_memory
from cnnsvm.report.judging import EVIDENCE, Judge, Row
from cnnsvm.report.metadata import describe_metadata
from cnnsvm.report.overlay import blend
from cnnsvm.report.render import encode_jpeg
from cnnsvm.web.answers import Answer, Judged, Named
from cnnsvm.web.limits import Refusal
from cnnsvm.web.service import OutOfTimeError, Service
from cnnsvm.web.uploads import Upload

_OVERLAY_SIDE = 1600  # pixels, at most
_STATED = "probability_"


def judge_uploads(
    end: float, service: Service, uploads: Sequence[Upload], with_heatmaps: bool
) -> Answer:
    """Judge images one by one until ``end``, a time of `time.monotonic`.

    What cannot be judged is an entry with an error; if it is the only one, a `Refusal`.
    """
    judge = service.ready()
    files = [_judge_one(end, service, judge, upload, with_heatmaps) for upload in uploads]
    if len(files) == 1 and isinstance(files[0], Refusal):
        raise files[0]
    entries = [
        Judged(name=upload.name, sha256=image_hash(upload.data), error=found.sentence)
        if isinstance(found, Refusal)
        else found
        for upload, found in zip(uploads, files, strict=True)
    ]
    return Answer(model=judge.model, version=__version__, files=entries)


def can_explain(judge: Judge) -> bool:
    """Tell whether the judge can say where an image looks repainted."""
    return any(getattr(each, "has_classifier", False) for each in judge.detector.embedder_)


def _judge_one(
    end: float, service: Service, judge: Judge, upload: Upload, with_heatmap: bool
) -> Judged | Refusal:
    _check_time(end)
    try:
        pixels = load_image(upload.data, max_pixels=service.limits.max_pixels)
    except ImageError as error:
        return _refused(error, upload)
    with service.one_at_a_time:
        _check_time(end)
        try:
            (row,) = judge.rows([pixels])
            overlay = _overlay(judge, row, pixels) if with_heatmap else {}
        except (MemoryError, RuntimeError) as error:
            if not is_short_of_memory(error):
                raise
            return Refusal(413, f"{pixels.shape[1]}x{pixels.shape[0]} pixels are too many here.")
    return _say(judge, row, upload, pixels.shape, overlay)


def _refused(error: ImageError, upload: Upload) -> Refusal:
    if isinstance(error, ImageLimitError):
        status = 413
    elif isinstance(error, UnknownFormatError) and not begins_as_image(upload.data[:16]):
        status = 415
    else:
        status = 422
    return Refusal(status, str(error).removeprefix(f"{image_name(upload.data)}: "))


def _say(
    judge: Judge, row: Row, upload: Upload, shape: Sequence[int], overlay: dict[str, str]
) -> Judged:
    stated = {k.removeprefix(_STATED): float(v) for k, v in row.items() if k.startswith(_STATED)}
    metadata = read_metadata(upload.data)
    said = describe_metadata(metadata)
    note = "; of its frames, only the first was looked at" if has_frames(upload.data) else ""
    own = ("verdict", "evidence", "coverage", "was_jpeg", "was_resampled")
    further: dict[str, Any] = {name: row[name] for name in own if name in row} | overlay
    return Judged(
        name=upload.name,
        sha256=image_hash(upload.data),
        height=shape[0],
        width=shape[1],
        kind=judge.kind(row),
        sentence=judge.sentence(row | {"metadata": said}) + note,
        of_pixels=judge.sentence_of_pixels(row) + note,
        of_metadata=said or None,
        probabilities=stated,
        metadata=[Named(**vars(found)) for found in metadata],
        **further,
    )


def _overlay(judge: Judge, row: Row, pixels: np.ndarray) -> dict[str, str]:
    """Draw where an image looks repainted, as a data URI, or say why not."""
    if not can_explain(judge):
        return {"overlay_error": "this detector was not fine-tuned: it cannot say where."}
    threshold, speaker = judge.threshold(row), judge.speaker(row)
    drawn = blend(pixels, speaker.explain(pixels), threshold)
    encoded = base64.b64encode(encode_jpeg(drawn, _OVERLAY_SIDE)).decode("ascii")
    asked = next(name for name, (detector, _) in judge.asked().items() if detector is speaker)
    which = f" ({EVIDENCE[asked]})" if asked in EVIDENCE else ""
    rest = "not calibrated" if threshold is None else f"the contour is at {threshold:.2f}"
    says = f"How repainted a place looks{which}, from 0, blue, to 1, yellow; {rest}."
    return {"overlay": f"data:image/jpeg;base64,{encoded}", "overlay_says": says}


def _check_time(end: float) -> None:
    if time.monotonic() > end:
        raise OutOfTimeError
