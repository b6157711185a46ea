"""Native-resolution crops: how images of any size become the batches of a backbone.

The traces of inpainting lie in the highest frequencies and a resize removes them, so a large image
is seen through several crops and a small one is wrapped round. `resize_short_side` is for
embeddings of what a whole image shows.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cnnsvm.data.images import load_image

#: Bytes of decoded images that a fine-tuning run keeps: a quarter of the machine's memory, at most.
MEMORY = min(2**32, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
#: Images that are kept for a moment beyond that: the members of a pair are asked for in turn.
RECENT = 8


def wrap_to(image: np.ndarray, size: int) -> np.ndarray:
    """Repeat an image periodically until both sides have at least ``size`` pixels.

    Parameters
    ----------
    image : ndarray, shape (H, W, ...)
    size : int
        Smallest side wanted, in pixels.

    Returns
    -------
    ndarray, shape (max(H, size), max(W, size), ...)
        The input itself when it is large enough.
    """
    height, width = image.shape[:2]
    if height >= size and width >= size:
        return image
    missing = [(0, max(0, size - height)), (0, max(0, size - width))]
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="wrap")


def crop_positions(height: int, width: int, size: int, n_crops: int) -> list[tuple[int, int]]:
    """Spread crops evenly and deterministically over an image.

    The crops lie in rows, as many as the shape of the image asks for; one crop is centred, four
    crops of a square are its corners, five are three above two.

    Parameters
    ----------
    height, width : int
        Size of the image in pixels, both at least ``size``.
    size, n_crops : int
        Side of a crop in pixels and the number of crops wanted, at least 1.

    Returns
    -------
    list of (top, left)
        At most ``n_crops`` different positions (fewer when the image is hardly larger).
    """
    free_y, free_x = height - size, width - size
    if free_y < 0 or free_x < 0:
        raise ValueError(
            f"a {size}-pixel crop does not fit {width}x{height}; wrap the image first."
        )
    if free_y == 0:
        n_rows = 1
    elif free_x == 0:
        n_rows = n_crops
    else:
        n_rows = min(n_crops, max(1, round((n_crops * height / width) ** 0.5)))
    per_row = [len(part) for part in np.array_split(np.arange(n_crops), n_rows)]
    tops = _spread(free_y, n_rows)
    positions = [
        (top, left) for top, n in zip(tops, per_row, strict=True) for left in _spread(free_x, n)
    ]
    return list(dict.fromkeys(positions))


def fixed_crops(image: np.ndarray, size: int, n_crops: int, mirror: bool = False) -> np.ndarray:
    """Cut the deterministic crops that an image is judged by.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    size, n_crops : int
    mirror : bool
        Put the mirror image of each crop behind them.

    Returns
    -------
    ndarray of uint8, shape (k, size, size, 3)
        With 1 <= k <= ``n_crops``, or twice that.
    """
    large = wrap_to(image, size)
    positions = crop_positions(large.shape[0], large.shape[1], size, n_crops)
    crops = np.stack([large[top : top + size, left : left + size] for top, left in positions])
    return np.concatenate([crops, crops[:, :, ::-1]]) if mirror else crops


def resize_short_side(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image so that its shorter side has ``side`` pixels (bicubic, antialiased)."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


class Decoded:
    """Images, decoded when first asked for and kept while ``memory`` bytes last.

    In one process an epoch then reads no file that an earlier one has read; what does not fit is
    read again, but for the last few. With ``resize`` the shorter side of each is brought to so
    many pixels.
    """

    def __init__(
        self, images: Sequence[Any], memory: int = MEMORY, resize: int | None = None
    ) -> None:
        self.images, self.free, self.resize = images, memory, resize
        self.kept: dict[int, np.ndarray] = {}
        self.recent: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        for known in (self.kept, self.recent):
            if index in known:
                return known[index]
        pixels = load_image(self.images[index])
        if self.resize is not None:
            pixels = resize_short_side(pixels, self.resize)
        if pixels.nbytes <= self.free:
            self.kept[index] = pixels
            self.free -= pixels.nbytes
        else:
            self.recent[index] = pixels
            if len(self.recent) > RECENT:
                self.recent.popitem(last=False)
        return pixels

    def part(self, indices: np.ndarray) -> "Decoded":
        """Return a selection that remembers its own images, and takes half the memory for it."""
        self.free //= 2
        return Decoded([self.images[i] for i in indices], self.free, self.resize)


class CropDataset(Protocol):
    """The crops of images: item i is uint8 of shape (k, 3, size, size)."""

    n_crops: int
    mirror: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> torch.Tensor: ...


class FixedCrops(Dataset):
    """Item i: the deterministic crops of image i, uint8 of shape (k, 3, size, size)."""

    def __init__(self, images: Decoded, size: int, n_crops: int, mirror: bool = False) -> None:
        self.images, self.size, self.n_crops, self.mirror = images, size, n_crops, mirror

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        crops = fixed_crops(self.images[index], self.size, self.n_crops, self.mirror)
        return to_tensor(crops)


def iterate_crops(
    dataset: CropDataset, batch_size: int, n_jobs: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (number of crops of each image, crops) for about ``batch_size`` crops at a time."""
    images_per_batch = max(1, batch_size // (dataset.n_crops * (2 if dataset.mirror else 1)))
    items_of: Any = dataset  # a map-style data set, whatever its class
    loader = DataLoader(items_of, batch_size=images_per_batch, num_workers=n_jobs, collate_fn=list)
    for items in loader:
        yield [len(item) for item in items], torch.cat(items)


def to_tensor(crops: np.ndarray) -> torch.Tensor:
    """Turn crops (k, size, size, 3) into a tensor of shape (k, 3, size, size)."""
    return torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))


def _spread(free: int, n: int) -> list[int]:
    if n == 1:
        return [free // 2]
    return [round(free * i / (n - 1)) for i in range(n)]
