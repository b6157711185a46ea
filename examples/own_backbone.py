"""Use a network of your own as the embedder, and cross-validate it by source.

Run it as ``python examples/own_backbone.py photos``.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from sklearn.model_selection import GroupKFold, cross_validate
from torch import nn

from cnnsvm import CNNEmbedder, FineTuning, InpaintDetector, TunedSVC
from cnnsvm.generation import build


def make_network() -> nn.Module:
    """Three convolutions: from float (N, 3, H, W) to a map (N, 32, h, w), which is averaged."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers)


def evaluate(manifest: pd.DataFrame) -> float:
    """Return the mean ROC AUC over two folds, with no source in both."""
    detector = InpaintDetector(
        CNNEmbedder(
            make_network(),
            weights=None,
            finetune=FineTuning("full", epochs=2),
            crop_size=64,
        ),
        TunedSVC(kernel="linear", n_trials=5),
        random_state=0,
    )
    found = cross_validate(
        detector,
        manifest["path"].to_numpy(),
        manifest["label"].to_numpy(),
        groups=manifest["source_id"],
        cv=GroupKFold(2),
        params={"groups": manifest["source_id"]},  # for the folds inside `fit`
        scoring="roc_auc",
    )
    return float(found["test_score"].mean())


def main(photos: Path) -> None:
    """Make fakes of ``photos`` and say how well the network tells them apart."""
    with TemporaryDirectory() as work:
        manifest = build(photos, work, engine="opencv-telea", schemas=["rectangles"])
        print(f"ROC AUC {evaluate(manifest):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
