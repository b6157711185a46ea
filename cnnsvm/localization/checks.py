"""What `InpaintLocalizer` accepts: parameters, images and masks."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length

from cnnsvm.data.images import as_image_list
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.trainer import OPTIMIZERS
from cnnsvm.localization.losses import LOSSES
from cnnsvm.localization.masks import POLICIES, MaskError, as_mask_list

_CHOICES: dict[str, tuple[str, ...]] = {
    "mask_policy": tuple(POLICIES),
    "loss": tuple(LOSSES),
    "optimizer": tuple(OPTIMIZERS),
    "augmentation": tuple(AUGMENTATIONS),
}
_AT_LEAST = {
    "epochs": 1,
    "patience": 1,
    "max_restarts": 0,
    "crop_size": 16,
    "n_crops": 1,
    "crops_per_image": 1,
    "tile_size": 16,
    "tile_overlap": 0,
    "batch_size": 1,
}
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "learning_rate": ("be a number above 0", lambda value: 0 < value < np.inf),
    "weight_decay": ("be a number from 0 up", lambda value: 0 <= value < np.inf),
    "validation_fraction": ("lie in (0, 0.5]", lambda value: 0 < value <= 0.5),
    "warmup": ("lie in [0, 1]", lambda value: 0 <= value <= 1),
    "balance": ("lie in [0, 1]", lambda value: 0 <= value <= 1),
    "threshold": ("be 'iou' or lie in (0, 1)", lambda value: 0 < value < 1),
    "gpu_memory_fraction": ("be None or lie in (0, 1]", lambda value: 0 < value <= 1),
}
#: What some of them may be instead of a number.
_WORDS = {"threshold": "iou", "gpu_memory_fraction": None}


def check_localizer_params(params: dict[str, Any]) -> None:
    """Refuse parameters of `InpaintLocalizer` that its own parts do not check.

    Raises
    ------
    ValueError
        With the value, the rule and the choices.
    """
    for name, choices in _CHOICES.items():
        if params[name] not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {params[name]!r}.")
    for name, least in _AT_LEAST.items():
        if not isinstance(params[name], Integral) or params[name] < least:
            raise ValueError(f"{name} must be a whole number >= {least}, got {params[name]!r}.")
    n_jobs = params["n_jobs"]
    if n_jobs is not None and (not isinstance(n_jobs, Integral) or n_jobs < 0):
        raise ValueError(f"n_jobs must be None or a whole number >= 0, got {n_jobs!r}.")
    if params["tile_overlap"] >= params["tile_size"]:
        raise ValueError(
            f"tile_overlap must be below tile_size, got {params['tile_overlap']!r} and "
            f"{params['tile_size']!r}."
        )
    for name, (rule, fits) in _RANGES.items():
        value = params[name]
        is_word = name in _WORDS and value == _WORDS[name]
        if not is_word and not (isinstance(value, Real) and fits(value)):
            raise ValueError(f"{name} must {rule}, got {value!r}.")
    if not isinstance(params["distributed"], bool | np.bool_):
        raise ValueError(f"distributed must be True or False, got {params['distributed']!r}.")


def check_training_pairs(
    images: Any, masks: Any, groups: Any
) -> tuple[list[Any], list[Any], np.ndarray | None]:
    """Line up images, masks and groups; a manifest brings its own of the latter two.

    Returns
    -------
    (images, masks, groups)
        Two lists of one length, and an ndarray of that length or None. A mask is None where the
        image is untouched.

    Raises
    ------
    ValueError
        If lengths differ, or there are no images or no masks.
    """
    listed = as_image_list(images)
    if hasattr(images, "columns"):
        masks = images["mask_path"] if masks is None and "mask_path" in images else masks
        groups = images["source_id"] if groups is None and "source_id" in images else groups
    if not listed:
        raise ValueError("Found array with 0 sample(s): there are no images to learn from.")
    if masks is None:
        raise MaskError("fit requires masks to be passed; None for an image means untouched.")
    masks = as_mask_list(masks)
    check_consistent_length(listed, masks)
    if groups is not None:
        groups = np.asarray(groups)
        check_consistent_length(listed, groups)
    return listed, masks, groups


def check_repainted(shares: Sequence[float] | np.ndarray) -> None:
    """Refuse masks that leave nothing to tell apart.

    Parameters
    ----------
    shares : array-like of float in [0, 1], shape (n_images,)
        Of the pixels of each image, those that were repainted.

    Raises
    ------
    MaskError
        If no pixel of any image is repainted, or every one is.
    """
    values = np.asarray(shares)
    if not values.any():
        raise MaskError(
            f"none of the {len(values)} masks has a repainted pixel, and a localiser needs both "
            "kinds. Check that the masks are those of repainted images, white where repainted."
        )
    if values.min() == 1:
        raise MaskError(
            f"all {len(values)} masks cover their whole image, and a localiser needs both kinds of "
            "pixels. Add untouched images with mask None, or masks of the repainted part alone."
        )
