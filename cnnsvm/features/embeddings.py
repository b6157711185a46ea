"""One embedding an image: its crops through the network, pooled."""

import sys

import numpy as np
import torch
from tqdm import tqdm

from cnnsvm.features.backbones import Backbone
from cnnsvm.features.crops import CropDataset, iterate_crops
from cnnsvm.features.devices import autocast

#: Pooling -> the parts that are put one after the other.
POOLINGS = {
    "mean": ("mean",),
    "mean_max": ("mean", "max"),
    "mean_std": ("mean", "std"),
    "mean_top": ("mean", "top"),
    "mean_std_top": ("mean", "std", "top"),
}
#: The embedding of a crop itself, or what the classifier that fine-tuning trained says of each
#: class (stacked generalization: Wolpert, Neural Networks 5, 1992).
OUTPUTS = ("embedding", "scores")
#: Share of an image's crops that "top" takes, at least one.
TOP_SHARE = 0.25


def pool_crops(crops: np.ndarray, pooling: str, scores: np.ndarray | None = None) -> np.ndarray:
    """Pool the embeddings of one image's crops.

    A half-repainted image has crops of both kinds, which the mean alone blurs.

    Parameters
    ----------
    crops : ndarray of float32, shape (k, d)
    pooling : str
        A key of `POOLINGS`: the mean, the largest value, the standard deviation over the crops,
        and "top", the mean of the quarter of the crops with the highest scores.
    scores : ndarray of float32, shape (k,), or None
        How fake each crop looks; "top" needs it.

    Returns
    -------
    ndarray of float32, shape (d * number of parts,)
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
    parts = []
    for part in POOLINGS[pooling]:
        if part != "top":
            parts.append(getattr(crops, part)(axis=0))
        elif scores is None:
            raise ValueError(
                f"pooling={pooling!r} ranks crops by a fine-tuned classifier. Use finetune='full' "
                "or 'head', or another pooling."
            )
        else:
            n_top = max(1, round(TOP_SHARE * len(crops)))
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
    """Embed images in their order.

    Parameters
    ----------
    network : Backbone
        It is run in evaluation mode.
    dataset : CropDataset
        Item i: the crops of image i, uint8 (k, 3, size, size).
    pooling : str
        See `pool_crops`.
    batch_size : int
        Crops in one forward pass.
    device : torch.device
    dtype : torch.dtype
        Precision of the forward pass.
    n_jobs : int
        Processes that decode images; 0 decodes in this one.
    output : str
        One of `OUTPUTS`; "scores" needs a network that was fine-tuned.
    label : str
        What the progress bar says.

    Returns
    -------
    ndarray of float32, shape (len(dataset), d * number of parts)

    Raises
    ------
    ImageError
        If an image cannot be read.
    ValueError
        If an embedding is not finite.
    """
    network.to(device).eval()
    rows = []
    total = len(dataset)
    progress = tqdm(total=total, desc=label, unit="image", disable=not sys.stderr.isatty())
    with torch.inference_mode(), progress:
        for counts, crops in iterate_crops(dataset, batch_size, n_jobs):
            placed = crops.to(device, non_blocking=True)
            features, scores = _describe(network, placed, dtype, output)
            cuts = np.cumsum(counts)[:-1]
            ranks = [None] * len(counts) if scores is None else np.split(scores, cuts)
            for part, rank in zip(np.split(features, cuts), ranks, strict=True):
                rows.append(pool_crops(part, pooling, rank))
            progress.update(len(counts))
    return _check_finite(np.stack(rows))


def score_crops(
    network: Backbone, crops: torch.Tensor, dtype: torch.dtype, batch_size: int
) -> np.ndarray:
    """Return the log-odds that each crop is not of the real class, float32 (n,).

    Parameters
    ----------
    network : Backbone
        Fine-tuned, on the device where it is to run.
    crops : uint8 tensor, shape (n, 3, size, size)
    dtype : torch.dtype
    batch_size : int
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
