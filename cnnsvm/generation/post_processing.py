"""Post-processing: what happens to the file of an image besides inpainting.

An original and its fakes that differ in size, resample kernel, codec or quality can be told apart
by that alone, so all files of a record pass through one `PostProcessing`.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import ImageError, load_image

#: Resample kernels by name.
KERNELS = {
    name.lower(): Image.Resampling[name]
    for name in ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")
}
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
#: JPEG is written with 4:2:0 chroma subsampling; lossy WebP knows no other.
JPEG_SUBSAMPLING = "4:2:0"
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


class PostProcessingError(ValueError):
    """Invalid post-processing; the message gives the rule."""


@dataclass(frozen=True)
class PostProcessing:
    """What happens to the file of an image besides inpainting (`PostProcessingError` if invalid).

    Parameters
    ----------
    size : int, tuple of int (width, height), or None
        Working size that an image is brought to and back from; an int is a square, as the
        diffusion pipelines resize to. None leaves images at their native
        size.
    resample : {"lanczos", "bicubic", "bilinear", "hamming", "box", "nearest"}
        Kernel of every resize.
    codec : {"png", "jpeg", "webp"}
        JPEG uses 4:2:0 chroma subsampling. WebP is lossless unless a quality is given.
    quality : int in 1-100, or None
        Needed for JPEG, optional for WebP, none for PNG.
    """

    size: int | tuple[int, int] | None = None
    resample: str = "lanczos"
    codec: str = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.resample not in KERNELS:
            raise PostProcessingError(
                f"no kernel {self.resample!r}. There is: {', '.join(KERNELS)}."
            )
        if self.codec not in SUFFIXES:
            raise PostProcessingError(f"no codec {self.codec!r}. There is: {', '.join(SUFFIXES)}.")
        _check_working_size(self.size)
        if isinstance(self.size, int):  # one form, so that equal ones compare equal
            object.__setattr__(self, "size", (self.size, self.size))
        _check_quality(self.codec, self.quality)

    @classmethod
    def of(cls, given: "PostProcessing | str") -> "PostProcessing":
        """Return what is given, parsed if it is text."""
        return cls.parse(given) if isinstance(given, str) else given

    @classmethod
    def parse(cls, text: str) -> "PostProcessing":
        """Parse text such as ``png``, ``jpeg:90`` or ``512x512,bicubic,webp:80``.

        The working size (``512`` or ``640x480``, width first), the kernel and the codec with its
        quality are separated by commas, each optional. A `PostProcessingError` names a wrong part.
        """
        values: dict[str, Any] = {}
        for part in text.lower().split(","):
            new = _parse_part(part.strip(), text)
            if values.keys() & new.keys():
                raise PostProcessingError(
                    f"post-processing {text!r} says {part.strip()!r} besides another one."
                )
            values |= new
        return cls(**values)

    def __str__(self) -> str:
        parts = []
        if isinstance(self.size, tuple):
            parts.append("{}x{}".format(*self.size))
        if self.resample != "lanczos":
            parts.append(self.resample)
        parts.append(self.codec if self.quality is None else f"{self.codec}:{self.quality}")
        return ",".join(parts)

    @property
    def suffix(self) -> str:
        """File name ending of the codec, with its dot."""
        return SUFFIXES[self.codec]

    def resize(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Bring uint8 pixels (H, W, 3) to a size (width, height); at that size they stay as is."""
        if (image.shape[1], image.shape[0]) == tuple(size):
            return image
        return np.array(Image.fromarray(image).resize(size, KERNELS[self.resample]))

    def to_working_size(self, image: np.ndarray) -> np.ndarray:
        """Bring uint8 pixels (H, W, 3) to the working size, if there is one."""
        return self.resize(image, self.size) if isinstance(self.size, tuple) else image

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Bring uint8 pixels (H, W, 3) to the working size and back to their own."""
        return self.resize(self.to_working_size(image), (image.shape[1], image.shape[0]))

    def encode(self, image: np.ndarray) -> bytes:
        """Turn uint8 pixels (H, W, 3) into the content of a file.

        An `ImageError` if the codec cannot hold them, such as 16,384 pixels a side in WebP.
        """
        try:
            return encode_image(image, self.codec, **self._options())
        except Exception as error:
            raise ImageError(
                f"{image.shape[1]}x{image.shape[0]} pixels cannot be written as {self}: {error}. "
                "Choose another codec."
            ) from error

    def decode(self, content: bytes) -> np.ndarray:
        """Turn the content of a file into uint8 pixels (H, W, 3)."""
        return load_image(content)

    def _options(self) -> dict[str, Any]:
        if self.codec == "jpeg":
            return {"quality": self.quality, "subsampling": JPEG_SUBSAMPLING}
        if self.codec == "webp":
            return {"lossless": True} if self.quality is None else {"quality": self.quality}
        return {"compress_level": 1}  # half the time of a build for a tenth more bytes


def _check_working_size(size: Any) -> None:
    sides = size if isinstance(size, tuple) else (size, size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if size is not None and not (whole and len(sides) == 2 and min(sides) >= 1):
        raise PostProcessingError(
            f"size must be a positive int, a tuple (width, height) of two, or None, got {size!r}."
        )


def _check_quality(codec: str, quality: int | None) -> None:
    if quality is None:
        if codec == "jpeg":
            raise PostProcessingError("jpeg needs a quality of 1-100, for example 'jpeg:90'.")
    elif codec == "png":
        raise PostProcessingError(
            f"png is lossless and takes no quality, got {quality!r}. Leave it out."
        )
    elif not isinstance(quality, int) or not 1 <= quality <= 100:
        raise PostProcessingError(f"quality must be an int in 1-100, got {quality!r}.")


def _parse_part(part: str, text: str) -> dict[str, Any]:
    if size := _SIZE.fullmatch(part):
        width, height = size.groups()
        return {"size": (int(width), int(height)) if height else int(width)}
    if part in KERNELS:
        return {"resample": part}
    codec, colon, quality = part.partition(":")
    codec = "jpeg" if codec == "jpg" else codec
    if codec in SUFFIXES and (not colon or quality.isdecimal()):
        return {"codec": codec, "quality": int(quality) if quality else None}
    raise PostProcessingError(
        f"post-processing {text!r}: cannot read {part!r}. Write for example 'png', 'jpeg:90' or "
        f"'512x512,lanczos,webp:80'; codecs {', '.join(SUFFIXES)}; kernels {', '.join(KERNELS)}."
    )
