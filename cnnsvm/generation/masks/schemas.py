"""Mask schemas by name: one interface for shapes, strokes, objects and mask files.

A schema is named ``kind`` or ``kind:argument``, where the argument holds options separated by
commas; an option ``LOW-HIGH`` of two numbers in [0, 1] limits the share of the image that a mask
may cover, as in ``strokes:0.1-0.5``. `SCHEMAS` maps each kind to a factory that turns the
argument (empty if there is none) into a `MaskSchema`. The order of the options is free; the name
of the schema has them in one order and without those that are the default, so that equal schemas
have equal names.
"""

import functools
import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnsvm.data.images import ImageError
from cnnsvm.data.mask_shapes import MASK_SCHEMAS

_N_DRAWS = 20
_ANY = (0.0, 1.0)
_LIMITS = re.compile(r"(\d*\.?\d+)-(\d*\.?\d+)")


class SchemaError(ValueError):
    """A mask schema that does not exist or is asked for wrongly."""


class MaskError(ImageError):
    """An image for which a schema has no mask."""


@dataclass(frozen=True)
class Scene:
    """What a mask is drawn for.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3), RGB
        Upright, at the native size; not to be changed.
    path : str or None
        The file that the image came from.
    """

    image: np.ndarray
    path: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


Draw = Callable[[Scene, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class MaskSchema:
    """A named way to choose the part of an image that is repainted.

    Parameters
    ----------
    name : str
        What the manifest's ``mask_schema`` column says.
    draw : callable ``(scene, rng) -> mask``
        Returns bool (H, W), True where to repaint; draws random numbers from ``rng`` alone. It
        raises a `MaskError` if the scene offers nothing to mask.
    coverage : tuple of float (low, high)
        Least and largest share of the image that a mask may cover.
    n_draws : int
        How often to draw before giving up; 1 for a schema that draws no random numbers.
    find_file : callable ``(path) -> path``, or None
        For a schema that takes finished masks: the file of an image.
    """

    name: str
    draw: Draw
    coverage: tuple[float, float] = _ANY
    n_draws: int = _N_DRAWS
    find_file: Callable[[str], Path] | None = None

    def __call__(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """Draw until a mask is within the limits.

        Parameters
        ----------
        scene : Scene
        rng : numpy.random.Generator

        Returns
        -------
        ndarray of bool, shape (H, W)
            Neither empty nor, unless the image is a single pixel, all of it.

        Raises
        ------
        MaskError
            If none of ``n_draws`` masks is.
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
            f"{scene.path or 'image'}: {tries} covers {mask.mean():.1%}; schema {self.name!r} "
            f"allows {low:.1%} to {high:.1%}, and a mask is neither all black nor all white. "
            "Change the limits or leave this image out."
        )


def get_schema(name: str | MaskSchema) -> MaskSchema:
    """Make the schema of a name.

    Parameters
    ----------
    name : str or MaskSchema
        ``kind`` or ``kind:argument`` with a kind out of `SCHEMAS`; a `MaskSchema` is returned as
        is.

    Raises
    ------
    SchemaError
        If there is no such kind, or its factory refuses the argument.
    """
    if isinstance(name, MaskSchema):
        return name
    kind, _, argument = str(name).partition(":")
    if kind not in SCHEMAS:
        raise SchemaError(f"no mask schema {name!r}. There is: {', '.join(SCHEMAS)}.")
    return SCHEMAS[kind](argument)


def split_argument(
    kind: str, argument: str, coverage: tuple[float, float]
) -> tuple[list[str], tuple[float, float]]:
    """Split the options of a schema into those of its own and the limits of coverage.

    Parameters
    ----------
    kind : str
        For messages.
    argument : str
    coverage : tuple of float
        Limits where the argument names none.

    Returns
    -------
    options : list of str
    coverage : tuple of float (low, high)

    Raises
    ------
    SchemaError
        If the limits are given twice, or are not 0 <= low < high <= 1.
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
    return options, (limits[0] if limits else coverage)


def schema_name(
    kind: str, options: Iterable[str], coverage: tuple[float, float], default: tuple[float, float]
) -> str:
    """Put a schema's name together: its kind, its own options, then its limits of coverage.

    Parameters
    ----------
    kind : str
    options : iterable of str
        Those that differ from the default, in a fixed order.
    coverage, default : tuple of float (low, high)
        The limits are named if they differ from the default.

    Returns
    -------
    str
        What `get_schema` understands.
    """
    parts = list(options)
    if coverage != default:
        # never 1e-05, which would not be read back
        parts.append("-".join(np.format_float_positional(limit, trim="-") for limit in coverage))
    return f"{kind}:{','.join(parts)}" if parts else kind


def is_within(mask: np.ndarray, coverage: tuple[float, float]) -> bool:
    """Tell whether a mask covers a share within the limits and leaves some pixels, but not all.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
        That of a single pixel may be full.
    coverage : tuple of float (low, high)
        Both included.
    """
    share = float(mask.mean())
    return coverage[0] <= share <= coverage[1] and share > 0 and (share < 1 or mask.size == 1)


def _shape(kind: str, argument: str) -> MaskSchema:
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


def _elsewhere(module: str, factory: str, argument: str) -> MaskSchema:
    """Call a factory of a module that is loaded only now."""
    return getattr(importlib.import_module(module), factory)(argument)


_ELSEWHERE = {
    "rectangles": ("cnnsvm.generation.masks.strokes", "rectangles_schema"),
    "strokes": ("cnnsvm.generation.masks.strokes", "strokes_schema"),
    "object": ("cnnsvm.generation.masks.objects", "object_schema"),
    "file": ("cnnsvm.generation.masks.files", "file_schema"),
}

#: Factories of mask schemas by kind: those of `MASK_SCHEMAS`, which take limits of coverage only;
#: ``rectangles[:N]`` and ``strokes``, drawn at random;
#: ``object[:<model>][,box|instance][,weights=<file>][,score=<share>]``, found by a network;
#: ``file[:<pattern>][,invert]``, mask files beside the images. All take ``LOW-HIGH`` too.
SCHEMAS: dict[str, Callable[[str], MaskSchema]] = {
    **{kind: functools.partial(_shape, kind) for kind in MASK_SCHEMAS},
    **{kind: functools.partial(_elsewhere, *place) for kind, place in _ELSEWHERE.items()},
}
