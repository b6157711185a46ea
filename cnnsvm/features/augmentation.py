"""Random crops and mild degradations for training, the same for a source and its fakes.

A plan is drawn first, from a generator that the caller seeds by source, and then applied. Since
the draws do not depend on the pixels, a source and its fakes that share a plan get the same crop,
turn, codec and noise, and only the trace of the repainting tells them apart.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cnnsvm.features.transforms import wrap_to


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0-1) and ranges of the training augmentation.

    Parameters
    ----------
    turn : bool
        Flips and right-angle turns, which move no pixel off its grid.
    resize, blur, noise, codec : float
        Probability of each degradation.
    resize_range : (float, float)
        Scale factors, log-uniform.
    blur_sigma, noise_sigma : float
        Largest Gaussian blur in pixels, and largest Gaussian noise in grey levels.
    quality : (int, int)
        Range of JPEG and WebP quality; the codec is JPEG three times in four.
    """

    turn: bool = True
    resize: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    codec: float = 0.0
    resize_range: tuple[float, float] = (0.75, 1.33)
    blur_sigma: float = 0.8
    noise_sigma: float = 2.0
    quality: tuple[int, int] = (60, 100)


#: What ``augmentation=`` accepts. "full" is the default; "geometric" keeps every pixel value.
AUGMENTATIONS = {
    "none": Augmentation(turn=False),
    "geometric": Augmentation(),
    "full": Augmentation(resize=0.1, blur=0.1, noise=0.1, codec=0.3),
}


@dataclass(frozen=True)
class Plan:
    """One draw: where to crop (fractions 0-1) and what to do to the crop (None: nothing)."""

    top: float
    left: float
    turns: int
    flip: bool
    scale: float | None
    blur: float | None
    noise: float | None
    codec: tuple[str, int] | None
    noise_seed: int


def draw_plan(augmentation: Augmentation, rng: np.random.Generator) -> Plan:
    """Draw one plan; the number of draws is fixed, so plans of one seed agree."""
    happens = rng.random(4) < [
        augmentation.resize,
        augmentation.blur,
        augmentation.noise,
        augmentation.codec,
    ]
    top, left = rng.random(2)
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    scale = float(np.exp(rng.uniform(*np.log(augmentation.resize_range))))
    blur = float(rng.uniform(0.2, augmentation.blur_sigma))
    noise = float(rng.uniform(0.2, augmentation.noise_sigma))
    codec = "JPEG" if rng.random() < 0.75 else "WEBP"
    quality = int(rng.integers(augmentation.quality[0], augmentation.quality[1] + 1))
    return Plan(
        top=float(top),
        left=float(left),
        turns=turns if augmentation.turn else 0,
        flip=flip and augmentation.turn,
        scale=scale if happens[0] else None,
        blur=blur if happens[1] else None,
        noise=noise if happens[2] else None,
        codec=(codec, quality) if happens[3] else None,
        noise_seed=int(rng.integers(2**32)),
    )


def apply_plan(image: np.ndarray, plan: Plan, size: int) -> np.ndarray:
    """Cut and degrade one training crop.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    plan : Plan
    size : int
        Side of the crop in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        A new array; the image is not changed.
    """
    crop = _random_crop(image, plan, size)
    crop = np.rot90(crop, plan.turns)
    crop = np.ascontiguousarray(crop[:, ::-1] if plan.flip else crop)
    if plan.blur is not None:
        crop = _blur(crop, plan.blur)
    if plan.noise is not None:
        noise = np.random.default_rng(plan.noise_seed).normal(0, plan.noise, crop.shape)
        crop = np.clip(np.rint(crop + noise), 0, 255).astype(np.uint8)
    return crop if plan.codec is None else _recompress(crop, *plan.codec)


def _random_crop(image: np.ndarray, plan: Plan, size: int) -> np.ndarray:
    side = size if plan.scale is None else max(1, round(size / plan.scale))
    large = wrap_to(image, side)
    top = round(plan.top * (large.shape[0] - side))
    left = round(plan.left * (large.shape[1] - side))
    crop = large[top : top + side, left : left + side]
    if side == size:
        return crop
    resized = Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _blur(crop: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(crop, (0, 0), sigma)


def _recompress(crop: np.ndarray, codec: str, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, codec, quality=quality)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))
