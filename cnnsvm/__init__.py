"""Detect inpainted images with a CNN backbone and a tuned support vector machine.

``from cnnsvm import InpaintDetector`` is the whole interface that most programs need.
Importing this package is cheap: torch and its companions load when a name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsvm.detection.combined import CombinedDetector
    from cnnsvm.detection.detector import InpaintDetector
    from cnnsvm.detection.region import RegionDetector
    from cnnsvm.features.cnn_embedder import CNNEmbedder
    from cnnsvm.features.residual_statistics import ResidualStatistics
    from cnnsvm.features.tuning import FineTuning
    from cnnsvm.localization.localizer import InpaintLocalizer
    from cnnsvm.localization.training import LocalizerTraining
    from cnnsvm.svm import TunedSVC

__version__ = "0.2.0.dev0"
__all__ = [
    "CNNEmbedder",
    "CombinedDetector",
    "FineTuning",
    "InpaintDetector",
    "InpaintLocalizer",
    "LocalizerTraining",
    "RegionDetector",
    "ResidualStatistics",
    "TunedSVC",
    "__version__",
]

_HOMES = {
    "CNNEmbedder": "cnnsvm.features.cnn_embedder",
    "CombinedDetector": "cnnsvm.detection.combined",
    "FineTuning": "cnnsvm.features.tuning",
    "InpaintDetector": "cnnsvm.detection.detector",
    "InpaintLocalizer": "cnnsvm.localization.localizer",
    "LocalizerTraining": "cnnsvm.localization.training",
    "RegionDetector": "cnnsvm.detection.region",
    "ResidualStatistics": "cnnsvm.features.residual_statistics",
    "TunedSVC": "cnnsvm.svm",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
