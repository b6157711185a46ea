"""What a fitted detector says of images, in one scale whatever its classes are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cnnsvm.detection.reject import UNSURE, of_unknown_size


def judge_images(detector: Any, images: Sequence[Any]) -> pd.DataFrame:
    """Score images in one pass; probability and prediction follow from the score exactly.

    Parameters
    ----------
    detector : InpaintDetector
        Fitted and calibrated. With two classes, the second is fake; with more, the first is real
        and all others are fake.
    images : sequence of images

    Returns
    -------
    DataFrame
        One row an image: score (log-odds of fake above the threshold's), probability (of fake),
        prediction (1 where the score is positive), and with more than two classes ``named`` (the
        most probable class) and ``confidence`` (its probability). Of a detector with
        ``max_error`` also ``verdict``: "original", "fake" (of any kind) or "unsure".
    """
    if len(detector.classes_) == 2:
        score = detector.decision_function(images)
        probability = expit(score + logit(detector.threshold_))
        fake = score > 0
        confidence = np.where(fake, probability, 1 - probability)
        judged = {"score": score, "probability": probability, "prediction": fake.astype(int)}
    else:
        probabilities = detector.predict_proba(images)
        score = -logit(np.clip(probabilities[:, 0], 1e-15, 1 - 1e-15))
        fake, confidence = probabilities.argmax(axis=1) > 0, probabilities.max(axis=1)
        judged = {
            "score": score,
            "probability": expit(score),
            "prediction": (score > 0).astype(int),
            "named": detector.classes_[probabilities.argmax(axis=1)],
            "confidence": confidence,
        }
    if getattr(detector, "max_error", None) is not None:  # a baseline has none
        said = np.where(fake, "fake", "original")
        sure = confidence > detector.confidence_
        if hasattr(detector, "min_side_"):
            sure &= ~of_unknown_size(detector, images)
        judged["verdict"] = np.where(sure, said, UNSURE)
    return pd.DataFrame(judged)


def check_calibrates(detector: Any) -> None:
    """Refuse a detector without probabilities (`ValueError`)."""
    if not detector.calibrate:
        raise ValueError(
            "a detector with calibrate=False gives no probabilities, so that what becomes of them "
            "cannot be measured. Fit it with calibrate=True."
        )


def check_target(manifest: pd.DataFrame, target: str) -> None:
    """Refuse a column to fit on whose first class is not that of the originals, and no other's.

    Raises
    ------
    ValueError
        If the column is missing or empty in a row, or its classes do not tell real from fake.
    """
    if target not in manifest:
        raise ValueError(
            f"target must name a column of the manifest, such as label or variant; got {target!r}."
        )
    if manifest[target].isna().any():
        raise ValueError(f"target={target!r} is empty in some rows; use label or variant.")
    real = manifest["variant"] == "original"
    first = min(manifest[target])
    if not ((manifest[target] == first) == real).all():
        raise ValueError(
            f"target={target!r} must put all originals, and nothing else, into the class that "
            f"sorts first, which is {first!r}. Use label or variant."
        )
