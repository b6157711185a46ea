"""Patches of a transformer: how they are embedded, and a linear machine that learns from them."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from cnnsvm.features.backends import run
from cnnsvm.features.cnn_embedder import CNNEmbedder
from cnnsvm.features.devices import choose_device, choose_precision
from cnnsvm.features.reading import resize

#: Share of a patch's pixels that were repainted, above and below which it is learnt from.
REPAINTED, UNTOUCHED = 0.8, 0.02
#: Patches of one image and kind that are learnt from, at most.
MOST_PATCHES = 24
#: Share of the patches, those that look the most repainted, whose mean is an image's score.
TOP_SHARE = 0.1

#: Patches of an image, (n, d), and whether they were repainted, bool (n,).
Learnt = tuple[np.ndarray, np.ndarray]


def embed_patches(
    embedder: CNNEmbedder, pixels: np.ndarray, n_tiles: int, layer: int
) -> np.ndarray:
    """Embed the patches of pixels, uint8 (H, W, 3), float32 (n_rows, n_columns, n_features).

    They are resized to ``n_tiles`` tiles a side, each as large as a crop of the fitted embedder.
    """
    size = int(embedder.crop_size)
    square = resize(pixels, (n_tiles * size, n_tiles * size))
    tiles = square.reshape(n_tiles, size, n_tiles, size, 3).swapaxes(1, 2)
    batch = torch.from_numpy(tiles.reshape(-1, size, size, 3).transpose(0, 3, 1, 2).copy())
    device = choose_device(embedder.device, embedder.gpu_memory_fraction)
    network = embedder.network_.to(device).eval()
    dtype = choose_precision(embedder.precision, device)
    backend = embedder.choose_way(network).backend
    with torch.inference_mode():
        found = run(network, batch.to(device), dtype, backend, layer)
    network.cpu()
    rows = found.cpu().numpy()  # (n_tiles ** 2, h, w, d)
    _, height, width, dim = rows.shape
    rows = rows.reshape(n_tiles, n_tiles, height, width, dim).swapaxes(1, 2)
    return rows.reshape(n_tiles * height, n_tiles * width, dim)


def fit_machine(C: float, learnt: Sequence[Learnt]) -> tuple[np.ndarray, float]:
    """Fit a linear machine, and return what it multiplies patches by, and adds."""
    from sklearn.preprocessing import StandardScaler  # half a second
    from sklearn.svm import LinearSVC

    rows, targets = (np.concatenate(part) for part in zip(*learnt, strict=True))
    scaler = StandardScaler().fit(rows)
    machine = LinearSVC(C=C, dual=False, class_weight="balanced")
    machine.fit(scaler.transform(rows), targets)
    coef = machine.coef_[0] / scaler.scale_
    return coef, float(machine.intercept_[0] - scaler.mean_ @ coef)


def out_of_fold(
    C: float,
    tokens: list[np.ndarray],
    learnt: list[Learnt],
    fake: np.ndarray,
    half: np.ndarray,
    engines: np.ndarray,
) -> np.ndarray:
    """Score each image by a machine of the other half of the sources and other engines."""
    names = np.unique(engines[fake])
    found = np.zeros((len(tokens), len(names)))
    for part in (0, 1):
        seen = [(half != part) & ~(fake & (engines == name)) for name in names]
        machines = [fit_machine(C, [learnt[i] for i in np.flatnonzero(s)]) for s in seen]
        coef, intercept = (np.stack(each, axis=-1) for each in zip(*machines, strict=True))
        for i in np.flatnonzero(half == part):
            margins = beside_rest(tokens[i]) @ coef + intercept
            found[i] = [score_of(margins[..., k]) for k in range(len(names))]
    own = np.searchsorted(names, np.where(fake, engines, names[0]))
    return np.where(fake, found[np.arange(len(found)), own], found.mean(axis=1))


def beside_rest(tokens: np.ndarray) -> np.ndarray:
    """Put what is unlike the rest of the image beside each patch: itself less the median."""
    own = tokens.astype(np.float32)
    return np.concatenate([own, own - np.median(own, axis=(0, 1))], axis=-1)


def patches_to_learn(
    tokens: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator
) -> Learnt:
    """Draw patches of an image and whether they were repainted; None is an untouched one."""
    whole = beside_rest(tokens)
    rows = whole.reshape(-1, whole.shape[-1])
    if mask is None:
        chosen = rng.permutation(len(rows))[: MOST_PATCHES // 2]
        return rows[chosen], np.zeros(len(chosen), dtype=bool)
    share = cv2.resize(
        mask.astype(np.float32), tokens.shape[1::-1], interpolation=cv2.INTER_AREA
    ).ravel()
    kinds = [np.flatnonzero(share > REPAINTED), np.flatnonzero(share < UNTOUCHED)]
    parts = [rng.permutation(kind)[:MOST_PATCHES] for kind in kinds]
    return rows[np.concatenate(parts)], np.repeat([True, False], [len(part) for part in parts])


def score_of(margins: np.ndarray) -> float:
    """Score an image by the margins of its patches: the mean of the highest ones."""
    smooth = cv2.blur(margins.astype(np.float64), (3, 3), borderType=cv2.BORDER_REPLICATE)
    n_top = max(1, round(TOP_SHARE * smooth.size))
    return float(np.sort(smooth.ravel())[-n_top:].mean())
