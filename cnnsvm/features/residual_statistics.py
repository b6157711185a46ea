"""ResidualStatistics: images as statistics of their high-pass residuals."""

import os
from typing import Any, ClassVar

import numpy as np

from cnnsvm.features.backbones import Backbone, build_statistics
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.features.saved import is_saved_network
from cnnsvm.features.tuning import FineTuning


class ResidualStatistics(CropEmbedder):
    """Embed images by the statistics of their high-pass residuals.

    Co-occurrences of quantised residuals, a coarse log-spectrum and the correlation of the colour
    channels (`cnnsvm.features.statistics`), as they are or through two layers that are trained on
    ``epochs`` rounds of crops.

    Parameters
    ----------
    weights : None, "cnnsvm" or path, default=None
        A saved detector whose layers are taken; None starts anew.
    finetune : {"none", "full"} or FineTuning, default="full"
        Give the statistics as they are, or train two layers on them.
    crop_size, n_crops, mirror, pooling, output, batch_size, device, gpu_memory_fraction, n_jobs, \
cache_dir, random_state
        As for `CNNEmbedder`.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        name: rule
        for name, rule in CropEmbedder._parameter_constraints.items()
        if name not in ("resize", "precision", "backend")
    }
    precision = "float32"
    backend = "torch"

    def __init__(
        self,
        *,
        weights: str | os.PathLike[str] | None = None,
        finetune: str | FineTuning = "full",
        crop_size: int = 128,
        n_crops: int | None = 4,
        mirror: bool = False,
        pooling: str = "mean_std",
        output: str = "embedding",
        batch_size: int = 16,
        device: str = "auto",
        gpu_memory_fraction: float | None = None,
        n_jobs: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.weights = weights
        self.finetune = finetune
        self.crop_size = crop_size
        self.n_crops = n_crops
        self.mirror = mirror
        self.pooling = pooling
        self.output = output
        self.batch_size = batch_size
        self.device = device
        self.gpu_memory_fraction = gpu_memory_fraction
        self.n_jobs = n_jobs
        self.cache_dir = cache_dir
        self.random_state = random_state

    def check_params(self) -> None:
        """Check the parameters alone and against each other (`ValueError`)."""
        super().check_params()
        if self.weights is not None and not is_saved_network(self.weights):
            raise ValueError(
                f"weights={self.weights!r} is no saved detector, which is where layers on residual "
                "statistics come from. Use None to start anew."
            )

    def _new_network(self, seed: int, tuning: FineTuning | None) -> Backbone:
        return build_statistics(tuning is not None, seed)

    def empty_network(self, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Backbone:
        """Build a network of the architecture that `cnnsvm.features.state.to_state` described."""
        return build_statistics(any(name.startswith("branch.") for name in arrays))
