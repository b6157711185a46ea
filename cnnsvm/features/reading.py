"""Images, each decoded once: ahead of what works on them, and no more of them than memory holds."""

import os
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cnnsvm.data.images import ImageError, image_sides, load_image
from cnnsvm.io.progress import show_progress

#: Files in which a container says how much memory it may take.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_of_machine(limits: Sequence[str] = _LIMITS) -> int:
    """Return the bytes of memory of the machine, or of the container if that has less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in limits:
        with suppress(OSError, ValueError):  # "max" is no number
            found.append(int(Path(file).read_text()))
    return min(found)


#: Bytes of decoded images that a fine-tuning run keeps: a quarter of the memory, at most.
MEMORY = min(2**32, memory_of_machine() // 4)
#: Images that are kept for a moment beyond that: the members of a pair are asked for in turn.
RECENT = 8
#: Bytes from which an image is large: it is held alone.
LARGE = 2**26
#: Bytes and number of images that are worked on at once.
_CHUNK, MOST_IN_CHUNK = 2**26, 64
_USUAL = 3 * 512**2  # bytes of an image
_STRIP = 2**22  # pixels that are resized at once


class Decoded(Sequence[np.ndarray]):
    """Images, decoded when first asked for and kept while ``memory`` bytes last.

    In one process an epoch then reads no file that an earlier one has read; what does not fit is
    read again, but for the last few. With ``resize`` the shorter side of each is brought to so
    many pixels. ``max_pixels`` are the most that are decoded; arrays are taken as they are.
    """

    def __init__(
        self,
        images: Sequence[Any],
        memory: int = MEMORY,
        resize: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self.images, self.free, self.resize, self.max_pixels = images, memory, resize, max_pixels
        self.kept: dict[int, np.ndarray] = {}
        self.recent: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        for known in (self.kept, self.recent):
            if (found := known.get(index)) is not None:
                return found
        image = self.images[index]
        pixels = image if is_rgb(image) else load_image(image, max_pixels=self.max_pixels)
        if self.resize is not None:
            pixels = resize_short_side(pixels, self.resize)
        if pixels is image:
            return pixels
        if pixels.nbytes <= self.free:
            self.kept[index] = pixels
            self.free -= pixels.nbytes
        elif pixels.nbytes < LARGE:
            self.recent[index] = pixels
            if len(self.recent) > RECENT:
                with suppress(KeyError):  # another thread was quicker
                    self.recent.popitem(last=False)
        return pixels

    def is_large(self, index: int) -> bool:
        """Whether an image has so many pixels that no other should be held beside it."""
        if not isinstance(self.images, list | tuple):
            return False  # to ask for one may be to make it
        try:
            shorter, longer = image_sides(self.images[index])
        except ImageError:
            return False  # who reads it is told why it cannot be
        return 3 * shorter * longer >= LARGE

    def part(self, indices: np.ndarray) -> "Decoded":
        """Return a selection that remembers its own images, and takes half the memory for it."""
        self.free //= 2
        images = [self.images[i] for i in indices]
        return Decoded(images, self.free, self.resize, self.max_pixels)


def is_rgb(image: Any) -> bool:
    """Whether an image is an array of the pixels that `load_image` would return."""
    is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8
    return is_array and image.ndim == 3 and image.shape[2] == 3


def read_ahead(images: Sequence[np.ndarray], n_jobs: int | None = None) -> Iterator[np.ndarray]:
    """Yield images in their order, of which ``n_jobs`` threads (None: 1) make the next meanwhile.

    One that is large (see `Decoded.is_large`) is alone. An ImageError is raised at its place.
    Progress is shown if there are many.
    """
    many = len(images) > MOST_IN_CHUNK
    found = read_or_fail(images, n_jobs or 1)
    for item in show_progress(found, len(images), "images", many):
        if isinstance(item, ImageError):
            raise item
        yield item


def read_or_fail(
    images: Sequence[np.ndarray], n_ahead: int = 1
) -> Iterator[np.ndarray | ImageError]:
    """Yield images, or the errors of those that cannot be read, as `read_ahead` does."""

    def read(index: int) -> np.ndarray | ImageError:
        try:
            return images[index]
        except ImageError as error:
            return error

    is_large = images.is_large if isinstance(images, Decoded) else lambda _: False
    waiting: deque[Future[np.ndarray | ImageError]] = deque()
    with ThreadPoolExecutor(n_ahead) as pool:
        for index in range(len(images)):
            large = is_large(index)
            while large and waiting:
                yield waiting.popleft().result()
            waiting.append(pool.submit(read, index))
            while waiting and (large or len(waiting) > n_ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_chunks(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Gather images into lists of a few, so that each is decoded once for all that look at it."""
    chunk: list[np.ndarray] = []
    n_bytes = 0
    for image in images:
        chunk.append(image)
        n_bytes += image.nbytes
        if n_bytes >= _CHUNK or len(chunk) == MOST_IN_CHUNK:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk


def is_batch(images: Sequence[np.ndarray], n_images: int) -> bool:
    """Tell whether images are enough to be worked on at once.

    That are ``n_images``, and where these have fewer pixels than as many of 512 x 512 would, more:
    a step that takes no time costs most in what is around it.
    """
    enough = sum(image.nbytes for image in images) >= n_images * _USUAL
    return len(images) >= n_images and (enough or len(images) >= MOST_IN_CHUNK)


def resize_short_side(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image so that its shorter side has ``side`` pixels (bicubic, antialiased)."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    return resize(image, (max(side, round(width * scale)), max(side, round(height * scale))))


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 pixels (H, W, 3) to (width, height) as Pillow does (bicubic, antialiased).

    Where it makes rows shorter, Pillow does so first and then resizes columns. So does this, but
    with few rows at a time, since Pillow takes four bytes a pixel.
    """
    height, width = image.shape[:2]
    if size[0] < width:
        n_rows = max(1, _STRIP // width)
        tops = range(0, height, n_rows)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            strips = pool.map(lambda top: _resize(image[top : top + n_rows], (size[0], None)), tops)
            image = np.concatenate(list(strips))
    return _resize(image, size)


def _resize(image: np.ndarray, size: tuple[int, int | None]) -> np.ndarray:
    width, height = size[0], size[1] or len(image)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
