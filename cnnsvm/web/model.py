"""What a server says of its model, from the detectors and their cards."""

import re
from pathlib import Path
from typing import Any

from cnnsvm import __version__
from cnnsvm.data.decoding import FORMATS
from cnnsvm.report.judging import EVIDENCE, NO_TRACE, SAID, Judge, class_names
from cnnsvm.report.knowledge import sentences_of
from cnnsvm.web.answers import Class, Detector, Model
from cnnsvm.web.judging import can_explain
from cnnsvm.web.limits import Limits

_ALL = "all evidence"
_UNCOVERED = "a repainting that leaves no known trace"
_LISTED = re.compile(r"engines: (.+?)\.?$")


def describe_model(judge: Judge, limits: Limits) -> Model:
    """Describe what judges, and what a request may take."""
    says = SAID | {"uncovered": _UNCOVERED, judge.nothing: SAID[NO_TRACE]}
    return Model(
        name=_last(judge.origin[0] or _ALL),
        model=judge.model,
        version=__version__,
        classes=[Class(name=each, says=says.get(each, each)) for each in judge.names],
        detectors=[_describe(name, *found) for name, found in judge.asked().items()],
        has_heatmaps=can_explain(judge),
        formats=list(FORMATS),
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        max_files=limits.max_files,
    )


def _describe(name: str, detector: Any, folder: Path) -> Detector:
    names = class_names(detector)
    knows = sentences_of(detector, names, folder)
    engines = {
        each for line in knows for found in _LISTED.findall(line) for each in found.split(", ")
    }
    return Detector(
        name=_last(name),
        sees=EVIDENCE.get(name),
        model=str(detector.model_id_),
        classes=names,
        threshold=getattr(detector, "threshold_", None),
        rejection_threshold=detector.rejection_threshold_,
        engines=sorted(engines),
        knows=knows,
    )


def _last(name: str) -> str:
    """Return a folder's own name: who asks a server need not know where it is."""
    return Path(name).name
