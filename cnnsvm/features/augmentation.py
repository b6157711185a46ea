"""Random crops and degradations for training, the same for a source and its fakes.

A plan is drawn first, from a generator that the caller seeds by source, and then applied. Since
the draws do not depend on the pixels, a source and its fakes that share a plan get the same crop,
turn, codec and noise, and only the trace of the repainting tells them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import load_image
from cnnsvm.features.crops import wrap_to

#: Least image side after a random reduction of a whole image, in pixels.
MIN_SIDE = 16
#: What an erased square is painted with, in levels.
GREY = 124
#: Most pixels, and longest side, that a random enlargement of a whole image may give.
MAX_PIXELS, MAX_SIDE = 2**24, 8000


@dataclass(frozen=True)
class Augmentation:
    """Probabilities (0-1) and ranges of the training augmentation.

    ``turn`` is flips and right-angle turns, which move no pixel off its grid; ``mirror`` mirror
    images alone, where up and down look different. A crop is moved by up to ``shift`` pixels, its
    edge is mirrored. A square of ``erase`` pixels, centred anywhere, is painted grey at the end, so
    that no place alone decides (DeVries & Taylor, "Improved regularization of convolutional neural
    networks with cutout", arXiv:1708.04552). ``resize``, ``blur``, ``noise``, ``codec`` and
    ``second_codec`` are the probabilities of the degradations, in their order; the second codec
    follows the first on another 8-pixel grid, as when a screenshot is shared. Scale factors are
    log-uniform in ``resize_range``, the kernel is drawn as well; ``blur_sigma`` is in pixels,
    ``noise_sigma`` in grey levels, both the largest; ``quality`` and ``webp_quality`` are ranges,
    ``webp`` the probability that a codec is WebP instead of JPEG, ``encoders`` the keys of
    `ENCODERS` that write the JPEGs. ``undo`` is how often the resize of a whole image is undone
    afterwards, so that a loss of detail, which a repainting brings too, says nothing by itself.
    """

    turn: bool = True
    mirror: bool = False
    shift: int = 0
    erase: int = 0
    resize: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    codec: float = 0.0
    second_codec: float = 0.0
    resize_range: tuple[float, float] = (0.75, 1.33)
    blur_sigma: float = 0.8
    noise_sigma: float = 2.0
    webp: float = 0.25
    quality: tuple[int, int] = (60, 100)
    webp_quality: tuple[int, int] = (60, 100)
    encoders: tuple[str, ...] = ("jpeg",)
    undo: float = 0.0


#: What ``augmentation=`` accepts. "geometric" keeps every pixel value; "small" is for
#: images of 32 pixels, which have an up and a down; "full" is mild; "jpeg" is for files that
#: have all been saved again; "robust" is for detectors that must stand what happens to images on
#: their way through the world.
AUGMENTATIONS = {
    "none": Augmentation(turn=False),
    "geometric": Augmentation(),
    "small": Augmentation(turn=False, mirror=True, shift=2, erase=12),
    "full": Augmentation(resize=0.1, blur=0.1, noise=0.1, codec=0.3),
    "jpeg": Augmentation(codec=0.8, webp=0.0, encoders=("jpeg", "jpeg", "jpeg-444", "jpeg-opencv")),
    "robust": Augmentation(
        resize=0.25,
        blur=0.1,
        noise=0.1,
        codec=0.65,
        second_codec=0.15,
        resize_range=(0.5, 2.0),
        blur_sigma=1.0,
        noise_sigma=4.0,
        quality=(30, 100),
        webp_quality=(50, 100),
        encoders=("jpeg", "jpeg", "jpeg-444", "jpeg-opencv"),
    ),
}

#: "reshared" is for the views that a classifier is fitted on: it knows resizes that were undone.
AUGMENTATIONS["reshared"] = replace(AUGMENTATIONS["robust"], resize=0.35, undo=0.4)

#: Fields of `Augmentation` that are probabilities of a degradation.
DEGRADATIONS = ("resize", "blur", "noise", "codec", "second_codec")


def weaken(augmentation: Augmentation, share: float) -> Augmentation:
    """Multiply the probability of each degradation by ``share``, a number in [0, 1]."""
    return replace(augmentation, **{k: share * getattr(augmentation, k) for k in DEGRADATIONS})


@dataclass(frozen=True)
class Plan:
    """One draw: where to crop (fractions 0-1) and what to do to the crop (None: nothing).

    ``codec`` and ``second_codec`` are an encoder and a quality, ``shift`` is in pixels, ``erase`` a
    side in pixels and where the centre is (fractions 0-1).
    """

    top: float
    left: float
    turns: int
    flip: bool
    scale: float | None
    blur: float | None
    noise: float | None
    codec: tuple[str, int] | None
    noise_seed: int
    second_codec: tuple[str, int] | None = None
    kernel: int = 0
    shift: tuple[int, int] = (0, 0)
    erase: tuple[int, float, float] | None = None
    undo: bool = False


def draw_plan(augmentation: Augmentation, rng: np.random.Generator) -> Plan:
    """Draw one plan; the number of draws is fixed, so plans of one seed agree."""
    wanted = augmentation
    happens = rng.random(5) < [
        *(wanted.resize, wanted.blur, wanted.noise),
        *(wanted.codec, wanted.second_codec),
    ]
    top, left = rng.random(2).tolist()
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    scale = float(np.exp(rng.uniform(*np.log(wanted.resize_range))))
    blur = float(rng.uniform(0.2, wanted.blur_sigma))
    noise = float(rng.uniform(0.2, wanted.noise_sigma))
    first, second = _draw_codec(wanted, rng), _draw_codec(wanted, rng)
    return Plan(
        top=top,
        left=left,
        turns=turns if wanted.turn else 0,
        flip=flip and (wanted.turn or wanted.mirror),
        scale=scale if happens[0] else None,
        blur=blur if happens[1] else None,
        noise=noise if happens[2] else None,
        codec=first if happens[3] else None,
        noise_seed=int(rng.integers(2**32)),
        second_codec=second if happens[3] and happens[4] else None,
        kernel=int(rng.integers(len(KERNELS))),
        shift=_draw_shift(wanted.shift, rng),
        erase=_draw_square(wanted.erase, rng),
        undo=bool(rng.random() < wanted.undo),
    )


def apply_plan(image: np.ndarray, plan: Plan, size: int) -> np.ndarray:
    """Cut and degrade one training crop of ``size`` pixels a side.

    The image is uint8 (H, W, 3) and is not changed; the crop is a new array (size, size, 3).
    """
    side = size if plan.scale is None else max(1, round(size / plan.scale))
    crop = _cut(image, plan.top, plan.left, side)
    if side != size:
        crop = np.asarray(Image.fromarray(crop).resize((size, size), KERNELS[plan.kernel]))
    crop = np.rot90(_shifted(crop, plan.shift), plan.turns)
    crop = _degrade(np.ascontiguousarray(crop[:, ::-1] if plan.flip else crop), plan)
    return crop if plan.erase is None else _erased(crop, *plan.erase)


def apply_to_whole(image: np.ndarray, plan: Plan) -> np.ndarray:
    """Degrade a whole image by a plan: resize, blur, noise and codecs, but no turn and no crop.

    From uint8 (H, W, 3) to (h, w, 3). Up to 7 pixels are cut off at the top and left, so that the
    grids of codecs before and after do not meet.
    """
    off_grid = (int(8 * plan.top), int(8 * plan.left))
    height, width = image.shape[:2]
    if plan.codec is not None and min(height, width) > 2 * MIN_SIDE:
        image = image[off_grid[0] :, off_grid[1] :]
    if plan.scale is not None:
        scale = _bounded(plan.scale, image.shape[0], image.shape[1])
        sides = [max(MIN_SIDE, round(side * scale)) for side in image.shape[1::-1]]
        pixels = Image.fromarray(np.ascontiguousarray(image))
        resized = pixels.resize((sides[0], sides[1]), KERNELS[plan.kernel])
        image = np.asarray(
            resized.resize(pixels.size, KERNELS[plan.kernel]) if plan.undo else resized
        )
    return _degrade(np.ascontiguousarray(image), plan)


def _bounded(scale: float, height: int, width: int) -> float:
    """Enlarge a large image less, or not at all; reductions stay as they are."""
    most = min(MAX_SIDE / max(height, width), (MAX_PIXELS / (height * width)) ** 0.5)
    return min(scale, max(1.0, most))


def _cut(image: np.ndarray, top: float, left: float, side: int) -> np.ndarray:
    large = wrap_to(image, side)
    y, x = round(top * (large.shape[0] - side)), round(left * (large.shape[1] - side))
    return large[y : y + side, x : x + side]


def _draw_shift(most: int, rng: np.random.Generator) -> tuple[int, int]:
    down, right = rng.integers(-most, most + 1, size=2).tolist()
    return down, right


def _draw_square(side: int, rng: np.random.Generator) -> tuple[int, float, float] | None:
    down, right = rng.random(2).tolist()
    return (side, down, right) if side else None


def _erased(crop: np.ndarray, side: int, down: float, right: float) -> np.ndarray:
    """Paint a square grey, as far as it lies in the crop."""
    top, left = (
        round(share * size) - side // 2
        for share, size in zip((down, right), crop.shape[:2], strict=True)
    )
    painted = crop.copy()
    painted[max(0, top) : top + side, max(0, left) : left + side] = GREY
    return painted


def _shifted(crop: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Move a crop's content down and right by so many pixels; its edge is mirrored."""
    if shift == (0, 0):
        return crop
    moved = [(max(0, part), max(0, -part)) for part in shift]
    padded = np.pad(crop, [*moved, (0, 0)], mode="reflect")
    top, left = (max(0, -part) for part in shift)
    return padded[top : top + crop.shape[0], left : left + crop.shape[1]]


def _degrade(crop: np.ndarray, plan: Plan) -> np.ndarray:
    if plan.blur is not None:
        crop = cv2.GaussianBlur(crop, (0, 0), plan.blur)
    if plan.noise is not None:
        rng = np.random.default_rng(plan.noise_seed)
        noisy = rng.standard_normal(crop.shape, dtype=np.float32)
        noisy *= plan.noise
        noisy += crop
        crop = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    if plan.codec is not None:
        crop = recompress(crop, *plan.codec)
    if plan.second_codec is not None:
        # the image is moved by 3 pixels for the second grid, and back
        moved = np.roll(crop, (3, 3), axis=(0, 1))
        crop = np.roll(recompress(moved, *plan.second_codec), (-3, -3), axis=(0, 1))
    return crop


def recompress(image: np.ndarray, encoder: str, quality: int) -> np.ndarray:
    """Encode an RGB image, uint8 (H, W, 3), and decode it again.

    ``encoder`` is a key of `ENCODERS`, ``quality`` 1-100. An image that is longer than the format
    can hold is returned as it is.
    """
    if max(image.shape) > LONGEST.get(encoder, 65_500):
        return image
    return load_image(ENCODERS[encoder](image, quality))


def _pillow(image: np.ndarray, quality: int, codec: str, **options: str) -> bytes:
    return encode_image(image, codec, quality=quality, **options)


def _opencv_jpeg(image: np.ndarray, quality: int) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _draw_codec(wanted: Augmentation, rng: np.random.Generator) -> tuple[str, int]:
    is_jpeg, share = rng.random() < 1 - wanted.webp, rng.random()
    encoder = wanted.encoders[int(rng.integers(len(wanted.encoders)))]
    low, high = wanted.quality if is_jpeg else wanted.webp_quality
    return (encoder if is_jpeg else "webp"), low + int(share * (high - low + 1))


#: Encoders by name: Pillow's JPEG with its usual 4:2:0 chroma and with whole chroma, OpenCV's JPEG
#: and Pillow's WebP.
ENCODERS: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "jpeg": lambda image, quality: _pillow(image, quality, "JPEG"),
    "jpeg-444": lambda image, quality: _pillow(image, quality, "JPEG", subsampling="4:4:4"),
    "jpeg-opencv": _opencv_jpeg,
    "webp": lambda image, quality: _pillow(image, quality, "WEBP"),
}
LONGEST = {"webp": 16_383}  # pixels a side
KERNELS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
)
