"""Native-resolution crops: how images of any size become batches, and then one embedding each.

The traces of inpainting lie in the highest frequencies and a resize removes them, so a large image
is seen through several crops and a small one is wrapped round. `resize_short_side` is for
embeddings of what a whole image shows.
"""

import os
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cnnsvm.data.images import load_image
from cnnsvm.features.backbones import Backbone
from cnnsvm.features.devices import autocast

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
#: Pooling -> the parts that are put one after the other.
POOLINGS = {
    "mean": ("mean",),
    "mean_max": ("mean", "max"),
    "mean_std": ("mean", "std"),
    "mean_top": ("mean", "top"),
    "mean_std_top": ("mean", "std", "top"),
    "mean_std_top_peak": ("mean", "std", "top", "peak"),
}
#: The embedding of a crop itself, or what the classifier that fine-tuning trained says of each
#: class (stacked generalization: Wolpert, Neural Networks 5, 1992).
OUTPUTS = ("embedding", "scores")
#: Share of an image's crops, those that look the most fake, that a part takes, at least one.
TOP_SHARES = {"top": 1 / 4, "peak": 1 / 16}
#: Windows closer than side by side are spread while they are not more.
MAX_WINDOWS = 1024


def wrap_to(image: np.ndarray, size: int) -> np.ndarray:
    """Repeat an image (H, W, ...) periodically until both sides have at least ``size`` pixels.

    An image that is large enough is returned as it is.
    """
    height, width = image.shape[:2]
    if height >= size and width >= size:
        return image
    missing = [(0, max(0, size - height)), (0, max(0, size - width))]
    return np.pad(image, missing + [(0, 0)] * (image.ndim - 2), mode="wrap")


def crop_positions(
    height: int, width: int, size: int, n_crops: int | None
) -> list[tuple[int, int]]:
    """Spread crops of ``size`` pixels a side evenly and deterministically over an image.

    The crops lie in rows, as many as the shape of the image asks for; one crop is centred, four
    crops of a square are its corners, five are three above two. Both sides of the image must be at
    least ``size``. Returns at most ``n_crops`` different (top, left), fewer when the image is
    hardly larger than a crop; None takes as many as show every pixel.
    """
    free_y, free_x = height - size, width - size
    if free_y < 0 or free_x < 0:
        raise ValueError(
            f"a {size}-pixel crop does not fit {width}x{height}; wrap the image first."
        )
    if n_crops is None:
        tops, lefts = window_positions(height, width, size, size)
        return [(top, left) for top in tops for left in lefts]
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


def window_positions(
    height: int, width: int, size: int, stride: int
) -> tuple[list[int], list[int]]:
    """Spread windows over an image so that they show every pixel.

    They lie ``stride`` pixels apart at most, up to side by side where they would be more than
    `MAX_WINDOWS`. Returns tops and lefts, both from 0 to the last place where a window fits; the
    windows are their product.
    """
    while True:
        counts = [-(-(side - size) // stride) + 1 for side in (height, width)]
        if counts[0] * counts[1] <= MAX_WINDOWS or stride >= size:
            break
        stride = min(size, stride * 2)
    tops, lefts = (
        _spread(side - size, count) for side, count in zip((height, width), counts, strict=True)
    )
    return tops, lefts


def covered_share(height: int, width: int, size: int, n_crops: int | None) -> float:
    """Return the share of the pixels of an image that its crops show, in (0, 1]."""
    seen = np.zeros((height, width), dtype=bool)
    for top, left in crop_positions(max(height, size), max(width, size), size, n_crops):
        seen[top : top + size, left : left + size] = True
    return float(seen.mean())


def fixed_crops(
    image: np.ndarray, size: int, n_crops: int | None, mirror: bool = False
) -> np.ndarray:
    """Cut the deterministic crops that an image, uint8 (H, W, 3), is judged by.

    Returns uint8 (k, size, size, 3), those of `crop_positions`; with ``mirror`` the mirror image of
    each crop stands behind them.
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

    n_crops: int | None
    mirror: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> torch.Tensor: ...


class FixedCrops(Dataset):
    """Item i: the deterministic crops of image i, uint8 of shape (k, 3, size, size)."""

    def __init__(
        self, images: Decoded, size: int, n_crops: int | None, mirror: bool = False
    ) -> None:
        self.images, self.size, self.n_crops, self.mirror = images, size, n_crops, mirror

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        crops = fixed_crops(self.images[index], self.size, self.n_crops, self.mirror)
        return to_tensor(crops)


def iterate_crops(
    dataset: CropDataset, batch_size: int, n_jobs: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (number of crops of each image, crops) for about ``batch_size`` crops at a time.

    An image is not divided: that of a large one, seen whole, is as many as it has.
    """
    most = batch_size if dataset.n_crops is None else dataset.n_crops
    images_per_batch = max(1, batch_size // (most * (2 if dataset.mirror else 1)))
    items_of: Any = dataset  # a map-style data set, whatever its class
    loader = DataLoader(items_of, batch_size=images_per_batch, num_workers=n_jobs, collate_fn=list)
    for items in loader:
        yield [len(item) for item in items], torch.cat(items)


def to_tensor(crops: np.ndarray) -> torch.Tensor:
    """Turn crops (k, size, size, 3) into a tensor of shape (k, 3, size, size)."""
    return torch.from_numpy(np.ascontiguousarray(crops.transpose(0, 3, 1, 2)))


def pool_crops(crops: np.ndarray, pooling: str, scores: np.ndarray | None = None) -> np.ndarray:
    """Pool the embeddings of one image's crops, float32 (k, d), to (d * number of parts,).

    A half-repainted image has crops of both kinds, which the mean alone blurs. ``pooling`` is a key
    of `POOLINGS`: the mean, the largest value, the standard deviation over the crops, and "top"
    and "peak", the mean of the quarter and of the sixteenth of the crops with the highest
    ``scores``, float32 (k,), of how fake they look.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
    parts = []
    for part in POOLINGS[pooling]:
        if part not in TOP_SHARES:
            parts.append(getattr(crops, part)(axis=0))
        elif scores is None:
            raise ValueError(
                f"pooling={pooling!r} ranks crops by a fine-tuned classifier. Use finetune='full' "
                "or 'head', or another pooling."
            )
        else:
            n_top = max(1, round(TOP_SHARES[part] * len(crops)))
            parts.append(crops[np.argsort(-scores, kind="stable")[:n_top]].mean(axis=0))
    return np.concatenate(parts)


def embed_crops(
    network: Backbone,
    dataset: CropDataset,
    *,
    pooling: str = "mean",
    batch_size: int = 8,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    n_jobs: int = 0,
    output: str = "embedding",
    label: str = "embedding",
) -> np.ndarray:
    """Embed images in their order, float32 (len(dataset), d * number of parts).

    The network runs in evaluation mode on ``device``, in the precision ``dtype``, on ``batch_size``
    crops at a time; ``n_jobs`` processes decode images (0: this one). For ``pooling`` see
    `pool_crops`; ``output`` is one of `OUTPUTS`, of which "scores" needs a network that was
    fine-tuned; ``label`` is what the progress bar says. An ImageError says that an image cannot be
    read, a ValueError that an embedding is not finite.
    """
    network.to(device).eval()
    rows = []
    total = len(dataset)
    progress = tqdm(total=total, desc=label, unit="image", disable=not sys.stderr.isatty())
    with torch.inference_mode(), progress:
        for counts, crops in iterate_crops(dataset, batch_size, n_jobs):
            parts = [
                _describe(network, part.to(device, non_blocking=True), dtype, output)
                for part in crops.split(batch_size)
            ]
            features = np.concatenate([features for features, _ in parts])
            scores = None if parts[0][1] is None else np.concatenate([rank for _, rank in parts])
            cuts = np.cumsum(counts)[:-1]
            ranks = [None] * len(counts) if scores is None else np.split(scores, cuts)
            for part, rank in zip(np.split(features, cuts), ranks, strict=True):
                rows.append(pool_crops(part, pooling, rank))
            progress.update(len(counts))
    return _check_finite(np.stack(rows))


def score_crops(
    network: Backbone, crops: torch.Tensor, dtype: torch.dtype, batch_size: int
) -> np.ndarray:
    """Return the log-odds that each crop, uint8 (n, 3, size, size), is not real, float32 (n,).

    The network was fine-tuned and is on the device where it is to run.
    """
    network.eval()
    place = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for part in crops.split(batch_size):
            with autocast(place, dtype):
                embeddings = network(part.to(place))
            found.append(network.fake_score(embeddings).cpu().numpy())
    return np.concatenate(found)


def _describe(
    network: Backbone, crops: torch.Tensor, dtype: torch.dtype, output: str
) -> tuple[np.ndarray, np.ndarray | None]:
    with autocast(crops.device, dtype):
        embeddings = network(crops)
    scores = None if network.classifier is None else network.fake_score(embeddings).cpu().numpy()
    features = embeddings if output == "embedding" else network.class_scores(embeddings.float())
    return features.float().cpu().numpy(), scores


def _check_finite(embeddings: np.ndarray) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} embedding(s) hold NaN or infinity, the first of image {bad[0]}. "
            "The network has diverged or overflowed: lower learning_rate or use "
            "precision='float32'."
        )
    return embeddings


def _spread(free: int, n: int) -> list[int]:
    if n == 1:
        return [free // 2]
    return [round(free * i / (n - 1)) for i in range(n)]
