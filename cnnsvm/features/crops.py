"""Native-resolution crops: how images of any size become batches, and then one embedding each.

The traces of inpainting lie in the highest frequencies and a resize removes them, so a large image
is seen through several crops and a small one is wrapped round.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from cnnsvm.features.backbones import Backbone
from cnnsvm.features.backends import run

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
#: Pixels that the crops of one image have together, where all were asked for.
MOST_CROPPED = 105_000_000
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
    hardly larger than a crop; None takes as many as show every pixel, or of an image of more than
    `MOST_CROPPED` pixels as many as have so many.
    """
    free_y, free_x = height - size, width - size
    if free_y < 0 or free_x < 0:
        raise ValueError(
            f"a {size}-pixel crop does not fit {width}x{height}; wrap the image first."
        )
    if n_crops is None and height * width > MOST_CROPPED:
        n_crops = max(1, MOST_CROPPED // size**2)
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
    height: int, width: int, size: int, stride: int, most: int = MAX_WINDOWS
) -> tuple[list[int], list[int]]:
    """Spread windows over an image so that they show every pixel.

    They lie ``stride`` pixels apart at most, up to side by side where they would be more than
    ``most``. Returns tops and lefts, both from 0 to the last place where a window fits; the
    windows are their product.
    """
    while True:
        counts = [-(-(side - size) // stride) + 1 for side in (height, width)]
        if counts[0] * counts[1] <= most or stride >= size:
            break
        stride = min(size, stride * 2)
    tops, lefts = (
        _spread(side - size, count) for side, count in zip((height, width), counts, strict=True)
    )
    return tops, lefts


def covered_share(height: int, width: int, size: int, n_crops: int | None) -> float:
    """Return the share of the pixels of an image that its crops show, in (0, 1]."""
    if n_crops is None and height * width <= MOST_CROPPED:
        return 1.0
    seen = np.zeros((height, width), dtype=bool)
    for top, left in crop_positions(max(height, size), max(width, size), size, n_crops):
        seen[top : top + size, left : left + size] = True
    return float(seen.mean())


def cut_crops(
    image: np.ndarray, size: int, n_crops: int | None, mirror: bool = False
) -> Iterator[np.ndarray]:
    """Cut the deterministic crops that an image, uint8 (H, W, 3), is judged by, one at a time.

    They are those of `crop_positions`, uint8 (size, size, 3), parts of the image's own memory; with
    ``mirror`` the mirror image of each crop stands behind them.
    """
    large = wrap_to(image, size)
    positions = crop_positions(large.shape[0], large.shape[1], size, n_crops)
    for step in (1, -1)[: 1 + mirror]:
        for top, left in positions:
            yield large[top : top + size, left : left + size][:, ::step]


def fixed_crops(
    image: np.ndarray, size: int, n_crops: int | None, mirror: bool = False
) -> np.ndarray:
    """Return the crops of `cut_crops` as one array, uint8 (k, size, size, 3)."""
    return np.stack(list(cut_crops(image, size, n_crops, mirror)))


def batches(
    crops: Iterable[Iterable[np.ndarray]], batch_size: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (number of the image of each crop, crops) for ``batch_size`` crops at a time.

    ``crops`` are of one image after the other, uint8 (size, size, 3) each; a batch holds those of
    several images, or a part of one.
    """
    owners: list[int] = []
    held: list[np.ndarray] = []
    for number, of_image in enumerate(crops):
        for crop in of_image:
            owners.append(number)
            held.append(crop)
            if len(held) == batch_size:
                yield owners, to_tensor(np.stack(held))
                owners, held = [], []
    if held:
        yield owners, to_tensor(np.stack(held))


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
    crops: Iterable[Iterable[np.ndarray]],
    *,
    pooling: str = "mean",
    batch_size: int = 8,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    output: str = "embedding",
    backend: str = "torch",
) -> np.ndarray:
    """Embed images in their order, float32 (n_images, d * number of parts).

    ``crops`` are as for `batches`. The network runs in evaluation mode on ``device``, in the
    precision ``dtype``, by ``backend`` (see `cnnsvm.features.backends.run`), on ``batch_size``
    crops at a time. For ``pooling`` see `pool_crops`; ``output`` is one of `OUTPUTS`, of which
    "scores" needs a network that was fine-tuned. An ImageError says that an image cannot be read, a
    ValueError that an embedding is not finite.
    """
    network.to(device).eval()
    rows: list[np.ndarray] = []
    of_image: list[tuple[np.ndarray, float | None]] = []  # whose crops are not all seen

    def pool() -> None:
        features, scores = zip(*of_image, strict=True)
        ranks = None if scores[0] is None else np.array(scores)
        rows.append(pool_crops(np.stack(features), pooling, ranks))
        of_image.clear()

    with torch.inference_mode():
        for owners, batch in batches(crops, batch_size):
            embeddings = run(network, batch.to(device), dtype, backend)
            features, scores = _describe(network, embeddings, output)
            ranks = [None] * len(owners) if scores is None else scores
            for owner, feature, rank in zip(owners, features, ranks, strict=True):
                if owner > len(rows):
                    pool()
                of_image.append((feature, rank))
    pool()
    return _check_finite(np.stack(rows))


def score_crops(
    network: Backbone,
    crops: torch.Tensor,
    dtype: torch.dtype,
    batch_size: int,
    backend: str = "torch",
) -> np.ndarray:
    """Return the log-odds that each crop, uint8 (n, 3, size, size), is not real, float32 (n,).

    The network was fine-tuned and is on the device where it is to run.
    """
    network.eval()
    place = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for part in crops.split(batch_size):
            embeddings = run(network, part.to(place), dtype, backend)
            found.append(network.fake_score(embeddings).cpu().numpy())
    return np.concatenate(found)


def _describe(
    network: Backbone, embeddings: torch.Tensor, output: str
) -> tuple[np.ndarray, np.ndarray | None]:
    scores = None if network.classifier is None else network.fake_score(embeddings).cpu().numpy()
    features = embeddings if output == "embedding" else network.class_scores(embeddings)
    return features.cpu().numpy(), scores


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
