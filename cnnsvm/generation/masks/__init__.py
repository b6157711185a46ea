"""Mask schemas by name: one interface for shapes, mask files, strokes and objects.

A schema is named ``kind`` or ``kind:argument``, where the argument holds options separated by
commas, in any order; an option ``LOW-HIGH`` of two numbers in [0, 1] limits the share of the image
that a mask may cover, as in ``strokes:0.1-0.5``. Equal schemas have equal names. `SCHEMAS` maps
each kind to a factory that turns the argument (empty if there is none) into a `MaskSchema`.
"""

import functools
import importlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from cnnsvm.data.images import ImageError
from cnnsvm.data.mask_files import MaskError, read_mask_levels
from cnnsvm.data.mask_shapes import MASK_SCHEMAS

DEFAULT_PATTERN = "{stem}_mask.png"
_N_DRAWS = 20
_ANY = (0.0, 1.0)
_LIMITS = re.compile(r"(\d*\.?\d+)-(\d*\.?\d+)")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_THRESHOLD = 128

Limits = tuple[float, float]


class SchemaError(ValueError):
    """A mask schema that does not exist or whose argument is wrong."""


@dataclass(frozen=True)
class Scene:
    """What a mask is drawn for: an upright RGB image, uint8 (H, W, 3), and its file, if any."""

    image: np.ndarray
    path: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def __str__(self) -> str:
        return self.path or "image"


Draw = Callable[[Scene, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class MaskSchema:
    """A named way to choose the part of an image that is repainted.

    ``name`` is what the manifest's ``mask_schema`` column says. ``draw`` maps ``(scene, rng)`` to
    bool (H, W), True where to repaint; it draws random numbers from ``rng`` alone, and raises a
    `MaskError` if the scene offers nothing to mask. ``coverage`` is the least and largest share of
    the image that a mask may cover, ``n_draws`` how often to draw before giving up: 1 for a schema
    that draws no random numbers. ``find_file`` is for a schema that takes finished masks: from the
    path of an image to that of its mask.
    """

    name: str
    draw: Draw
    coverage: Limits = _ANY
    n_draws: int = _N_DRAWS
    find_file: Callable[[str], Path] | None = None

    def __call__(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """Draw a bool mask (H, W) within the limits; a `MaskError` if ``n_draws`` are not.

        It is neither empty nor, unless the image is a single pixel, all of it.
        """
        for _ in range(self.n_draws):
            mask = self.draw(scene, rng)
            if mask.dtype != np.bool_ or mask.shape != scene.shape:
                raise SchemaError(
                    f"schema {self.name!r} must draw bool {scene.shape}, got {mask.dtype} "
                    f"{mask.shape}. Correct the schema."
                )
            if is_within(mask, self.coverage):
                return mask
        tries = f"{self.n_draws} masks were drawn and the last" if self.n_draws > 1 else "its mask"
        low, high = self.coverage
        raise MaskError(
            f"{scene}: {tries} covers {mask.mean():.1%}; schema {self.name!r} allows {low:.1%} to "
            f"{high:.1%}, and a mask is neither all black nor all white. Change the limits or "
            "leave this image out."
        )


def get_schema(name: str | MaskSchema) -> MaskSchema:
    """Make the schema of a name (or a `SchemaError`); a `MaskSchema` is returned as is."""
    if isinstance(name, MaskSchema):
        return name
    kind, _, argument = str(name).partition(":")
    if kind not in SCHEMAS:
        raise SchemaError(f"no mask schema {name!r}. There is: {', '.join(SCHEMAS)}.")
    factory = SCHEMAS[kind]
    if isinstance(factory, str):
        module, _, function = factory.partition(":")
        factory = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return factory(argument)


def split_argument(kind: str, argument: str, default: Limits) -> tuple[list[str], Limits]:
    """Split an argument into a schema's own options and its limits of coverage.

    A `SchemaError` is raised if the limits are given twice, or are not 0 <= low < high <= 1.
    """
    options, limits = [], []
    for option in filter(None, (part.strip() for part in argument.split(","))):
        found = _LIMITS.fullmatch(option)
        if found:
            limits.append((float(found[1]), float(found[2])))
        else:
            options.append(option)
    if len(limits) > 1 or any(not 0 <= low < high <= 1 for low, high in limits):
        raise SchemaError(
            f"{kind}:{argument}: the limits of coverage are two shares of the image with "
            f"0 <= low < high <= 1, given once. Write for example {kind}:0.1-0.5."
        )
    return options, (limits[0] if limits else default)


def schema_name(kind: str, options: Iterable[str], coverage: Limits, default: Limits) -> str:
    """Join a kind, the options that differ from the default, and limits that do."""
    parts = list(options)
    if coverage != default:
        # never 1e-05, which would not be read back
        parts.append("-".join(np.format_float_positional(limit, trim="-") for limit in coverage))
    return f"{kind}:{','.join(parts)}" if parts else kind


def is_within(mask: np.ndarray, coverage: Limits) -> bool:
    """Tell whether a mask covers a share within the limits, not 0 nor (but for one pixel) 1."""
    share = float(mask.mean())
    return coverage[0] <= share <= coverage[1] and share > 0 and (share < 1 or mask.size == 1)


def shape_schema(kind: str, argument: str) -> MaskSchema:
    """Make the schema of a shape out of `MASK_SCHEMAS`: ``KIND[:LOW-HIGH]``."""
    options, limits = split_argument(kind, argument, _ANY)
    if options:
        raise SchemaError(
            f"{kind} takes limits of coverage only, got {options[0]!r}. Write {kind} or {kind}:0-1."
        )
    shape = MASK_SCHEMAS[kind]
    return MaskSchema(
        schema_name(kind, [], limits, _ANY),
        lambda scene, rng: shape(*scene.shape, rng),
        limits,
        _N_DRAWS if kind == "random_patches" else 1,  # the others are the same every time
    )


def file_schema(argument: str) -> MaskSchema:
    """Make the schema ``file[:PATTERN][,invert][,LOW-HIGH]``: mask files beside the images.

    ``PATTERN`` is the path of a mask relative to the folder of its image; in it ``{stem}`` stands
    for the image's file name without suffix and ``{name}`` for all of it. The default
    ``{stem}_mask.png`` finds ``cat_mask.png`` beside ``cat.jpg``. A grey value of 128 or more is
    repainted, with ``invert`` one below. Any share may be covered by default.
    """
    options, coverage = split_argument("file", argument, _ANY)
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

    def find(image: str) -> Path:
        path = Path(image)
        names = {"stem": path.stem, "name": path.name}
        return path.parent / _PLACEHOLDER.sub(lambda found: names[found[1]], pattern)

    def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
        return _read_mask(scene, find) != invert

    own = [pattern] * (pattern != DEFAULT_PATTERN) + ["invert"] * invert
    name = schema_name("file", own, coverage, _ANY)
    return MaskSchema(name, draw, coverage, n_draws=1, find_file=find)


def _read_mask(scene: Scene, find: Callable[[str], Path]) -> np.ndarray:
    """Read the mask file of a scene as bool (H, W) (see `read_mask_levels`)."""
    if scene.path is None:
        raise MaskError(
            "an image without a path has no mask file beside it. Pass images as files, or choose "
            "another mask schema."
        )
    path = find(scene.path)
    if os.path.normpath(path) == os.path.normpath(scene.path):
        raise MaskError(
            f"{scene}: the pattern makes it its own mask. Name another file, as in "
            f"file:{DEFAULT_PATTERN}."
        )
    try:
        levels = read_mask_levels(path)
    except ImageError as error:
        raise MaskError(
            f"{scene}: its mask cannot be read. {error} Put it there, or name another place, "
            "as in file:../masks/{stem}.png."
        ) from error
    height, width = scene.shape
    if levels.shape != scene.shape:
        raise MaskError(
            f"{scene}: its mask {path} is {levels.shape[1]}x{levels.shape[0]} pixels and the image "
            f"{width}x{height}. Resize the mask to the size of the upright image, or leave the "
            "image out."
        )
    return levels >= _THRESHOLD


#: Factories of mask schemas by kind, some as ``module:function`` in this package: the shapes of
#: `MASK_SCHEMAS`; ``file[:<pattern>][,invert]``; ``rectangles[:N]`` and ``strokes``, drawn at
#: random; ``object[:<model>][,box|instance][,weights=<file>][,score=<share>]``, found by a network.
SCHEMAS: dict[str, str | Callable[[str], MaskSchema]] = {
    **{kind: functools.partial(shape_schema, kind) for kind in MASK_SCHEMAS},
    "rectangles": "strokes:rectangles_schema",
    "strokes": "strokes:strokes_schema",
    "object": "objects:object_schema",
    "file": file_schema,
}
