"""The ``self-blend`` engine: a splice whose only trace is that its inside has another history."""

import cv2
import numpy as np

from cnnsvm.generation.engines import Engine, EngineError, one_by_one

MAX_ANGLE = 8.0  # degrees
SCALES = (0.6, 1.6)
MAX_SHIFT = 20.0  # pixels
KERNELS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
_STREAM = 0x5E1F  # the mask is drawn from the task's seed itself


def self_blend_engine(argument: str) -> Engine:
    """Make the engine that turns, scales and shifts a picture, whatever the mask.

    Pasted back inside a mask (variant ``spliced``) its output makes a fake of the picture's own
    content, camera and codec: what tells inside from outside is the resampling, and the seam.
    After Shiohara and Yamasaki, "Detecting deepfakes with self-blended images", CVPR 2022.

    It has no meaning for the variant ``regenerated``: that would be a resized original with the
    label of a fake. A build that asks for it is refused.

    The angle is uniform within 8 degrees, the scale log-uniform in [0.6, 1.6], each shift uniform
    within 20 pixels, the kernel linear, cubic or Lanczos, and the border is reflected: all drawn
    from the task's seed, so that every mask schema of a source gets a draw of its own.

    Parameters
    ----------
    argument : str
        Empty.

    Raises
    ------
    EngineError
        If there is an argument.
    """
    if argument:
        raise EngineError(f"self-blend takes no argument, got {argument!r}. Write self-blend.")
    # uses_mask is left True: one output for all masks would be one draw for all masks
    return Engine("self-blend", one_by_one(_turn), parallel=True, variants=("spliced",))


def draw_warp(width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Draw a map of pixels about a picture's centre, and the kernel to resample it with.

    Returns
    -------
    matrix : ndarray of float64, shape (2, 3)
        From a pixel of the picture to where it goes, as `cv2.warpAffine` takes it.
    kernel : int
        OpenCV's number of it, out of `KERNELS`.
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
