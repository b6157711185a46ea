"""What a detector was trained on and what it does not know, as the model card beside it says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsvm.io.bundle import CARD

if TYPE_CHECKING:
    from cnnsvm import InpaintDetector, RegionDetector

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
