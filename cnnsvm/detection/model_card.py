"""The page that goes with a saved detector: what it is, was measured on and is not for.

Every number is handed in or read from the fitted detector. Where there is none, the card says so:
a reader must be able to tell "not measured" from "no problem found".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.features.cnn_embedder import CNNEmbedder
from cnnsvm.features.embedder import CropEmbedder
from cnnsvm.io.bundle import library_versions

if TYPE_CHECKING:
    from cnnsvm.detection.detector import InpaintDetector

TEMPLATE = Path(__file__).with_name("templates") / "model_card.md.j2"
TAGS = ("image-forensics", "inpainting-detection", "deepfake-detection", "svm")

Number = float | tuple[float, float, float]


@dataclass(frozen=True)
class Measured:
    """One set of images that a detector was tested on.

    Parameters
    ----------
    data : str
        What the images are and what happened to them.
    numbers : mapping of str to float, or to (value, low, high)
        Name of each metric -> its value, with its interval if there is one.
    n_images, n_sources : int or None

    Raises
    ------
    ValueError
        If a number is not finite or lies outside its interval.
    """

    data: str
    numbers: Mapping[str, Number]
    n_images: int | None = None
    n_sources: int | None = None

    def __post_init__(self) -> None:
        for name, number in self.numbers.items():
            parts = number if isinstance(number, tuple) else (number,)
            if len(parts) not in (1, 3) or not all(math.isfinite(part) for part in parts):
                raise ValueError(
                    f"{self.data}: {name} must be finite, a value or (value, low, high), got "
                    f"{number!r}. Leave out what was not measured."
                )
            if len(parts) == 3 and not parts[1] <= parts[0] <= parts[2]:
                raise ValueError(
                    f"{self.data}: {name} lies outside its interval, got {number!r}. The order is "
                    "(value, low, high)."
                )


@dataclass(frozen=True)
class CardFacts:
    """What a model card says beyond what the fitted detector knows of itself.

    Parameters
    ----------
    name : str
        Headline.
    summary : str
        One paragraph under it, Markdown.
    trained_on : sequence of str
        One line for each set of training images: origin, number, licence, engines, masks.
    tested_on : sequence of Measured
        Rows of the table of results.
    test_protocol : str
        How the images were kept apart from the training, what the intervals are.
    limits : sequence of str
        Further limits, such as where it is known to fail.
    command : str
        The command that makes the detector again.
    seed : int or None
        None takes the detector's ``random_state``.
    commit : str
        Of the code that made it.
    tags : sequence of str
        Further tags for the hub.
    """

    name: str = "cnnsvm detector of inpainted images"
    summary: str = ""
    trained_on: Sequence[str] = ()
    tested_on: Sequence[Measured] = ()
    test_protocol: str = ""
    limits: Sequence[str] = ()
    command: str = ""
    seed: int | None = None
    commit: str = ""
    tags: Sequence[str] = ()


def render_card(detector: "InpaintDetector", card: CardFacts | None = None) -> str:
    """Write the model card of a fitted detector in Markdown, with the header that the hub reads.

    Without ``card`` it describes the detector alone: all that was to be measured is "not measured".
    """
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    card = card or CardFacts()
    data = ModelCardData(
        license="bsd-3-clause",
        library_name="cnnsvm",
        pipeline_tag="image-classification",
        tags=list(dict.fromkeys((*TAGS, *card.tags))),
    )
    # Markdown, not HTML: what the facts say is shown as it is
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"oneline": _oneline, "cell": _cell, "count": _count, "number": _number}
    state = detector.random_state
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card=card,
        card_data=data.to_yaml(),
        how=_how(detector),
        classes=detector.classes_.tolist(),
        is_binary=_is_binary(detector),
        embedders=[_describe(embedder) for embedder in detector.embedder_],
        classifier=f"`{detector.classifier_!r}`, {detector.classifier_.n_features_in_} features",
        n_hashes=len(detector.trained_on_),
        metrics=list(dict.fromkeys(name for row in card.tested_on for name in row.numbers)),
        decision=_decision(detector),
        seed=card.seed if card.seed is not None else state if isinstance(state, int) else None,
        versions=", ".join(f"{name} {version}" for name, version in library_versions().items()),
    )


def _how(detector: "InpaintDetector") -> str:
    """Say in words what looks at the crops."""
    names = {
        True: "a network turns crops at native resolution into embeddings",
        False: "the residual statistics of crops are their embeddings",
    }
    kinds = dict.fromkeys(isinstance(e, CNNEmbedder) for e in detector.embedder_)
    return " and ".join(names[kind] for kind in kinds)


def _describe(embedder: Any) -> str:
    if not isinstance(embedder, CropEmbedder):
        return f"embedder: `{embedder!r}`"
    n_weights = sum(value.numel() for value in embedder.network_.parameters())
    what = "residual statistics"
    if isinstance(embedder, CNNEmbedder):
        stage = f", cut after `{embedder.truncate_at}`" if embedder.truncate_at else ""
        what = f"`{embedder.backbone}`{stage}, stem `{embedder.stem}`"
    resized = f"resized to a short side of {embedder.resize}" if embedder.resize else "not resized"
    number = "as many as show every pixel"
    if embedder.n_crops is not None:
        number = f"up to {embedder.n_crops} an image"
    return (
        f"embedder: {what}, {n_weights:,} weights, crops of {embedder.crop_size} pixels, {number}, "
        f"{resized}, pooling `{embedder.pooling}`"
    )


def _decision(detector: "InpaintDetector") -> str:
    first = "`predict` names the most probable class."
    if len(detector.classes_) == 2:
        high = detector.classes_.tolist()[1]
        label = "fake" if _is_binary(detector) else str(high)
        first = (
            f"`predict` says {label} if the probability of `{high}` is above "
            f"{detector.threshold_:.4g}."
        )
    if not hasattr(detector, "predict_proba"):
        return f"{first} This detector states no probabilities; the margin stands for them."
    if detector.max_error is None:
        return f"{first} `verdict` is never unsure: no rate of errors was asked for (max_error)."
    balanced = (
        " Probabilities are stated as if every class were equally frequent."
        if detector.n_views is not None
        else ""
    )
    return (
        f"{first} `verdict` says unsure unless the probability of the named class is above "
        f"{detector.rejection_threshold_:.4g}, chosen on out-of-fold scores of the training images "
        f"so that at most {detector.max_error:.3g} of the other verdicts are wrong. That share "
        f"holds for images like those of the training.{balanced}"
    )


def _is_binary(detector: "InpaintDetector") -> bool:
    return bool(detector.classes_.tolist() == [0, 1])


def _oneline(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _oneline(text).replace("|", "\\|")


def _count(number: int | None) -> str:
    return "not recorded" if number is None else f"{number:,}"


def _number(number: Number | None) -> str:
    if number is None:
        return "not measured"
    if isinstance(number, tuple):
        value, low, high = number
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{number:.3f} [n/a]"
