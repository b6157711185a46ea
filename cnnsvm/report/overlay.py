"""Where something was found, drawn on the image: a heatmap that can be read without a manual."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cnnsvm.data.encoding import write_image
from cnnsvm.data.images import ImageError, load_image, read_header

if TYPE_CHECKING:
    from PIL import ImageFont

    from cnnsvm import InpaintDetector, RegionDetector

#: Most pixels a side of what is drawn; smaller images than the least are enlarged to it.
MOST_SHOWN, LEAST_SHOWN = 4096, 256
NOTHING_STANDS_OUT = "Nothing stands out: no place reaches the threshold."
#: Its order is one of lightness, which the colour-blind see, and no colour of it is a grey.
_COLOURS = "plasma"
_FAINT, _STRONG = 0.1, 0.75  # share of the colour where the heat is 0 and 1
_LEAST_WIDTH = 420  # of the strip
_FONT = (13, 64)  # pixels, least and most
_ORIENTATION = 0x0112  # EXIF
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def draw_overlay(
    pixels: np.ndarray, heat: np.ndarray, threshold: float | None = None, caption: str = ""
) -> np.ndarray:
    """Draw a heatmap on an image, and under it what it says and how to read it.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)
    heat : ndarray of float32, shape (H, W), in [0, 1]
    threshold : float, optional
        From where a place counts: it gets a contour and a mark on the colour bar, and where no
        place reaches it, that is said. None where a detector has none.
    caption : str
        Such as the verdict and the id of the model; it is wrapped.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The image of `blend`, reduced to at most `MOST_SHOWN` or enlarged to about `LEAST_SHOWN`
        pixels a side, with a strip below; nothing is written on the image itself.
    """
    shown = blend(*_resized(pixels, heat), threshold)
    width = max(shown.shape[1], _LEAST_WIDTH)
    if threshold is not None and heat.max() < threshold:
        caption = f"{caption} {NOTHING_STANDS_OUT}".strip()
    strip = _strip(width, threshold, caption)
    canvas = np.full((shown.shape[0] + strip.shape[0], width, 3), _PAPER, np.uint8)
    left = (width - shown.shape[1]) // 2
    canvas[: shown.shape[0], left : left + shown.shape[1]] = shown
    canvas[shown.shape[0] :] = strip
    return canvas


def blend(pixels: np.ndarray, heat: np.ndarray, threshold: float | None = None) -> np.ndarray:
    """Lay a heatmap over an image, made grey so that its own colours are not taken for heat.

    Shapes and result as for `draw_overlay`, in the size of the image.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    drawn = _coloured(grey, heat)
    if threshold is not None:
        mask = (heat >= np.float32(threshold)).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        thick = max(1, round(max(mask.shape) / 600))
        for colour, width in (((0, 0, 0), 3 * thick), ((255, 255, 255), thick)):
            cv2.drawContours(drawn, contours, -1, colour, width)
    return drawn


def write_heatmap(
    detector: "InpaintDetector | RegionDetector",
    path: Path,
    target: Path,
    threshold: float | None = None,
    caption: str = "",
) -> Path:
    """Write where a detector finds an image repainted, and return the file.

    ``TARGET.heatmap.png`` is 8-bit grey (0-255 for 0-1) and pixel for pixel as the image is
    stored, with the same EXIF orientation. ``TARGET.overlay.jpg`` beside it is upright, see
    `draw_overlay`. An ImageError says that the image cannot be read or a file not written.
    """
    from PIL import Image

    stored = np.round(255 * detector.explain(path)).astype(np.uint8)
    exif = Image.Exif()
    exif[_ORIENTATION] = read_header(path).orientation
    heatmap = target.with_name(f"{target.name}.heatmap.png")
    try:
        write_image(heatmap, stored, "PNG", exif=exif)
        heat = load_image(heatmap, max_pixels=stored.size)[:, :, 0] / np.float32(255)
        pixels = load_image(path, max_pixels=detector.max_pixels)
        drawn = draw_overlay(pixels, heat, threshold, caption)
        write_image(target.with_name(f"{target.name}.overlay.jpg"), drawn, "JPEG", quality=90)
    except OSError as error:
        raise ImageError(f"{path}: its heatmap cannot be written ({error}).") from error
    return heatmap


def _resized(pixels: np.ndarray, heat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring both to a size that can be looked at."""
    longest = max(heat.shape)
    if longest > MOST_SHOWN:
        height, width = (max(1, round(side * MOST_SHOWN / longest)) for side in heat.shape)
        size, how = (width, height), cv2.INTER_AREA
    else:
        times = max(1, LEAST_SHOWN // longest)  # whole pixels, so that none is invented
        size, how = (heat.shape[1] * times, heat.shape[0] * times), cv2.INTER_NEAREST
    pixels, heat = (cv2.resize(each, size, interpolation=how) for each in (pixels, heat))
    return pixels, heat


def _coloured(grey: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Mix grey values with the colours of the heat, the more of them the higher it is."""
    import matplotlib

    colours = matplotlib.colormaps[_COLOURS](np.linspace(0, 1, 256), bytes=True)[:, None, :3]
    share = np.linspace(_FAINT, _STRONG, 256, dtype=np.float32)[:, None, None]
    greys = np.arange(256, dtype=np.float32)[None, :, None]
    mixed = np.rint((1 - share) * greys + share * colours).astype(np.uint8)
    return mixed[np.rint(heat.clip(0, 1) * 255).astype(np.uint8), grey]


def _strip(width: int, threshold: float | None, caption: str) -> np.ndarray:
    """Draw the caption and the colour bar with its numbers, uint8 (height, width, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    size = int(np.clip(width // 45, *_FONT))
    font = ImageFont.load_default(size)
    line, margin = round(1.4 * size), size
    rest = "not calibrated: no threshold" if threshold is None else f"contour from {threshold:.2f}"
    meaning = f"Colour: how repainted a place looks, 0 to 1; {rest}."
    lines = [each for text in (caption, meaning) for each in _wrapped(text, font, width - 2 * size)]
    top = margin + line * len(lines)
    strip = Image.new("RGB", (width, top + round(2.6 * line)), _PAPER)
    draw = ImageDraw.Draw(strip)
    for number, text in enumerate(lines):
        draw.text((margin, margin // 2 + number * line), text, _INK, font)
    bar = _bar(width - 2 * margin, line, threshold)
    strip.paste(Image.fromarray(bar), (margin, top))
    for tick, anchor in ((0.0, "la"), (0.25, "ma"), (0.5, "ma"), (0.75, "ma"), (1.0, "ra")):
        place = (margin + tick * (bar.shape[1] - 1), top + 1.15 * line)
        draw.text(place, f"{tick:g}", _INK, font, anchor)
    return np.asarray(strip)


def _bar(width: int, height: int, threshold: float | None) -> np.ndarray:
    """Draw the colours as they are on middling grey, with a mark at the threshold."""
    heat = np.linspace(0, 1, width, dtype=np.float32)[None].repeat(height, axis=0)
    bar = _coloured(np.full(heat.shape, 128, np.uint8), heat)
    if threshold is not None:
        place, thick = round(threshold * (width - 1)), max(1, height // 10)
        bar[:, max(0, place - 2 * thick) : place + 2 * thick + 1] = 0
        bar[:, max(0, place - thick) : place + thick + 1] = 255
    return bar


def _wrapped(
    text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int
) -> list[str]:
    """Break a text into lines that are no wider, words too if they must be."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
        while font.getlength(lines[-1]) > width and len(lines[-1]) > 1:
            fits = next(
                n
                for n in range(len(lines[-1]) - 1, 0, -1)
                if n == 1 or font.getlength(lines[-1][:n]) <= width
            )
            lines[-1:] = [lines[-1][:fits], lines[-1][fits:]]
    return [line for line in lines if line]
