"""What a detector was trained on and what it does not know, as the model card beside it says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsvm.io.bundle import CARD, read_config

if TYPE_CHECKING:
    from cnnsvm import InpaintDetector, RegionDetector

#: How cards write the engines, and the codecs, that a detector has learnt from.
_ENGINE = re.compile(
    r"\b(?:decoder:[\w-]+|file:\w+|opencv-\w+|self-blend|Stable Diffusion [\d.]*\d)"
)
_CODEC = re.compile(r"\b(?:JPEG|WebP)(?: of quality)? \d+(?:-\d+)?")
_MEASURED = "## What it was tested on|What was measured"
_TRAINED_ON, _LIMITS = "What it was trained on", "Limits"


def sentences_of(
    detector: "InpaintDetector | RegionDetector", names: Sequence[str], folder: Path
) -> list[str]:
    """Say what a detector tells, was trained on (images, engines, sizes, codecs) and is blind to.

    ``names`` are those of its classes, ``folder`` is where it was loaded from. The sentences of its
    card are given as they are; of a card without such lists, the first paragraphs.
    """
    said = [f"It tells apart: {', '.join(names)}."]
    if least := getattr(detector, "min_side_", 0):
        most = getattr(detector, "max_side_", 0)  # of older bundles it is not known
        sides = f"{least:,} to {most:,}" if most else f"at least {least:,}"
        said.append(f"Its training images had sides of {sides} pixels.")
    card = folder / CARD
    if not card.is_file():
        return [*said, "It has no model card: what it was trained on is not recorded."]
    text = card.read_text(encoding="utf-8")
    listed = [*_bullets(text, _TRAINED_ON), *_bullets(text, _LIMITS)]
    return [*said, *(listed or _first_paragraphs(text))]


def summary_of(folder: Path) -> str:
    """Say in a line which engines, sides and codecs a saved model learnt from, as far as it says.

    Nothing of it is loaded but its description and its card.
    """
    text = (folder / CARD).read_text(encoding="utf-8")
    learnt = re.split(_MEASURED, text)[0]
    engines = sorted({found.partition(":")[0] for found in _ENGINE.findall(text)})
    codecs = dict.fromkeys(found.replace(" of quality", "") for found in _CODEC.findall(learnt))
    config = read_config(folder)
    least, most = config.get("min_side", 0), config.get("max_side", 0)
    sides = f"{least:,} pixels" if least == most else f"{least:,} to {most:,} pixels"
    said = {
        "engines": ", ".join(engines),
        "sides": "" if not least else sides if most else f"{least:,} pixels or more",
        "codecs": ", ".join(codecs),
    }
    return "; ".join(f"{name} {text}" for name, text in said.items() if text)


def _bullets(text: str, heading: str) -> list[str]:
    """Return the points under a heading of a Markdown text, each on one line."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
    )
    points = re.split(r"^- ", found[1] if found else "", flags=re.MULTILINE)[1:]
    return [" ".join(point.split("\n\n")[0].split()) for point in points]


def _first_paragraphs(text: str) -> list[str]:
    """Return the paragraphs between a title and what is no prose."""
    body = text.split("```")[0].partition("\n")[2]
    return [" ".join(each.split()) for each in body.split("\n\n") if each.strip()]
