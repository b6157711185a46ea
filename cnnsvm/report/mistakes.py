"""The images of a report: the most confident mistakes, one a source, and a random sample."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from sklearn.base import clone

from cnnsvm.data.images import load_image
from cnnsvm.detection.heatmap import explaining, heatmap
from cnnsvm.evaluation.mistakes import SIDE, worst_mistakes
from cnnsvm.features.saved import is_saved_network
from cnnsvm.report.model import Exhibit, Gallery, Section, Thumbnail
from cnnsvm.report.overlay import blend
from cnnsvm.report.render import Loader, encode_jpeg
from cnnsvm.report.wording import common_folder, format_number

if TYPE_CHECKING:
    from cnnsvm import InpaintDetector

logger = logging.getLogger(__name__)

#: From a path to where that image looks repainted, upright: float32 of its shape, or of a smaller
#: one, in [0, 1]; None where that is not known.
Explainer = Callable[[str], np.ndarray | None]

KINDS = ("variant", "engine", "mask_schema")
_SHOWN, _SAMPLED = 8, 12  # images
_HEAT = (
    " Yellow is where a network that did not learn from the image sees the most of what it takes "
    "for repainting, violet the least."
)


def image_sections(
    predictions: pd.DataFrame,
    loader: Loader,
    thresholds: Mapping[Any, float | None],
    explain: Explainer | None = None,
) -> Iterable[Section]:
    """Show the most confident mistakes of both kinds, and images drawn at random.

    ``thresholds`` are those of the folds, by the fold's name. A mistake that ``explain`` knows has
    a heatmap beside it.
    """
    folder = common_folder(predictions["path"])

    def exhibit(
        row: Mapping[Any, Any], explain: Explainer | None = None, note: str = ""
    ) -> Exhibit:
        lines = [*_lines(row, thresholds.get(row.get("fold"))), note]
        path = str(row["path"]).removeprefix(folder)
        return Exhibit(_thumbnails(row, loader, explain), path, [line for line in lines if line])

    galleries = []
    for title, rows in worst_mistakes(predictions).items():
        worst = rows.drop_duplicates("source_id")
        others = rows["source_id"].value_counts() - 1
        shown = [
            exhibit(row, explain, f"and {n:,} more of this source" if n else "")
            for row in worst.head(_SHOWN).to_dict("records")
            for n in [others[row["source_id"]]]
        ]
        galleries.append(Gallery(shown, title, _counted(len(shown), len(worst), len(rows))))
    has_heat = {len(each.thumbnails) > 1 for gallery in galleries for each in gallery.exhibits}
    note = f"The worst of each source.{_HEAT if True in has_heat else ''}"
    note += " Only the surest of a fold have such a heatmap." if len(has_heat) == 2 else ""
    yield Section("Most confident mistakes", galleries, note)
    drawn = predictions.sample(min(_SAMPLED, len(predictions)), random_state=0)
    yield Section("A random sample", [Gallery([exhibit(row) for row in drawn.to_dict("records")])])


def frozen_explainer(detector: "InpaintDetector") -> Explainer | None:
    """Make heatmaps by the networks of an unfitted detector, if no fold trains them.

    None if it trains one, or none of them has a classifier: what explains must not have learnt from
    the images that it explains.
    """
    embedders = detector.embedders()
    frozen = [getattr(embedder, "finetune", None) == "none" for embedder in embedders]
    saved = [e for e in embedders if is_saved_network(getattr(e, "weights", None))]
    fitted = [clone(embedder).fit([]) for embedder in saved if all(frozen)]
    local = explaining(fitted)
    return (lambda path: heatmap(local, load_image(path))) if local else None


def _counted(n_shown: int, n_sources: int, n_mistakes: int) -> str:
    """Say how many mistakes there are, and of how many sources one is shown."""
    if n_mistakes == 0:
        return "None."
    which = f"all {n_sources}" if n_shown == n_sources else f"{n_shown} of {n_sources}"
    return f"{n_mistakes:,} in all; shown: {which} sources that have any."


def _lines(row: Mapping[Any, Any], threshold: float | None) -> list[str]:
    """Say what an image was given and by which threshold, what it is, and how it was made."""
    truth, called = ("fake" if row[name] == 1 else "real" for name in ("label", "prediction"))
    limit = "" if threshold is None else f", threshold {format_number(threshold)}"
    kinds = [row.get(name) for name in KINDS]
    made = ", ".join(str(kind) for kind in kinds if isinstance(kind, str) and kind)
    chance = f"probability {format_number(row['probability'])}{limit}"
    return [chance, f"{truth}, called {called}", made]


def _thumbnails(
    row: Mapping[Any, Any], loader: Loader, explain: Explainer | None
) -> list[Thumbnail]:
    """Show an image and its heatmap, if it has one; a placeholder if it cannot be read."""
    truth = "fake" if row["label"] == 1 else "real"
    alt = f"{truth} image, given the probability {format_number(row['probability'])} of being fake"
    try:
        pixels = loader(row["path"])
        shown = [Thumbnail(encode_jpeg(pixels, SIDE), alt)]
        heat = None if explain is None else explain(str(row["path"]))
        if heat is not None:
            drawn = blend(pixels, cv2.resize(heat, pixels.shape[1::-1]))
            shown.append(Thumbnail(encode_jpeg(drawn, SIDE), f"heatmap of this {alt}"))
        return shown
    except (OSError, ValueError) as error:
        logger.warning("No thumbnail: %s", error)
        return [Thumbnail(None, alt)]
