"""The one place where a mask's file becomes levels: white where it was repainted."""

import numpy as np
from PIL import Image

from cnnsvm.data.decoding import open_image
from cnnsvm.data.images import ImageError, ImageInput, image_name, load_image

#: How far the channels of a grey mask may lie apart, as a JPEG brings them.
_TINT = 32
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
    - More colours, and an alpha channel that varies, are ambiguous: a MaskError is raised. One is
      raised as well if the mask cannot be read.
    """
    try:
        pixels = load_image(mask)
    except ImageError as error:
        raise MaskError(f"mask {error}") from error
    _check_alpha(mask)
    if int(np.ptp(pixels, axis=2).max()) > _TINT:
        return _two_colours(pixels, mask)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    return grey * np.uint8(255) if grey.max() == 1 else grey


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
