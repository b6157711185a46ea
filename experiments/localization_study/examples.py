"""Pictures with their true mask beside what a localiser says."""

import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.evaluation.localization_records import load_truth
from cnnsvm.localization.overlay import draw_overlay
from cnnsvm.report.markup import Html, element, image, paragraph, section
from cnnsvm.report.wording import format_number

logger = logging.getLogger(__name__)

SIDE = 200  # pixels, at most
ROLES = ("picture", "mask", "map", "overlay")
NOTE = (
    "Held-out pictures of the kind that each localiser was trained on, evenly spread over the "
    "list, not chosen. Mask: white is repainted. Map: white is sure. Overlay: red where the map "
    "is high, yellow the border of what is called repainted."
)


def examples_html(examples: Sequence[Mapping[str, Any]]) -> Html:
    """Show examples in groups by localiser; a section, empty without examples.

    Parameters
    ----------
    examples : sequence of mappings
        Of `localization_study.study.Study`.
    """
    parts: list[Html] = []
    names = dict.fromkeys(_name(example) for example in examples)
    for name in names:
        figures = [_figure(example) for example in examples if _name(example) == name]
        parts += [element("h3", name), element("div", *figures, class_="sheet")]
    return section("Overlays", paragraph(NOTE, class_="soft") if parts else "", *parts)


def draw_example(example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draw the four pictures of an example, uint8 (H, W, 3) each, by the names in `ROLES`.

    Raises
    ------
    ImageError
        If the picture, its mask or its map cannot be read.
    """
    pixels = load_image(example["row"]["path"])
    truth = load_truth(example["row"], example["policy"])
    grey = load_image(example["map"])
    probability = grey[:, :, 0] / np.float32(255)
    drawn = draw_overlay(pixels, probability, probability >= example["threshold"])
    white = np.repeat(np.where(truth, np.uint8(255), np.uint8(0))[:, :, None], 3, axis=2)
    return dict(zip(ROLES, (pixels, white, grey, drawn), strict=True))


def _name(example: Mapping[str, Any]) -> str:
    return f"{example['design']}, {example['kind']}, mask {example['policy']}"


def _figure(example: Mapping[str, Any]) -> Html:
    caption = element("figcaption", f"IoU {format_number(example['iou'])}, ", _path(example))
    try:
        drawn = draw_example(example)
    except (OSError, ValueError) as error:
        logger.warning("no overlay: %s", error)
        return element("figure", element("p", "cannot be read any more"), caption)
    cells = []
    for role, pixels in drawn.items():
        picture = image(_jpeg(pixels), "jpeg", f"{role} of {example['row']['path']}")
        cells.append(element("div", picture, element("span", role), class_=role))
    return element("figure", element("div", *cells, class_="strip"), caption)


def _path(example: Mapping[str, Any]) -> Html:
    return element("code", "/".join(str(example["row"]["path"]).rsplit("/", 2)[-2:]))


def _jpeg(pixels: np.ndarray) -> bytes:
    small = Image.fromarray(pixels)
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
