"""Judged images as thumbnails: where a reader sees what the numbers hide."""

import io
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.report.markup import Html, element, image, join, paragraph
from cnnsvm.report.wording import format_number

logger = logging.getLogger(__name__)

Loader = Callable[[str], np.ndarray]

SIDE = 160
SHOWN = 8
SAMPLED = 12


def worst_mistakes(predictions: pd.DataFrame, shown: int = SHOWN) -> dict[str, pd.DataFrame]:
    """Pick the mistakes that the detector was surest of.

    Parameters
    ----------
    predictions : DataFrame
        With ``label``, ``prediction`` and ``probability``.
    shown : int
        Most rows of each kind.

    Returns
    -------
    dict of str to DataFrame
        ``false_alarms``, reals called fake from the highest probability down, and ``misses``,
        fakes called real from the lowest up.
    """
    ranked = predictions.sort_values("probability", kind="stable")
    called, label = ranked["prediction"], ranked["label"]
    return {
        "false_alarms": ranked[(label == 0) & (called == 1)].iloc[::-1].head(shown),
        "misses": ranked[(label == 1) & (called == 0)].head(shown),
    }


def thumbnail(path: str, loader: Loader = load_image) -> bytes | None:
    """Shrink an image to at most 160 by 160 pixels and encode it as JPEG.

    Parameters
    ----------
    path : str
    loader : callable
        Returns uint8 pixels of shape (H, W, 3).

    Returns
    -------
    bytes or None
        None, with a warning in the log, if the image cannot be read.
    """
    try:
        picture = Image.fromarray(loader(path))
    except (OSError, ValueError) as error:
        logger.warning("No thumbnail: %s", error)
        return None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def mistakes_html(predictions: pd.DataFrame, loader: Loader = load_image) -> Html:
    """Show both kinds of mistake side by side.

    Parameters
    ----------
    predictions : DataFrame
        With ``path``, ``label``, ``prediction``, ``probability``, ``mask_schema``, ``variant``
        and ``engine``.
    loader : callable
        As in :func:`thumbnail`.

    Returns
    -------
    Html
    """
    worst = worst_mistakes(predictions)
    totals = {
        "false_alarms": int(((predictions["label"] == 0) & (predictions["prediction"] == 1)).sum()),
        "misses": int(((predictions["label"] == 1) & (predictions["prediction"] == 0)).sum()),
    }
    titles = {
        "false_alarms": "False alarms: real, called fake",
        "misses": "Misses: fake, called real",
    }
    return join(
        part
        for kind, title in titles.items()
        for part in (
            element("h3", title),
            paragraph(_how_many(len(worst[kind]), totals[kind]), class_="soft"),
            _gallery(worst[kind], loader),
        )
    )


def sample_html(predictions: pd.DataFrame, loader: Loader = load_image) -> Html:
    """Show images drawn at random, with what they are and what they were called.

    Parameters
    ----------
    predictions, loader
        As for :func:`mistakes_html`.

    Returns
    -------
    Html
    """
    drawn = predictions.sample(min(SAMPLED, len(predictions)), random_state=0)
    return _gallery(drawn, loader)


def _how_many(shown: int, total: int) -> str:
    if not total:
        return "None."
    return f"All {total}." if shown == total else f"The {shown} surest of {total}."


def _gallery(rows: pd.DataFrame, loader: Loader) -> Html:
    if rows.empty:
        return Html("")
    return element("div", *(_card(row, loader) for row in rows.to_dict("records")), class_="thumbs")


def _card(row: dict[Any, Any], loader: Loader) -> Html:
    truth = "real" if row["label"] == 0 else "fake"
    chance = format_number(row["probability"])
    data = thumbnail(row["path"], loader)
    picture = (
        element("div", f"{truth} image that could not be read", class_="missing")
        if data is None
        else image(data, "jpeg", f"{truth} image, given the probability {chance} of being fake")
    )
    kinds = [row.get(name) for name in ("mask_schema", "variant", "engine")]
    made = ", ".join(str(kind) for kind in kinds if isinstance(kind, str) and kind)
    called = "fake" if row["prediction"] == 1 else "real"
    lines = [
        element("b", f"probability {chance}"),
        element("div", f"{truth}, called {called}"),
        element("div", made),
        element("code", row["path"]),
    ]
    return element("figure", picture, element("figcaption", *lines))
