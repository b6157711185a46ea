"""Engines: what repaints the masked part of an image.

An engine is named ``kind`` or ``kind:argument``. `ENGINES` maps each kind to a factory that turns
the argument (empty if there is none) into an `Engine`: for OpenCV it is the radius, as in
``opencv-telea:5``; an engine that loads weights takes their id, as in ``vae:<id>``, and loads
them inside its factory. A new kind is a new entry of that dict and nothing else.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

Repaint = Callable[[np.ndarray, np.ndarray, int], np.ndarray]

DEFAULT_RADIUS = 3
_MAX_RADIUS = 100  # OpenCV clips a larger one without a word


class EngineError(ValueError):
    """An engine that does not exist or does not keep to its contract."""


@dataclass(frozen=True)
class Engine:
    """A named way to repaint the masked part of an image.

    Parameters
    ----------
    name : str
        What the manifest's ``engine`` column says.
    repaint : callable ``(image, mask, seed) -> image``
        ``image`` is uint8 (H, W, 3) RGB and may be written to, ``mask`` bool (H, W), True where
        to repaint, ``seed`` an int in [0, 2**32). It returns the engine's whole output: uint8 of
        the shape of ``image``. The same arguments must give the same output.
    details : mapping of str to str
        More columns for the manifest: ``prompt``, ``model_id``, ``model_revision``.
    """

    name: str
    repaint: Repaint
    details: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int = 0) -> np.ndarray:
        """Repaint one image and check what comes back.

        Parameters
        ----------
        image : ndarray of uint8, shape (H, W, 3), RGB
            Not changed.
        mask : ndarray of bool, shape (H, W)
        seed : int

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)

        Raises
        ------
        EngineError
            If the mask does not fit the image, or the engine returns another shape or dtype.
        """
        if mask.dtype != np.bool_ or mask.shape != image.shape[:2]:
            raise EngineError(
                f"a mask for an image {image.shape} is bool {image.shape[:2]}, "
                f"got {mask.dtype} {mask.shape}."
            )
        output = self.repaint(image.copy(), mask, seed)
        got = (getattr(output, "shape", None), getattr(output, "dtype", type(output).__name__))
        if got != (image.shape, np.uint8):
            raise EngineError(
                f"engine {self.name!r} must return uint8 {image.shape}, got {got[1]} {got[0]}. "
                "Correct the engine."
            )
        return output


def get_engine(name: str | Engine) -> Engine:
    """Make the engine of a name.

    Parameters
    ----------
    name : str or Engine
        ``kind`` or ``kind:argument`` with a kind out of `ENGINES`; an `Engine` is returned as is.

    Raises
    ------
    EngineError
        If there is no such kind, or its factory refuses the argument.
    """
    if isinstance(name, Engine):
        return name
    kind, _, argument = name.partition(":")
    if kind not in ENGINES:
        raise EngineError(f"no engine {name!r}. There is: {', '.join(sorted(ENGINES))}.")
    return ENGINES[kind](argument)


def _opencv(kind: str, method: int, argument: str) -> Engine:
    """Diffuse the rim of the hole inwards; everything outside the hole stays bit for bit.

    ``opencv-telea`` is the fast marching method of Telea (2004, J. Graphics Tools 9(1)),
    ``opencv-ns`` the Navier-Stokes method of Bertalmio, Bertozzi and Sapiro (CVPR 2001). Both
    treat the channels alike, so their order does not matter, and neither draws random numbers.
    """
    radius = argument or str(DEFAULT_RADIUS)
    if not radius.isdecimal() or not 1 <= int(radius) <= _MAX_RADIUS:
        raise EngineError(
            f"the radius of {kind} is 1 to {_MAX_RADIUS} whole pixels, got {argument!r}. "
            f"Write for example {kind}:{DEFAULT_RADIUS}."
        )

    def repaint(image: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
        if mask.all():
            raise EngineError(f"{kind} needs a pixel outside the mask to repaint from.")
        # OpenCV reads some pixels of the hole before it fills them: what was there would show
        image[mask] = image[~mask].mean(axis=0).round()
        return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), int(radius), method))

    return Engine(kind if int(radius) == DEFAULT_RADIUS else f"{kind}:{int(radius)}", repaint)


_OPENCV = {"opencv-telea": cv2.INPAINT_TELEA, "opencv-ns": cv2.INPAINT_NS}

#: Factories of engines by kind. OpenCV: ``opencv-telea[:radius]`` and ``opencv-ns[:radius]``, the
#: radius in pixels (default 3), the width of the rim that each new pixel is computed from.
ENGINES: dict[str, Callable[[str], Engine]] = {
    kind: functools.partial(_opencv, kind, method) for kind, method in _OPENCV.items()
}
