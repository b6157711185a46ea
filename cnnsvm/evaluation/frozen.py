"""A network that is not trained sees an image alike in every fold: once is enough."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnsvm.detection.fitting import build_network, embedding_of
from cnnsvm.detection.saved_networks import is_saved_network
from cnnsvm.features.cache import fit_embeddings, task_folder

logger = logging.getLogger(__name__)


def embed_frozen(
    detector: Any, paths: Sequence[str], folder: Path | None = None
) -> np.ndarray | None:
    """Embed all images of a cross-validation, if no fold trains the network.

    Parameters
    ----------
    detector : InpaintDetector
        Unfitted.
    paths : sequence of str
    folder : path or None
        Keeps the embeddings, named by network, settings and the content of the images.

    Returns
    -------
    ndarray of float32, shape (n_images, n_embedding), or None
        None unless the network is that of a saved detector, frozen, and sees images as they are.

    Raises
    ------
    ImageError
        If an image cannot be read.
    """
    is_frozen = getattr(detector, "finetune", None) == "none"
    if not is_frozen or detector.n_views is not None or not is_saved_network(detector.weights):
        return None
    network, embedding = build_network(detector, 0), embedding_of(detector)
    codes = np.zeros(len(paths), dtype=int)
    place = task_folder(folder, network, paths, codes, None, ["frozen", embedding])

    def embed() -> np.ndarray:
        logger.info("embedding %d images once for all folds", len(paths))
        return embedding(network, paths)

    return fit_embeddings(embed, place)
