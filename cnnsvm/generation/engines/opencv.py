"""Engines of OpenCV: two inpainting methods, and self-blending."""

from functools import partial

import cv2
import numpy as np

from cnnsvm.data.images import ImageError
from cnnsvm.generation.engines import Engine, EngineError, one_by_one

DEFAULT_RADIUS = 3
_MAX_RADIUS = 100  # OpenCV silently clips a larger one

MAX_ANGLE = 8.0  # degrees
SCALES = (0.6, 1.6)
MAX_SHIFT = 20.0  # pixels
KERNELS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
_STREAM = 0x5E1F  # the mask is drawn from the task's seed itself


def _inpainting(kind: str, method: int, argument: str) -> Engine:
    """Diffuse the rim of the hole inwards; everything outside the hole stays bit for bit.

    The channels are treated alike, so their order does not matter, and nothing is random.
    """
    radius = argument or str(DEFAULT_RADIUS)
    if not radius.isdecimal() or not 1 <= int(radius) <= _MAX_RADIUS:
        raise EngineError(
            f"the radius of {kind} is 1 to {_MAX_RADIUS} whole pixels, got {argument!r}. "
            f"Write for example {kind}:{DEFAULT_RADIUS}."
        )

    def repaint(image: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
        if mask.all():
            raise ImageError(
                f"{kind} needs a pixel outside the mask to repaint from, and the mask covers all "
                f"{mask.shape[1]}x{mask.shape[0]} pixels. Choose a smaller mask."
            )
        # OpenCV reads some pixels of the hole before it fills them: what was there would show
        image[mask] = image[~mask].mean(axis=0).round()
        return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), int(radius), method))

    name = kind if int(radius) == DEFAULT_RADIUS else f"{kind}:{int(radius)}"
    return Engine(name, one_by_one(repaint), parallel=True)


#: The fast marching method (Telea, J. Graphics Tools 9(1), 2004).
telea_engine = partial(_inpainting, "opencv-telea", cv2.INPAINT_TELEA)
#: The Navier-Stokes method (Bertalmio et al., CVPR 2001).
navier_stokes_engine = partial(_inpainting, "opencv-ns", cv2.INPAINT_NS)


def self_blend_engine(argument: str) -> Engine:
    """Make the engine that turns, scales and shifts an image, whatever the mask.

    Pasted back inside a mask (variant ``spliced``) its output makes a fake of the image's own
    content, camera and codec: only the resampling and the seam tell inside from outside (Shiohara
    and Yamasaki, "Detecting deepfakes with self-blended images", CVPR 2022). As ``regenerated`` it
    would be a resized original, so a build refuses that.

    Angle, log-scale, shift and kernel are drawn uniformly from the task's seed, so that every mask
    schema of a source gets its own; the border is reflected. There is no argument (`EngineError`).
    """
    if argument:
        raise EngineError(f"self-blend takes no argument, got {argument!r}. Write self-blend.")
    # uses_mask is left True: one output for all masks would be one draw for all masks
    return Engine("self-blend", one_by_one(_turn), parallel=True, variants=("spliced",))


def draw_warp(width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw a map of pixels about an image's centre, and the kernel to resample it with.

    Returns float64 (2, 3), from a pixel of the image to where it goes, as `cv2.warpAffine` takes
    it, and OpenCV's number of a kernel out of `KERNELS`.
    """
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    scale = float(np.exp(rng.uniform(*np.log(SCALES))))
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix: np.ndarray = np.asarray(cv2.getRotationMatrix2D(centre, angle, scale), np.float64)
    matrix[:, 2] += rng.uniform(-MAX_SHIFT, MAX_SHIFT, size=2)
    return matrix, KERNELS[rng.integers(len(KERNELS))]


def _turn(image: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    height, width = image.shape[:2]
    matrix, kernel = draw_warp(width, height, np.random.default_rng([seed, _STREAM]))
    warped = cv2.warpAffine(
        image, matrix, (width, height), flags=kernel, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(warped)
