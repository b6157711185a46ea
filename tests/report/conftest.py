import numpy as np
import pandas as pd
import pytest

from cnnsvm.evaluation.bootstrap import bootstrap_metrics, metrics_by
from cnnsvm.evaluation.metrics import binary_metrics

KINDS = [
    ("original", None, None, 0),
    ("regenerated", "vae:a", "box", 1),
    ("spliced", "diffusion:some-community/some-very-long-inpainting-model", "irregular", 1),
]


@pytest.fixture(scope="session")
def predictions():
    """Scores of 12 sources with three images each, in three folds."""
    rng = np.random.default_rng(0)
    rows = [
        (f"{source}/{kind[0]}.png", f"s{source}", *kind, source % 3, rng.normal(2 * kind[3] - 1, 1))
        for source in range(12)
        for kind in KINDS
    ]
    columns = ["path", "source_id", "variant", "engine", "mask_schema", "label", "fold", "score"]
    table = pd.DataFrame(rows, columns=columns)
    chance = 1 / (1 + np.exp(-table["score"]))
    return table.assign(probability=chance, prediction=(table["score"] > 0).astype(int))


@pytest.fixture
def folds(predictions):
    return [
        {
            "fold": int(fold),
            "n_train": 24,
            "n_test": len(rows),
            "n_sources_train": 8,
            "n_sources_test": 4,
            "metrics": binary_metrics(rows["label"], rows["probability"], rows["prediction"]),
            "best_params": {"kernel": "rbf", "C": 1.5},
            "threshold": 0.25,
            "seconds": 75.0,
        }
        for fold, rows in predictions.groupby("fold")
    ]


@pytest.fixture
def result(predictions, folds):
    control = {"value": 0.51, "low": 0.44, "high": 0.58}
    return {
        "title": "A test",
        "command": "python experiments/cv.py --trials 3",
        "data": "twelve sources",
        "metrics": bootstrap_metrics(predictions, 50),
        "by_mask_schema": metrics_by(predictions, "mask_schema", 50),
        "by_variant": metrics_by(predictions, "variant", 50),
        "by_engine": metrics_by(predictions, "engine", 50),
        "controls": {
            "metadata": {
                "roc_auc": control,
                "balanced_accuracy": control,
                "meaning": "file size and format",
                "verdict": "near chance",
            }
        },
        "folds": folds,
        "n_images": 36,
        "n_sources": 12,
        "seconds": 3700.0,
        "environment": {"python": "3.11"},
        "settings": {"backbone": "resnet18", "kernels": ["linear", "rbf"]},
        "skipped": [{"path": "broken.png", "reason": "truncated"}],
        "warnings": ["the search ran out of time"],
    }


@pytest.fixture
def curves():
    history = [
        {"epoch": e, "train_loss": 1 / e, "valid_loss": 1.2 / e, "valid_auc": 1 - 0.4 / e}
        for e in (1, 2, 3)
    ]
    return [{"fold": 0, "best_epoch": 2, "history": history}]


@pytest.fixture
def loader():
    """Stand in for the files, which do not exist."""
    return lambda path: np.full((300, 200, 3), 90, dtype=np.uint8)
