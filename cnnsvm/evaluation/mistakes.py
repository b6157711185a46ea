"""The most confident mistakes, and where the network that made them saw something."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import load_image
from cnnsvm.detection.heatmap import explaining, heatmap

#: Most pixels a side of a stored heatmap; no report shows images larger.
SIDE = 160
_WINDOWS = 256  # of a heatmap, for so small a one


def worst_mistakes(predictions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """List reals called fake and fakes called real, the most confident first, by title."""
    ranked = predictions.sort_values("probability", kind="stable")
    called, label = ranked["prediction"], ranked["label"]
    return {
        "False alarms: real, called fake": ranked[(label == 0) & (called == 1)].iloc[::-1],
        "Misses: fake, called real": ranked[(label == 1) & (called == 0)],
    }


def explain_mistakes(embedders: Sequence[Any], judged: pd.DataFrame, n: int) -> dict[str, str]:
    """Make heatmaps of the ``n`` most confident mistakes of both kinds, one a source.

    ``judged`` has the columns of `CrossValidation.predictions`. Returns PNGs in base64, for JSON,
    by path: uint8, upright, of at most `SIDE` pixels a side. There are none if no embedder was
    fine-tuned on native crops.
    """
    local = explaining(embedders)
    if not local:
        return {}
    worst = [rows.drop_duplicates("source_id").head(n) for rows in worst_mistakes(judged).values()]
    paths = [str(path) for rows in worst for path in rows["path"]]
    return {
        path: _encoded(heatmap(local, load_image(path), max_windows=_WINDOWS)) for path in paths
    }


def read_heatmaps(stored: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read what `explain_mistakes` made: float32 (height, width) in [0, 1], by path."""
    loaded = {path: load_image(base64.b64decode(content)) for path, content in stored.items()}
    return {path: pixels[:, :, 0] / np.float32(255) for path, pixels in loaded.items()}


def _encoded(heat: np.ndarray) -> str:
    reduced = min(1.0, SIDE / max(heat.shape))
    size = [max(1, round(side * reduced)) for side in heat.shape[::-1]]
    small = np.rint(255 * cv2.resize(heat, size, interpolation=cv2.INTER_AREA)).astype(np.uint8)
    return base64.b64encode(encode_image(small, "PNG")).decode("ascii")
