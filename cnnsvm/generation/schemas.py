"""Mask schemas by name: one interface for shapes, strokes, objects and mask files.

A schema is named ``kind`` or ``kind:argument``, where the argument holds options separated by
commas; an option ``LOW-HIGH`` of two numbers in [0, 1] limits the share of the image that a mask
may cover, as in ``strokes:0.1-0.5``. `SCHEMAS` maps each kind to a factory that turns the
argument (empty if there is none) into a `MaskSchema`.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cnnsvm.generation.masks import MASK_SCHEMAS
from cnnsvm.images import ImageError

_N_DRAWS = 20
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
    """

    name: str
    draw: Draw
    coverage: tuple[float, float] = (0.0, 1.0)
    n_draws: int = _N_DRAWS

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
        low, high = self.coverage
        for _ in range(self.n_draws):
            mask = self.draw(scene, rng)
            if mask.dtype != np.bool_ or mask.shape != scene.shape:
                raise SchemaError(
                    f"schema {self.name!r} must draw bool {scene.shape}, got {mask.dtype} "
                    f"{mask.shape}. Correct the schema."
                )
            share = float(mask.mean())
            if low <= share <= high and share > 0 and (share < 1 or mask.size == 1):
                return mask
        tries = f"{self.n_draws} masks were drawn and the last" if self.n_draws > 1 else "its mask"
        raise MaskError(
            f"{scene.path or 'image'}: {tries} covers {share:.1%}; schema {self.name!r} allows "
            f"{low:.1%} to {high:.1%}, and a mask is neither all black nor all white. Change the "
            "limits or leave this image out."
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


def _shape(kind: str, argument: str) -> MaskSchema:
    options, limits = split_argument(kind, argument, (0.0, 1.0))
    if options:
        raise SchemaError(f"{kind} takes limits of coverage only, got {options[0]!r}.")
    shape = MASK_SCHEMAS[kind]
    name = f"{kind}:{argument}" if argument else kind
    return MaskSchema(name, lambda scene, rng: shape(*scene.shape, rng), limits)


#: Factories of mask schemas by kind.
SCHEMAS: dict[str, Callable[[str], MaskSchema]] = {
    kind: functools.partial(_shape, kind) for kind in MASK_SCHEMAS
}
