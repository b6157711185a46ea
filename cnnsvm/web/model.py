"""What a server says of its model, from the detectors and their cards."""

import re
from pathlib import Path
from typing import Any

from cnnsvm import __version__
from cnnsvm.data.decoding import FORMATS
from cnnsvm.detection.model_card import CARD
from cnnsvm.detection.pretrained import find_pretrained
from cnnsvm.detection.region import SHIPPED_REGION
from cnnsvm.report.judging import SAID, Judge, class_names
from cnnsvm.web.answers import Class, Detector, Model
from cnnsvm.web.judging import can_explain
from cnnsvm.web.limits import Limits

_ALL = "all evidence"
_UNCOVERED = "repainted in a way that leaves no trace that the detectors know"
_LISTED = re.compile(r"engines: (.+?)\.?$")


def describe_model(judge: Judge, name: str | None, revision: str | None, limits: Limits) -> Model:
    """Describe what judges, and what a request may take."""
    says = SAID | {"uncovered": _UNCOVERED} if judge.combined else {}
    return Model(
        name=Path(name).name if name else _ALL,  # of a folder, who asks learns no more
        model=judge.model,
        version=__version__,
        classes=[Class(name=each, says=says.get(each, each)) for each in judge.names],
        detectors=[
            _describe(each, detector, folder)
            for each, (detector, folder) in _detectors(judge, name, revision).items()
        ],
        has_heatmaps=can_explain(judge),
        formats=list(FORMATS),
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        max_files=limits.max_files,
    )


def _detectors(judge: Judge, name: str | None, revision: str | None) -> dict[str, tuple[Any, Path]]:
    """Return each detector that is asked, and the folder of its files."""
    if judge.combined is None:
        return {Path(str(name)).name: (judge.detector, find_pretrained(name, revision=revision))}
    found = {
        "generated": (judge.combined.generated, find_pretrained("generated")),
        "trace": (judge.combined.trace, find_pretrained()),
    }
    return found | {"region": (judge.combined.region, SHIPPED_REGION)}


def _describe(name: str, detector: Any, folder: Path) -> Detector:
    file = folder / CARD
    card = file.read_text(encoding="utf-8") if file.is_file() else ""
    learnt = _entries(card, "What it was trained on")
    engines = [
        each for line in learnt for found in _LISTED.findall(line) for each in found.split(", ")
    ]
    return Detector(
        name=name,
        model=str(detector.model_id_),
        classes=class_names(detector),
        threshold=getattr(detector, "threshold_", None),
        rejection_threshold=detector.rejection_threshold_,
        engines=sorted(set(engines)),
        trained_on=learnt,
        limits=_entries(card, "Limits"),
    )


def _entries(card: str, title: str) -> list[str]:
    """Return the entries of the list below a heading of a model card."""
    _, _, rest = card.partition(f"## {title}\n")
    return re.findall(r"^- (.+)$", rest.partition("\n## ")[0], re.MULTILINE)
