"""Masks as ground truth: which pixels of an image count as repainted."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.utils.validation import check_consistent_length

from cnnsvm.data.images import ImageInput, as_image_list, image_name, load_image
from cnnsvm.data.mask_files import MaskError, read_mask_levels

#: Policy -> least grey value (0-255) that counts as repainted. They part ways on masks with soft
#: edges, and a study found IoUs of .94 and .82 for one network from that alone.
POLICIES = {"any": 1, "half": 128, "full": 255}


def check_policy(policy: str) -> None:
    """Refuse an unknown mask policy (`ValueError`)."""
    if policy not in POLICIES:
        raise ValueError(f"mask_policy must be one of {', '.join(POLICIES)}, got {policy!r}.")


def load_mask(mask: ImageInput, policy: str = "half") -> np.ndarray:
    """Load one mask as a new array of bool (H, W), True where repainted.

    It is an image that is bright where it was repainted, as `read_mask_levels` reads it; or an
    array of bool (H, W), taken as it is, or of uint8, read as an image is. ``policy`` says
    which grey values count: "any" above 0, "half" from 128, "full" 255 only. All False is
    allowed: an untouched image. A MaskError is raised if the mask cannot be read, is ambiguous,
    has another dtype or shape, or is grey where nothing counts.
    """
    check_policy(policy)
    if isinstance(mask, np.ndarray) and mask.dtype == bool and mask.ndim == 2:
        return mask.copy()
    grey, least = _grey(mask), POLICIES[policy]
    brightest = int(grey.max(initial=0))
    if 0 < brightest < least:
        fitting = " or ".join(repr(name) for name, value in POLICIES.items() if value <= brightest)
        raise MaskError(
            f"mask {image_name(mask)}: its brightest pixel is {brightest}, and mask_policy "
            f"{policy!r} counts those from {least} up: nothing would count. Use mask_policy "
            f"{fitting}, scale the mask to 0 and 255, or give None for an untouched image."
        )
    return grey >= least


def load_pair(
    image: ImageInput,
    mask: ImageInput | None,
    policy: str = "half",
    max_pixels: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Load an image, uint8 (H, W, 3), and its mask, bool (H, W), both upright.

    For the mask see `load_mask`; None is an untouched image. An ImageError is raised if the image
    cannot be read, and a `MaskError` if the mask cannot be used or has another size.
    """
    pixels = load_image(image, max_pixels=max_pixels)
    if mask is None:
        return pixels, np.zeros(pixels.shape[:2], dtype=bool)
    try:
        repainted = load_mask(mask, policy)
    except MaskError as error:
        raise MaskError(f"{image_name(image)}: {error}") from error
    if repainted.shape != pixels.shape[:2]:
        (height, width), (own_height, own_width) = repainted.shape, pixels.shape[:2]
        raise MaskError(
            f"{image_name(image)}: its mask {image_name(mask)} is {width}x{height} pixels and the "
            f"image {own_width}x{own_height}. Resize the mask to the size of the upright image, "
            "or leave the image out."
        )
    return pixels, repainted


def as_mask_list(masks: Any) -> list[Any]:
    """List one mask, or a sequence, Series or array of masks, unopened (others: `MaskError`).

    A bare path is one mask, an array of numbers is one (H, W) or a stack (N, H, W). Items that are
    missing (None, NaN or "") are untouched images, None in the list.
    """
    if isinstance(masks, (str, bytes, os.PathLike, Image.Image)):
        return [masks]
    if isinstance(masks, np.ndarray) and masks.dtype.kind not in "OUS":
        if masks.ndim not in (2, 3):
            raise MaskError(
                f"an array of masks has shape (H, W) or (N, H, W), got {masks.shape}. Pass a list."
            )
        return [masks] if masks.ndim == 2 else list(masks)
    if not isinstance(masks, Sequence | np.ndarray | pd.Series):
        raise MaskError(
            "masks must be a list of paths, PIL images, arrays and None (for an untouched image), "
            f"got {type(masks).__name__}."
        )
    return [None if _is_missing(mask) else mask for mask in masks]


def check_training_pairs(
    images: Any, masks: Any, groups: Any
) -> tuple[list[Any], list[Any], np.ndarray | None]:
    """Line up images, masks and groups; a manifest brings its own of the latter two.

    A ValueError is raised if lengths differ, or there are no images or no masks.
    """
    listed = as_image_list(images)
    if hasattr(images, "columns"):
        masks = images["mask_path"] if masks is None and "mask_path" in images else masks
        groups = images["source_id"] if groups is None and "source_id" in images else groups
    if not listed:
        raise ValueError("Found array with 0 sample(s): there are no images.")
    if masks is None:
        raise MaskError("fit requires masks to be passed; None for an image means untouched.")
    masks = as_mask_list(masks)
    check_consistent_length(listed, masks)
    if groups is not None:
        groups = np.asarray(groups)
        check_consistent_length(listed, groups)
    return listed, masks, groups


def _is_missing(mask: Any) -> bool:
    return np.ndim(mask) == 0 and (bool(pd.isna(mask)) or mask == "")


def _grey(mask: ImageInput) -> np.ndarray:
    """Read a mask's grey values, uint8 (H, W)."""
    if isinstance(mask, np.ndarray) and mask.dtype != np.uint8:
        what = "a shape of (H, W)" if mask.dtype == bool else "dtype bool or uint8 (0-255)"
        raise MaskError(
            f"mask {image_name(mask)}: an array needs {what}. Write for example mask > 0."
        )
    return read_mask_levels(mask)
