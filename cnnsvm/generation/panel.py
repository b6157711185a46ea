"""Group images: the pictures of a record side by side, each under its name."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_GAP = 4
_TEXT_SIZE = 14
_STRIP = 22  # pixels of the label strip
MAX_SIDE = 768  # a panel is looked at, never measured: larger pictures are shown smaller


def draw_panel(pictures: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Draw pictures side by side, each under a strip with its label.

    Parameters
    ----------
    pictures : sequence of (label, pixels)
        Pixels are uint8 (H, W, 3) or a bool mask (H, W), drawn white where True. A picture with
        a side of more than 768 pixels is shown smaller; one narrower than its label is centred
        under it.

    Returns
    -------
    ndarray of uint8, shape (H', W', 3)
    """
    font = ImageFont.load_default(_TEXT_SIZE)
    cells = [_draw_cell(label, _to_picture(pixels), font) for label, pixels in pictures]
    width = sum(cell.width for cell in cells) + _GAP * (len(cells) - 1)
    panel = Image.new("RGB", (width, max(cell.height for cell in cells)), "white")
    left = 0
    for cell in cells:
        panel.paste(cell, (left, 0))
        left += cell.width + _GAP
    return np.array(panel)


def _to_picture(pixels: np.ndarray) -> Image.Image:
    values = np.where(pixels, 255, 0).astype(np.uint8) if pixels.dtype == np.bool_ else pixels
    picture = Image.fromarray(values).convert("RGB")
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture


def _draw_cell(label: str, picture: Image.Image, font: _Font) -> Image.Image:
    # a grey ground, so that the white of a mask and of the page can be told apart
    text_width = int(np.ceil(font.getlength(label))) + 2 * _GAP
    cell = Image.new("RGB", (max(picture.width, text_width), picture.height + _STRIP), "#cccccc")
    draw = ImageDraw.Draw(cell)
    draw.rectangle((0, 0, cell.width, _STRIP - 1), fill="#202020")
    draw.text((cell.width / 2, _STRIP / 2), label, fill="white", font=font, anchor="mm")
    cell.paste(picture, ((cell.width - picture.width) // 2, _STRIP))
    return cell
