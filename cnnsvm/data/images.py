"""The one place where bytes become pixels, and where headers are read."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from cnnsvm.io.files import file_hash

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000
#: What Pillow may try. Formats that run an interpreter (EPS, PDF) are left out on purpose.
_WANTED = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")
Image.init()  # registers the decoders that this Pillow was built with
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jp2", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
) | {".ppm", ".pgm"}
#: Values of `Header.coding` that leave traces of compression in the pixels.
LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000"})
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112  # EXIF
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
#: PNG chunks of text and EXIF data, which may also stand behind the pixels.
_PNG_ENTRIES = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")


class ImageError(ValueError, OSError):
    """An image that cannot be used; the message names it and gives the reason."""


@dataclass(frozen=True)
class Header:
    """What is known of an image without its pixels.

    Attributes
    ----------
    width, height : int
        Pixels as stored.
    mode, format : str
        Pillow's names, such as "RGB" and "JPEG"; an image in memory has no format.
    coding : str or None
        The format, with "lossless" added to that of a lossless WebP.
    n_bytes : int or None
        Length of the file.
    orientation : int in 1-8
        EXIF orientation; 1, as stored, where there is none or nonsense.
    n_exif, entries : int, tuple of str
        Number of EXIF entries, and names of all others.
    quantization, sampling : dict of int to 64 int, tuple of (int, int)
        Of a JPEG: its tables, and the horizontal and vertical sampling factor of each component.
    """

    width: int
    height: int
    mode: str
    format: str | None = None
    coding: str | None = None
    n_bytes: int | None = None
    orientation: int = 1
    n_exif: int = 0
    entries: tuple[str, ...] = ()
    quantization: dict[int, Sequence[int]] = field(default_factory=dict)
    sampling: tuple[tuple[int, int], ...] = ()

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height once the orientation is applied, as `load_image` does."""
        turned = self.orientation in _TURNED
        return (self.height, self.width) if turned else (self.width, self.height)


def image_name(image: Any) -> str:
    """Return a short name of an image input for messages, such as its path."""
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    if isinstance(image, bytes):
        return f"<{len(image)} bytes>"
    if isinstance(image, Image.Image):
        return getattr(image, "filename", "") or f"<PIL image {image.size[0]}x{image.size[1]}>"
    if isinstance(image, np.ndarray):
        return f"<array {image.shape} {image.dtype}>"
    return f"<{type(image).__name__}>"


def load_image(image: ImageInput, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Load one image as RGB pixels.

    EXIF orientation is applied, alpha is composited on white, 16-bit grey is scaled to 8 bits,
    palettes and CMYK are converted, and of an animation the first frame is taken with a warning.
    Colour profiles are ignored: a forensic trace is in the numbers of the file.

    Parameters
    ----------
    image : str, path, bytes, PIL.Image.Image or ndarray of uint8
        A file, the content of one, an image, or pixels of shape (H, W), (H, W, 3) or (H, W, 4)
        in the order R, G, B, alpha. The input is not changed.
    max_pixels : int
        Most pixels that will be decoded; the header is checked before any pixel is.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3), values 0-255
        A new C-contiguous array.

    Raises
    ------
    ImageError
        For every failure, of whatever decoder; it is also a ``ValueError`` and an ``OSError``.
    """
    with _errors_named(image):
        if isinstance(image, np.ndarray):
            return _array_to_rgb(image, max_pixels)
        with _opened(image) as (_, opened):
            _check_size(opened.size, max_pixels)
            # a phone's MPO is one photograph; who passes a PIL image has chosen its frame
            single = opened is image or opened.format == "MPO"
            n_frames = 1 if single else getattr(opened, "n_frames", 1)
            if n_frames > 1:
                text = f"{image_name(image)}: {n_frames} frames; only the first is used."
                warnings.warn(text, stacklevel=2)
            return _pil_to_rgb(opened)


def read_header(image: ImageInput) -> Header:
    """Read what is known of an image, given as for `load_image`, without decoding its pixels.

    An ImageError is raised if it cannot be read.
    """
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        mode = "L" if image.ndim == 2 else "RGB" if image.shape[2] == 3 else "RGBA"
        return Header(width, height, mode)
    with _errors_named(image), _opened(image) as (stream, opened):
        if stream is not None and opened.format == "PNG":
            _read_behind_pixels(stream, opened)
        exif = opened.getexif() if stream is None else Image.Image.getexif(opened)
        orientation = exif.get(_ORIENTATION, 1)
        return Header(
            *opened.size,
            mode=opened.mode,
            format=opened.format,
            coding=_coding(stream, opened.format),
            n_bytes=None if stream is None else stream.seek(0, io.SEEK_END),
            orientation=orientation if orientation in range(1, 9) else 1,
            n_exif=len(exif),
            entries=tuple(map(str, opened.info)),
            quantization=getattr(opened, "quantization", None) or {},
            sampling=tuple((layer[1], layer[2]) for layer in getattr(opened, "layer", ())),
        )


def image_sides(image: ImageInput) -> tuple[int, int]:
    """Return the shorter and the longer side of an image in pixels, from its header alone.

    An ImageError is raised if it cannot be read.
    """
    if isinstance(image, np.ndarray):
        sides = image.shape[:2]
    else:
        with _errors_named(image), _opened(image) as (_, opened):
            sides = opened.size
    return min(sides), max(sides)


def image_hash(image: ImageInput) -> str:
    """Return the SHA-256 of an image in hexadecimal: of a file's bytes, else of the pixels.

    An ImageError is raised if it cannot be read.
    """
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    if isinstance(image, (str, os.PathLike)):
        with _errors_named(image):
            return file_hash(image)
    pixels = load_image(image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def as_image_list(X: Any) -> list[Any]:
    """Turn what a user may pass as images into a list with one item an image, unopened.

    A bare string or path is one image. An array of dtype uint8 is one image (H, W), (H, W, 3), (H,
    W, 4) or a stack of them (N, H, W, 3 or 4); a table has them in its column ``path``; sequences,
    Series and other arrays hold one an item. A ValueError says that ``X`` is none of these.
    """
    if isinstance(X, (str, bytes, os.PathLike, Image.Image)):
        return [X]
    if hasattr(X, "columns"):
        if "path" not in X.columns:
            raise ValueError(
                f"a table of images needs a 'path' column, got columns {list(X.columns)}."
            )
        return list(X["path"])
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUS":
        return _split_array(X)
    if not isinstance(X, Iterable):
        raise ValueError(
            f"images must be paths, bytes, PIL images or uint8 arrays, got {type(X).__name__}."
        )
    return list(X)


def check_images(X: Any) -> Sequence[Any]:
    """List the images of ``X`` (see `as_image_list`); a list or tuple stays as it is.

    A ValueError is raised if there are none, or ``X`` holds no images.
    """
    is_list = isinstance(X, Sequence) and not isinstance(X, str | bytes)
    images = X if is_list else as_image_list(X)
    if len(images) == 0:
        raise ValueError("Found array with 0 sample(s): there are no images.")
    return images


def find_bad_images(
    images: Sequence[ImageInput], *, n_jobs: int | None = None
) -> list[tuple[int, str]]:
    """Decode every image once, on ``n_jobs`` threads, and list the failures as (index, reason)."""
    from joblib import Parallel, delayed

    jobs = (delayed(_failure)(image) for image in images)
    reasons = Parallel(n_jobs=n_jobs, prefer="threads")(jobs)
    return [(i, reason) for i, reason in enumerate(reasons) if reason is not None]


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List the image files below a folder by suffix, sorted, hidden files left out."""
    root = Path(folder)
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
    )


def _failure(image: ImageInput) -> str | None:
    try:
        load_image(image)
    except ImageError as error:
        return str(error)
    return None


def _split_array(X: np.ndarray) -> list[np.ndarray]:
    if X.ndim == 2 or (X.ndim == 3 and X.shape[-1] in (3, 4)):
        return [X]
    if X.ndim == 4 and X.shape[-1] in (3, 4):
        return list(X)
    raise ValueError(
        f"an array of images has shape (H, W), (H, W, 3 or 4) or (N, H, W, 3 or 4), "
        f"got {X.shape}. Pass a list of arrays for grey images."
    )


@contextmanager
def _errors_named(image: Any) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError` that names the image."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{image_name(image)}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file. Check the path and the folder it is relative to."
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image. Pass the images in it."
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image in a format that is read here ({', '.join(FORMATS)})."
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
    if "truncated" in str(error):
        return f"{error}. The file is incomplete; get it again."
    return f"{error or type(error).__name__}"


@contextmanager
def _opened(image: Any) -> Iterator[tuple[IO[bytes] | None, Image.Image]]:
    """Open a file or its content with Pillow; an image in memory has no stream."""
    if isinstance(image, Image.Image):
        yield None, image
        return
    if not isinstance(image, (str, bytes, os.PathLike)):
        raise TypeError(
            "an image is a path, bytes, a PIL image or a uint8 array, "
            f"got {type(image).__name__} {image!r:.80}"
        )
    with (
        io.BytesIO(image) if isinstance(image, bytes) else open(image, "rb") as stream,
        Image.open(stream, formats=FORMATS) as opened,
    ):
        yield stream, opened


def _read_behind_pixels(stream: IO[bytes], opened: Image.Image) -> None:
    """Let Pillow read what stands behind the pixels of a PNG, which it does when it decodes."""
    start = stream.tell()
    behind = stream.read().rpartition(b"IDAT")[2]
    stream.seek(start)
    if any(kind in behind for kind in _PNG_ENTRIES):
        opened.load()


def _coding(stream: IO[bytes] | None, kind: str | None) -> str | None:
    if kind != "WEBP" or stream is None:
        return kind
    stream.seek(0)
    return "WEBP lossless" if b"VP8L" in stream.read(64) else kind


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"an image needs at least one pixel, got {width}x{height}.")
    if width * height > max_pixels:
        raise ValueError(
            f"{width}x{height} is {width * height:,} pixels, more than the cap of {max_pixels:,}. "
            "Raise max_pixels if you trust the file."
        )


def _array_to_rgb(array: np.ndarray, max_pixels: int) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(
            f"pixels must be uint8 (0-255), got {array.dtype}. Scale them and use .astype('uint8')."
        )
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(
            f"pixels must have shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}."
        )
    _check_size((array.shape[1], array.shape[0]), max_pixels)
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if array.shape[2] == 4:
        return _on_white(Image.fromarray(np.ascontiguousarray(array), "RGBA"))
    return np.array(array, order="C")


def _pil_to_rgb(image: Image.Image) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT:
        return np.repeat(_scale_sixteen_bits(np.asarray(upright))[:, :, None], 3, axis=2)
    if upright.mode == "F":
        raise ValueError("floating-point pixels have no fixed range; convert them to 8 bits first.")
    if "transparency" in upright.info or upright.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return _on_white(upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))


def _scale_sixteen_bits(grey: np.ndarray) -> np.ndarray:
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"grey values {grey.min()}..{grey.max()} are not 16-bit (0-65535); convert them first."
        )
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _on_white(rgba: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", rgba.size, "white")
    return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
