"""The one place where a mask's file becomes levels: white where it was repainted."""

import cv2
import numpy as np
from PIL import Image

from cnnsvm.data.decoding import open_image
from cnnsvm.data.images import ImageError, ImageInput, image_name, load_image

#: How far the channels of a grey mask may lie apart, as a JPEG brings them.
_TINT = 32
#: Grey levels that are classes or a trimap: so few in all, one of them between the darkest and the
#: brightest (but for what a JPEG adds to these) on areas of so many pixels a side, which are so
#: large a share.
_FEW, _NEAR, _AREA, _SHARE = 32, 3, 5, 0.005
_ALPHA_REMEDY = (
    "Save it as grey, white where the image was repainted: some tools mark the hole by "
    "transparency, others by what is opaque."
)


class MaskError(ImageError):
    """A mask that cannot be used; the message gives the value, the rule and the remedy."""


def read_mask_levels(mask: ImageInput) -> np.ndarray:
    """Read the levels of a mask, uint8 (H, W), upright: bright where the image was repainted.

    - Grey, also of 16 bits: its levels; where there are but 0 and 1, 1 is white.
    - Two colours, one of them black, also of a palette: the other one is white.
    - More colours, few levels of grey that all have areas (numbers of classes, trimaps), and an
      alpha channel that varies, are ambiguous: a MaskError is raised. One is raised as well if the
      mask cannot be read.
    """
    try:
        pixels = load_image(mask)
    except ImageError as error:
        raise MaskError(f"mask {error}") from error
    _check_alpha(mask)
    tint = int(np.ptp(pixels, axis=2).max())
    if tint > _TINT or (tint and pixels.max() <= _TINT):  # a class may have its number in one
        return _two_colours(pixels, mask)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    _check_classes(grey, mask)
    return grey * np.uint8(255) if grey.max() == 1 else grey


def _check_classes(grey: np.ndarray, mask: ImageInput) -> None:
    levels = np.unique(grey)
    if not 2 < len(levels) <= _FEW:
        return
    around = np.ones((_AREA, _AREA), np.uint8)
    middle = levels[(levels > int(levels[0]) + _NEAR) & (levels < int(levels[-1]) - _NEAR)]
    if levels[-1] <= _FEW:
        middle = levels[1:-1]
    areas = {int(k): cv2.erode((grey == k).astype(np.uint8), around).mean() for k in middle}
    found = [level for level, share in areas.items() if share > _SHARE]
    if found:
        raise MaskError(
            f"mask {image_name(mask)}: areas of grey {found[0]} between {levels[0]} and "
            f"{levels[-1]}, as of classes or a trimap, and which are repainted? Save it as grey, "
            "white where the image was repainted, and black elsewhere."
        )


def _check_alpha(mask: ImageInput) -> None:
    if isinstance(mask, np.ndarray):
        alpha = mask[:, :, 3] if mask.ndim == 3 and mask.shape[2] == 4 else np.zeros(1)
    else:
        with open_image(mask) as (_, opened):
            has_alpha = "A" in opened.getbands() or "transparency" in opened.info
            alpha = np.asarray(opened.convert("RGBA").getchannel("A")) if has_alpha else np.zeros(1)
    if alpha.min() < alpha.max():
        raise MaskError(f"mask {image_name(mask)}: its alpha channel varies. {_ALPHA_REMEDY}")


def _two_colours(pixels: np.ndarray, mask: ImageInput) -> np.ndarray:
    """Read a mask of black and one colour."""
    codes = pixels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    colours = np.unique(codes)
    if len(colours) != 2 or colours[0] != 0:
        raise MaskError(
            f"mask {image_name(mask)}: {len(colours)} colours, and which of them is repainted? "
            "Save it as grey, white where the image was repainted, or as black and one colour."
        )
    return np.where(codes > 0, np.uint8(255), np.uint8(0))
