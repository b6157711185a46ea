"""Negative controls: what a classifier achieves that cannot see inpainting.

Each is judged in the very folds of the detector. One that sees no pixels (headers, shuffled labels)
and is far from chance means that the data leak. One that sees pixels without their arrangement may
be above chance since engines change colours too: the detector must then beat it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils import gen_batches

from cnnsvm.data.images import FORMATS, load_image, read_header
from cnnsvm.data.splits import Fold
from cnnsvm.evaluation.bootstrap import bootstrap_metrics

_FORMATS = (*FORMATS, "MPO")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
WELL_ABOVE = 0.6

ABOVE_CHANCE = "above chance"
SLIGHTLY_ABOVE = "slightly above chance"
NEAR_CHANCE = "near chance"
BELOW_CHANCE = "below chance"


def metadata_features(path: str) -> np.ndarray:
    """Describe a file by its header alone, as a vector of numbers.

    Width, height, their ratio, format, pixel mode, JPEG quantisation and subsampling, and the
    number of EXIF and other header entries. The file's length is left to `file_size`.
    """
    header = read_header(path)
    size = [header.width, header.height, header.width / header.height]
    tables = header.quantization
    strengths = [float(np.mean(tables[k])) if k in tables else 0.0 for k in (0, 1)]
    sampling = [factor for factors in header.sampling[:3] for factor in factors]
    sampling += [0] * (6 - len(sampling))
    known = [header.format == name for name in _FORMATS] + [header.mode == m for m in _MODES]
    counts = [header.n_exif, len(header.entries)]
    return np.array([*size, *strengths, *sampling, *known, *counts], float)


def file_size(path: str) -> np.ndarray:
    """Return the bits a pixel of a file, shape (1,).

    In a lossless file they measure texture, which inpainting changes: above chance is no proof.
    """
    header = read_header(path)
    return np.array([8 * (header.n_bytes or 0) / (header.width * header.height)])


#: Pixels that are counted at once.
_AT_ONCE = 2**20


def colour_histogram(path: str) -> np.ndarray:
    """Return the shares of 4x4x4 joint and 3x16 marginal RGB bins, shape (112,)."""
    pixels = load_image(path).reshape(-1, 3)
    counts = np.zeros(64 + 3 * 16, dtype=np.int64)
    for rows in gen_batches(len(pixels), _AT_ONCE):  # counting takes 8 bytes a pixel and channel
        red, green, blue = (pixels[rows] >> 6).T
        counts[:64] += np.bincount(16 * red + 4 * green + blue, minlength=64)
        for c in range(3):
            counts[64 + 16 * c :][:16] += np.bincount(pixels[rows, c] >> 4, minlength=16)
    return counts / len(pixels)


#: Controls for which above chance can only mean a leak; the others see something of the pixels.
BLIND = ("metadata", "shuffled_labels")
#: Name -> (features of one file, what it means).
PROBES: dict[str, tuple[Callable[[str], np.ndarray], str]] = {
    "metadata": (
        metadata_features,
        "size, format, pixel mode, JPEG tables and header entries; no pixels and no file length",
    ),
    "file_size": (
        file_size,
        "bits a pixel of the file; in lossless files a measure of texture, which engines smooth",
    ),
    "colour_histogram": (
        colour_histogram,
        "how often each colour occurs, without where; engines shift and flatten colours",
    ),
}
SHUFFLED = (
    "the whole pipeline again on permuted labels; somewhat below 0.5 is usual, since what chance "
    "gives the training part it takes from the test part"
)


def run_probe(
    features: np.ndarray, labels: np.ndarray, folds: Sequence[Fold], random_state: int = 0
) -> np.ndarray:
    """Judge every image by a random forest that was fitted on the other folds.

    ``features`` are float (n_images, n_features), ``labels`` 0 or 1, ``folds`` the detector's outer
    ones. Returns the probability of fake, float (n_images,), classes weighted equally.
    """
    probability = np.zeros(len(labels))
    for train, test in folds:
        forest = RandomForestClassifier(
            200, min_samples_leaf=3, class_weight="balanced", random_state=random_state
        )
        forest.fit(features[train], labels[train])
        probability[test] = forest.predict_proba(features[test])[:, 1]
    return probability


def run_controls(
    manifest: pd.DataFrame, folds: Sequence[Fold], random_state: int = 0
) -> dict[str, dict[str, Any]]:
    """Run the probes that look at files, histograms and headers only.

    Returns for each name ``roc_auc`` and ``balanced_accuracy`` with 95 % intervals, ``meaning`` and
    ``verdict``, of the images that a fold tests.
    """
    labels = manifest["label"].to_numpy(dtype=int)
    tested = np.sort(np.concatenate([test for _, test in folds]))
    results = {}
    for name, (describe, meaning) in PROBES.items():
        features = np.stack([describe(path) for path in manifest["path"]])
        probability = run_probe(features, labels, folds, random_state)
        judged = manifest[["source_id", "label"]].assign(
            probability=probability, prediction=(probability > 0.5).astype(int)
        )
        results[name] = summarise_control(judged.iloc[tested], meaning)
    return results


def summarise_control(judged: pd.DataFrame, meaning: str) -> dict[str, Any]:
    """Put a control's scores on images (columns of a prediction table) into a report entry."""
    metrics = bootstrap_metrics(judged)
    auc, accuracy = metrics["roc_auc"], metrics["balanced_accuracy"]
    entry = {"roc_auc": auc, "balanced_accuracy": accuracy}
    return entry | {"meaning": meaning, "verdict": verdict(auc)}


def verdict(auc: dict[str, float]) -> str:
    """Say what a control's ROC AUC, with its 95 % interval, means.

    Above chance if the interval lies above 0.5, and only slightly if the value is below 0.6.
    """
    if auc["low"] > 0.5:
        return ABOVE_CHANCE if auc["value"] >= WELL_ABOVE else SLIGHTLY_ABOVE
    return BELOW_CHANCE if auc["high"] < 0.5 else NEAR_CHANCE
