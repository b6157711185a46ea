"""What happens to images on their way: recompression, resizing, blur, noise, crops, screenshots.

Each corruption maps decoded pixels to decoded pixels in memory. It knows neither label nor file
and draws from a seeded generator: an original and its fakes that get one seed, and have one size,
are cropped at one place and get the same noise, so that only the trace of the repainting differs.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from cnnsvm.data.decoding import MAX_PIXELS
from cnnsvm.data.images import ImageError, ImageInput, image_name, load_image
from cnnsvm.generation.post_processing import PostProcessing

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]

CLEAN = "clean"
GRID = 8  # pixels a side of a block of JPEG
_RESIZER = PostProcessing(resample="bicubic")
_STRIP = 512  # rows that get their noise at once, so that it takes little memory


def corrupt(image: ImageInput, name: str, seed: int) -> np.ndarray:
    """Corrupt one image, an array of uint8 (H, W, 3) or what else `load_image` takes.

    ``name`` is a key of ``CORRUPTIONS``; ``seed``, at least 0, is that of all that is drawn: give
    one to all images of a source. Returns a new array, uint8 (H', W', 3), of at least one pixel a
    side; images of one size keep one size. A ValueError is raised if there is no such corruption,
    an ImageError if the image cannot be read or a codec cannot hold it.
    """
    check_corruptions([name])
    pixels = load_image(image)
    try:
        return CORRUPTIONS[name](pixels, np.random.default_rng(seed))
    except ImageError as error:
        raise ImageError(f"{image_name(image)}: {name}: {error}") from error


def check_corruptions(names: list[str]) -> None:
    """Refuse a list of corruptions that is empty, repeats one or has one that does not exist."""
    for name in names:
        if name not in CORRUPTIONS:
            raise ValueError(f"no corruption {name!r}. There is: {', '.join(CORRUPTIONS)}.")
        if names.count(name) > 1:
            raise ValueError(f"corruption {name!r} is listed more than once; name each once.")
    if not names:
        raise ValueError(f"no corruption is listed. There is: {', '.join(CORRUPTIONS)}.")


def _keep(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image  # `corrupt` has loaded, and so copied it


def _recompress(
    image: np.ndarray, rng: np.random.Generator, *, codec: str, quality: int
) -> np.ndarray:
    """Encode and decode an image; JPEG and WebP both with 4:2:0 chroma subsampling."""
    processing = PostProcessing(codec=codec, quality=quality)
    return processing.decode(processing.encode(image))


def _resize(image: np.ndarray, rng: np.random.Generator, *, scale: float) -> np.ndarray:
    """Resize by Pillow's antialiased bicubic kernel; sides are rounded down.

    Of an image that would become larger than any that is read, the middle alone is enlarged.
    """
    height, width = image.shape[:2]
    excess = scale * np.sqrt(height * width / MAX_PIXELS)
    if scale > 1 and excess > 1:
        height, width = (max(1, int(side / excess)) for side in (height, width))
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        image = image[top : top + height, left : left + width]
    size = max(1, int(scale * width)), max(1, int(scale * height))
    return _RESIZER.resize(image, size)


def _blur(image: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    """Blur by a Gaussian of ``sigma`` pixels."""
    import cv2

    return cv2.GaussianBlur(image, (0, 0), sigma)


def _add_noise(image: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    """Add Gaussian noise of ``sigma`` grey levels, independent in each pixel and channel."""
    noisy = np.empty_like(image)
    for top in range(0, len(image), _STRIP):
        strip = image[top : top + _STRIP]
        noise = rng.standard_normal(strip.shape, dtype=np.float32)
        noisy[top : top + _STRIP] = np.clip(np.rint(strip + sigma * noise), 0, 255)
    return noisy


def _crop(image: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """Cut out ``share`` of each side, its corner off the 8x8 grid of JPEG."""
    top, height = _off_grid(image.shape[0], share, rng.random())
    left, width = _off_grid(image.shape[1], share, rng.random())
    return image[top : top + height, left : left + width].copy()


def _off_grid(side: int, share: float, draw: float) -> tuple[int, int]:
    """Choose start and length by a draw in [0, 1); at 0 where there is no other room."""
    length = max(1, round(share * side))
    starts = [start for start in range(side - length + 1) if start % GRID] or [0]
    return starts[int(draw * len(starts))], length


def _screenshot(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Show an image at 0.9-1.1 of its size, capture it as JPEG 85, and pass it on.

    1-7 pixels are cut at the top and left, which shifts the grid of that compression, before it is
    compressed again as JPEG 75 or WebP 80.
    """
    scale = rng.uniform(0.9, 1.1)
    cut = rng.integers(1, GRID, size=2)
    codec, quality = (("jpeg", 75), ("webp", 80))[int(rng.integers(2))]
    shown = _recompress(_resize(image, rng, scale=scale), rng, codec="jpeg", quality=85)
    top, left = (min(int(c), side - 1) for c, side in zip(cut, shown.shape[:2], strict=True))
    return _recompress(shown[top:, left:], rng, codec=codec, quality=quality)


#: Name -> corruption, from mild to strong within each kind; "clean" comes first.
CORRUPTIONS: dict[str, Corruption] = {
    CLEAN: _keep,
    **{f"jpeg-{q}": partial(_recompress, codec="jpeg", quality=q) for q in (95, 90, 75, 60, 40)},
    **{f"webp-{q}": partial(_recompress, codec="webp", quality=q) for q in (80, 60)},
    **{f"resize-{scale}": partial(_resize, scale=scale) for scale in (0.5, 0.75, 1.5, 2.0)},
    **{f"blur-{sigma}": partial(_blur, sigma=sigma) for sigma in (0.5, 1.0)},
    **{f"noise-{sigma}": partial(_add_noise, sigma=sigma) for sigma in (2, 5)},
    "crop": partial(_crop, share=0.75),
    "screenshot": _screenshot,
}
MEANINGS = {
    CLEAN: "the image as it is",
    "jpeg": "JPEG of that quality, 4:2:0",
    "webp": "lossy WebP of that quality",
    "resize": "by that factor, bicubic, not resized back",
    "blur": "Gaussian, standard deviation in pixels",
    "noise": "Gaussian, standard deviation in grey levels of 0-255",
    "crop": "75 % of each side, at random off the 8-pixel grid",
    "screenshot": "resized by 0.9-1.1, JPEG 85, cut by 1-7 pixels, then JPEG 75 or WebP 80",
}


def kind_of(name: str) -> str:
    """Name what a corruption does, without how strongly: a key of ``MEANINGS``."""
    return name.partition("-")[0]
