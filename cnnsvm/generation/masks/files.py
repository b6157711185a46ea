"""Mask files that lie beside the images."""

import os
import re
from pathlib import Path, PurePath

import cv2
import numpy as np

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.generation.masks.schemas import (
    MaskError,
    MaskSchema,
    Scene,
    SchemaError,
    schema_name,
    split_argument,
)

DEFAULT_PATTERN = "{stem}_mask.png"
_COVERAGE = (0.0, 1.0)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_THRESHOLD = 128


def file_schema(argument: str) -> MaskSchema:
    """Make the schema ``file[:PATTERN][,invert][,LOW-HIGH]``.

    Parameters
    ----------
    argument : str
        ``PATTERN`` is the path of a mask relative to the folder of its image. ``{stem}`` stands
        for the image's file name without suffix, ``{name}`` for all of it. The default
        ``{stem}_mask.png`` finds ``cat_mask.png`` beside ``cat.jpg``; ``mask.png`` finds the masks
        of DeepfakeArt; ``../masks/{stem}.png`` those of two folders side by side. With ``invert``
        black is repainted, else white. Any share may be covered by default.

    Returns
    -------
    MaskSchema

    Raises
    ------
    SchemaError
        If there are two patterns, or one that is absolute or has other placeholders.
    """
    options, coverage = split_argument("file", argument, _COVERAGE)
    invert = "invert" in options
    patterns = [option for option in options if option != "invert"] or [DEFAULT_PATTERN]
    pattern = patterns[0]
    unknown = set(_PLACEHOLDER.findall(pattern)) - {"stem", "name"}
    if len(patterns) > 1 or unknown or PurePath(pattern).is_absolute():
        raise SchemaError(
            f"file:{argument}: mask files are named by one path relative to the image's folder, in "
            "which {stem} and {name} may stand for the image's file name without and with suffix, "
            "and which holds no comma. Write for example file:../masks/{stem}.png."
        )

    def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
        return read_mask(scene, pattern) != invert

    own = [pattern] * (pattern != DEFAULT_PATTERN) + ["invert"] * invert
    name = schema_name("file", own, coverage, _COVERAGE)
    return MaskSchema(name, draw, coverage, n_draws=1, find_file=lambda path: _place(path, pattern))


def read_mask(scene: Scene, pattern: str = DEFAULT_PATTERN) -> np.ndarray:
    """Read the mask file of a scene.

    Parameters
    ----------
    scene : Scene
        With a path.
    pattern : str
        As in `file_schema`.

    Returns
    -------
    ndarray of bool, shape (H, W)
        True where the file's grey value is 128 or more. Colours are turned into grey, and what is
        transparent counts as white.

    Raises
    ------
    MaskError
        If the scene has no path, or the file is missing, unreadable, the image itself or of
        another size than the image.
    """
    path = _mask_path(scene, pattern)
    try:
        pixels = load_image(path)
    except ImageError as error:
        raise MaskError(
            f"{scene.path}: its mask cannot be read. {error} Put it there, or name another place, "
            "as in file:../masks/{stem}.png."
        ) from error
    height, width = scene.shape
    if pixels.shape[:2] != scene.shape:
        raise MaskError(
            f"{scene.path}: its mask {path} is {pixels.shape[1]}x{pixels.shape[0]} pixels and the "
            f"image {width}x{height}. Resize the mask to the size of the upright image, or leave "
            "the image out."
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)) >= _THRESHOLD


def _mask_path(scene: Scene, pattern: str) -> Path:
    if scene.path is None:
        raise MaskError(
            "an image without a path has no mask file beside it. Pass images as files, or choose "
            "another mask schema."
        )
    image = Path(scene.path)
    path = _place(scene.path, pattern)
    if os.path.normpath(path) == os.path.normpath(image):
        raise MaskError(
            f"{image}: by the pattern {pattern!r} it is its own mask. Name another file, as in "
            f"file:{DEFAULT_PATTERN}."
        )
    return path


def _place(image: str, pattern: str) -> Path:
    path = Path(image)
    names = {"stem": path.stem, "name": path.name}
    return path.parent / _PLACEHOLDER.sub(lambda found: names[found[1]], pattern)
