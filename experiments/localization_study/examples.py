"""Images with their true mask beside what a localiser says."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnsvm.data.images import load_image
from cnnsvm.evaluation.localization_records import load_truth
from cnnsvm.localization.overlay import draw_overlay
from cnnsvm.report.model import Exhibit, Gallery, Picture
from cnnsvm.report.render import encode_jpeg
from cnnsvm.report.wording import format_number

logger = logging.getLogger(__name__)

SIDE = 200  # pixels, at most
ROLES = ("image", "mask", "map", "overlay")
NOTE = (
    "Held-out images of the kind that the localiser was trained on, evenly spread over the list, "
    "not chosen. Mask: white is repainted. Map: white is sure. Overlay: red where the map is high, "
    "yellow the border of what is called repainted."
)


def example_galleries(examples: Sequence[Mapping[str, Any]]) -> list[Gallery]:
    """Group examples, as of `localization_study.study.Study`, by localiser."""
    groups: dict[str, list[Exhibit]] = {}
    for example in examples:
        name = f"{example['design']}, {example['kind']}, mask {example['policy']}"
        groups.setdefault(name, []).append(_exhibit(example))
    return [Gallery(exhibits, name, NOTE) for name, exhibits in groups.items()]


def draw_example(example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Draw the four images of an example, uint8 (H, W, 3) each, by the names in `ROLES`.

    Raises
    ------
    ImageError
        If the image, its mask or its map cannot be read.
    """
    pixels = load_image(example["row"]["path"])
    truth = load_truth(example["row"], example["policy"])
    grey = load_image(example["map"])
    probability = grey[:, :, 0] / np.float32(255)
    drawn = draw_overlay(pixels, probability, probability >= example["threshold"])
    white = np.repeat(np.where(truth, np.uint8(255), np.uint8(0))[:, :, None], 3, axis=2)
    return dict(zip(ROLES, (pixels, white, grey, drawn), strict=True))


def _exhibit(example: Mapping[str, Any]) -> Exhibit:
    path = "/".join(str(example["row"]["path"]).rsplit("/", 2)[-2:])
    try:
        drawn: Mapping[str, np.ndarray | None] = draw_example(example)
    except (OSError, ValueError) as error:
        logger.warning("no overlay: %s", error)
        drawn = dict.fromkeys(ROLES)
    pictures = [
        Picture(None if pixels is None else encode_jpeg(pixels, SIDE), f"{role} of {path}", role)
        for role, pixels in drawn.items()
    ]
    return Exhibit(pictures, path, [f"IoU {format_number(example['iou'])}"])
