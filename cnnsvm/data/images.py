"""The one place where bytes become pixels, and where headers are read."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, TypeVar

import numpy as np
from PIL import Image

from cnnsvm.data.decoding import (
    FORMATS,
    LimitError,
    check_length,
    check_size,
    chunks_behind_pixels,
    file_length,
    on_white,
    open_image,
    open_stream,
    to_rgb,
    unread_stream,
    usual_max_pixels,
    without_metadata,
)
from cnnsvm.data.jpeg_xl import jpeg_xl_size
from cnnsvm.data.sample_formats import bits_per_sample, check_range
from cnnsvm.io.files import file_hash

T = TypeVar("T")
ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray

#: Values of `Header.coding` that leave traces of compression in the pixels.
LOSSY = frozenset({"JPEG", "MPO", "WEBP", "AVIF", "JPEG2000"})
_ORIENTATION = 0x0112  # EXIF
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
#: EXIF orientation -> what brings pixels, (H, W, 3), upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels[::-1].transpose(1, 0, 2),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels[:, ::-1].transpose(1, 0, 2),
}
#: PNG chunks of text and EXIF data, which may also stand behind the pixels.
_PNG_ENTRIES = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")


class ImageError(ValueError, OSError):
    """An image that cannot be used; the message names it and gives the reason."""


class UnknownFormatError(ImageError):
    """No image of a kind that is read here."""


class ImageLimitError(ImageError):
    """An image that asks for more memory or time than is given to one."""


#: Errors that say more than that an image cannot be used -> what decoders raise then.
_KINDS: dict[type[ImageError], tuple[type[Exception], ...]] = {
    UnknownFormatError: (Image.UnidentifiedImageError,),
    ImageLimitError: (LimitError, Image.DecompressionBombError, MemoryError),
}


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
    """Return a short name of an image input for messages, such as its path.

    What no one could read, such as control characters, is escaped.
    """
    if isinstance(image, (str, os.PathLike)):
        name = os.fsdecode(image)
        return name if name.isprintable() else ascii(name)[1:-1]
    if isinstance(image, bytes):
        return f"<{len(image)} bytes>"
    if isinstance(image, Image.Image):
        return getattr(image, "filename", "") or f"<PIL image {image.size[0]}x{image.size[1]}>"
    if isinstance(image, np.ndarray):
        return f"<array {image.shape} {image.dtype}>"
    return f"<{type(image).__name__}>"


def load_image(image: ImageInput, *, max_pixels: int | None = None) -> np.ndarray:
    """Load one image as RGB pixels.

    EXIF orientation is applied, alpha is composited on white, 16-bit grey is scaled to 8 bits,
    palettes and CMYK are converted, and of an animation the first frame is taken with a warning.
    Colour profiles are ignored: a forensic trace is in the numbers of the file.

    Parameters
    ----------
    image : str, path, bytes, PIL.Image.Image or ndarray of uint8
        A file, the content of one, an image, or pixels of shape (H, W), (H, W, 3) or (H, W, 4)
        in the order R, G, B, alpha. The input is not changed.
    max_pixels : int, optional
        Most pixels that will be decoded; the header is checked before any pixel is. By default
        200 million, or what the environment variable CNNSVM_MAX_PIXELS says.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3), values 0-255
        A new C-contiguous array.

    Raises
    ------
    ImageError
        For every failure, of whatever decoder; it is also a ``ValueError`` and an ``OSError``.
    """
    return _despite_metadata(image, lambda image: _load(image, max_pixels))


def has_frames(file: str | os.PathLike[str] | bytes) -> bool:
    """Tell whether a file has frames behind the first one, which is all that is decoded."""
    with errors_named(file):
        if _jpeg_xl_size(file) is not None:
            return False  # its plugin shows one, and to open it is to decode it
        with open_image(file) as (_, opened):
            return _has_frames(opened)


def _has_frames(opened: Image.Image) -> bool:
    """Look for a second frame, since counting them takes long; a phone's MPO is one photograph."""
    return opened.format != "MPO" and bool(getattr(opened, "is_animated", False))


def _load(image: ImageInput, max_pixels: int | None) -> np.ndarray:
    with errors_named(image):
        if isinstance(image, np.ndarray):
            return _array_to_rgb(image, max_pixels)
        cap = usual_max_pixels() if max_pixels is None else max_pixels
        with open_image(image, cap) as (stream, opened):
            heavy = opened.format == "WEBP" and opened is not image  # 15 bytes a pixel
            check_size(opened.size, cap * 2 // 3 if heavy else cap)
            if opened is not image and _has_frames(opened):  # who passes it has chosen its frame
                text = f"{image_name(image)}: several frames; only the first is used."
                warnings.warn(text, stacklevel=3)
            stream = stream or unread_stream(opened)
            bits = bits_per_sample(opened, stream)
            pixels = to_rgb(opened, stream)
            check_range(opened, pixels, bits)
            turn = _UPRIGHT[_orientation(opened.getexif)]  # it may stand behind the pixels
            return np.ascontiguousarray(turn(pixels))


def read_header(image: ImageInput) -> Header:
    """Read what is known of an image, given as for `load_image`, without decoding its pixels.

    An ImageError is raised if it cannot be read.
    """
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        mode = "L" if image.ndim == 2 else "RGB" if image.shape[2] == 3 else "RGBA"
        return Header(width, height, mode)
    return _despite_metadata(image, _read_header)


def _read_header(image: ImageInput) -> Header:
    with errors_named(image), open_image(image) as (stream, opened):
        if stream is not None and opened.format == "PNG":
            _read_behind_pixels(stream, opened)
        get = opened.getexif if stream is None else partial(Image.Image.getexif, opened)
        orientation = _orientation(get)
        turned = opened.format == "TIFF" and orientation in _TURNED  # Pillow turns those itself
        return Header(
            *(opened.size[::-1] if turned else opened.size),
            mode=opened.mode,
            format=opened.format,
            coding=_coding(stream, opened.format),
            n_bytes=None if stream is None else stream.seek(0, io.SEEK_END),
            orientation=orientation,
            n_exif=len(_exif(get)),
            entries=tuple(map(str, opened.info)),
            quantization=getattr(opened, "quantization", None) or {},
            sampling=tuple((layer[1], layer[2]) for layer in getattr(opened, "layer", ())),
        )


def image_sides(image: ImageInput) -> tuple[int, int]:
    """Return the shorter and the longer side of an image in pixels, from its header alone.

    An ImageError is raised if it cannot be read.
    """
    sides = image.shape[:2] if isinstance(image, np.ndarray) else _despite_metadata(image, _size)
    return min(sides), max(sides)


def image_hash(image: ImageInput) -> str:
    """Return the SHA-256 of an image in hexadecimal: of a file's bytes, else of the pixels.

    An ImageError is raised if it cannot be read.
    """
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    if isinstance(image, (str, os.PathLike)):
        with errors_named(image):
            check_length(file_length(image))
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
    images: Sequence[ImageInput],
    *,
    n_jobs: int | None = None,
    read: Callable[[ImageInput], Any] = load_image,
) -> list[tuple[int, str]]:
    """Read every image once, on ``n_jobs`` threads, and list the failures as (index, reason)."""
    from joblib import Parallel, delayed

    jobs = (delayed(_failure)(image, read) for image in images)
    reasons = Parallel(n_jobs=n_jobs, prefer="threads")(jobs)
    return [(i, reason) for i, reason in enumerate(reasons) if reason is not None]


def _size(image: ImageInput) -> tuple[int, int]:
    with errors_named(image):
        if (size := _jpeg_xl_size(image)) is not None:
            return size
        with open_image(image) as (_, opened):
            return opened.size


def _jpeg_xl_size(image: ImageInput) -> tuple[int, int] | None:
    """Return width and height of a JPEG XL of any size without decoding it; None of all else."""
    if not isinstance(image, str | os.PathLike | bytes):
        return None
    with open_stream(image) as stream:
        return jpeg_xl_size(stream)


def _despite_metadata(image: ImageInput, read: Callable[[ImageInput], T]) -> T:
    """Read an image; if that fails, without what says nothing of the pixels."""
    try:
        return read(image)
    except ImageError as error:
        bare = without_metadata(image)
        if bare is None:
            raise
        try:
            found = read(bare)
        except ImageError:
            raise error from None
        text = f"{image_name(image)}: its metadata cannot be read and were ignored."
        warnings.warn(text, stacklevel=3)
        return found


def _failure(image: ImageInput, read: Callable[[ImageInput], Any]) -> str | None:
    try:
        read(image)
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
def errors_named(image: Any) -> Iterator[None]:
    """Turn whatever a decoder raises into an `ImageError` that names the image."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        kind = next((own for own, kinds in _KINDS.items() if isinstance(error, kinds)), ImageError)
        raise kind(f"{image_name(image)}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file. Check the path and the folder it is relative to."
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image. Pass the images in it."
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a kind that is read here ({', '.join(FORMATS)}, 8 or 16 bits)."
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
    if str(error).startswith("decoder error"):
        return f"its compression cannot be decoded ({error}). Save it as PNG with what made it."
    if "truncated" in str(error).lower():
        return f"{error}. The file is incomplete; get it again."
    return str(error) or type(error).__name__


def _read_behind_pixels(stream: IO[bytes], opened: Image.Image) -> None:
    """Let Pillow read what stands behind the pixels of a PNG, which it does when it decodes."""
    place = stream.tell()
    stream.seek(0)
    kinds = chunks_behind_pixels(stream)
    stream.seek(place)
    if not kinds.isdisjoint(_PNG_ENTRIES):
        opened.load()


def _exif(get: Callable[[], Mapping[int, Any]]) -> Mapping[int, Any]:
    """Read EXIF data; what cannot be read is none."""
    try:
        return get()
    except Exception as error:
        warnings.warn(f"EXIF data that cannot be read ({error}) are ignored.", stacklevel=3)
        return {}


def _orientation(get: Callable[[], Mapping[int, Any]]) -> int:
    value = _exif(get).get(_ORIENTATION, 1)
    return value if value in _UPRIGHT else 1


def _coding(stream: IO[bytes] | None, kind: str | None) -> str | None:
    if kind != "WEBP" or stream is None:
        return kind
    stream.seek(0)
    return "WEBP lossless" if b"VP8L" in stream.read(64) else kind


def _array_to_rgb(array: np.ndarray, max_pixels: int | None) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(
            f"pixels must be uint8 (0-255), got {array.dtype}. Scale them and use .astype('uint8')."
        )
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ValueError(
            f"pixels must have shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}."
        )
    height, width = array.shape[:2]
    check_size((width, height), height * width if max_pixels is None else max_pixels)
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if array.shape[2] == 4:
        return on_white(Image.fromarray(np.ascontiguousarray(array), "RGBA")).copy()
    return np.array(array, order="C")
