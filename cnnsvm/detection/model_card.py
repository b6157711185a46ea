"""The page that goes with a pretrained detector: what it is, was measured on and is not for.

Every number is handed in or read from the fitted detector. Where there is none, the card says so:
a reader must be able to tell "not measured" from "no problem found".
"""

import json
import math
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnsvm.detection.checks import PRECOMPUTED
from cnnsvm.detection.saved_networks import has_learnt_branch
from cnnsvm.features.backbones import STATISTICS
from cnnsvm.io.bundle import library_versions

#: What the card of a saved detector is called in its folder.
CARD = "README.md"
NOT_MEASURED = "not measured"
NOT_RECORDED = "not recorded"
AGAIN = "How to make it again"
TAGS = ("image-forensics", "inpainting-detection", "deepfake-detection", "svm")

Number = float | tuple[float, float, float]

#: What holds for every detector of this library; `ModelCard.limits` adds to it.
LIMITS = (
    "It knows the engines, masks and codecs that it was trained on. Fakes of another engine may "
    "pass as real, and nothing in its output says that they did.",
    "A picture that was recompressed hard, scaled down, screenshotted or filtered may have lost "
    "the trace; what is said of it then means little.",
    "Probabilities are calibrated for pictures like those of its training. Where fakes are rarer "
    "than there, they are too high; elsewhere they rank pictures at best.",
    "A heatmap shows where single crops look repainted. It is no segmentation, and its values "
    "are no probabilities.",
)
MISUSE = (
    "as the only evidence against a person: a verdict is a hint from one method, to be confirmed "
    "by others and judged by a human;",
    "as proof that a picture is authentic: absence of evidence is not evidence of authenticity;",
    "on pictures unlike the training data, such as another subject, camera, codec or size, "
    "without measuring it on labelled pictures of that kind first;",
    "on heavily recompressed or reduced pictures, such as thumbnails and messenger copies;",
    "to identify people, or to infer anything about who or what a picture shows.",
)


@dataclass(frozen=True)
class Measured:
    """One set of pictures that a detector was tested on.

    Parameters
    ----------
    data : str
        What the pictures are and what happened to them.
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
class ModelCard:
    """What a model card says beyond what the fitted detector knows of itself.

    Parameters
    ----------
    name : str
        Headline.
    summary : str
        One paragraph under it, Markdown.
    trained_on : sequence of str
        One line for each set of training pictures: origin, number, licence, engines, masks.
    tested_on : sequence of Measured
        Rows of the table of results.
    test_protocol : str
        How the pictures were kept apart from the training, what the intervals are.
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


def render_card(detector: Any, card: ModelCard | None = None) -> str:
    """Write a model card in Markdown, with the header that the Hugging Face hub reads.

    Parameters
    ----------
    detector : InpaintDetector
        Fitted.
    card : ModelCard, optional
        None describes the detector alone: all that was to be measured is "not measured".

    Returns
    -------
    str
        Ends in a line break.
    """
    card = card or ModelCard()
    sections = {
        "What it is": _what(detector, card),
        "How to use it": _usage(),
        "What it was trained on": _training(detector, card),
        "What it was tested on": _results(card),
        "When it says fake, and when unsure": _decision(detector),
        "Limits": _bullets((*LIMITS, *card.limits)),
        "What it must not be used for": _bullets(MISUSE),
        AGAIN: _origin(detector, card),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{_header(card)}\n\n# {card.name}\n\n{body}\n"


def _header(card: ModelCard) -> str:
    tags = dict.fromkeys((*TAGS, *card.tags))
    lines = ["license: bsd-3-clause", "library_name: cnnsvm", "pipeline_tag: image-classification"]
    # a JSON string is a YAML string too, whatever is in it
    return "\n".join(["---", *lines, "tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---"])


def _what(detector: Any, card: ModelCard) -> str:
    lines = [
        card.summary.strip() or _DEFAULT_SUMMARY.format(_how(detector)),
        "",
        *_describe(detector),
    ]
    return "\n".join(lines)


_DEFAULT_SUMMARY = (
    "Tells whether a picture, or a part of it, was repainted by a machine: {} crops at native "
    "resolution into an embedding, and a support vector machine classifies it."
)


def _how(detector: Any) -> str:
    """Say in words what looks at the crops."""
    network, beside = "a convolutional network turns", "residual statistics"
    if detector.backbone == STATISTICS:
        learnt = has_learnt_branch(detector.network_)
        return "a small network turns the residual statistics of" if learnt else f"{beside} turn"
    return f"{network[:-6]} and {beside} turn" if detector.statistics else network


def _describe(detector: Any) -> list[str]:
    names = ", ".join(f"`{label}`" for label in detector.classes_.tolist())
    lines = [f"- classes: {names}" + (" (0 real, 1 fake)" if _is_binary(detector) else "")]
    if detector.backbone != PRECOMPUTED:
        n_weights = sum(value.numel() for value in detector.network_.parameters())
        beside = [_shape(member.description["params"]) for member in detector.network_.members]
        shapes = ", beside it ".join([_shape(detector.get_params(deep=False)), *beside])
        lines += [
            f"- network: {shapes}, {n_weights:,} weights",
            f"- crops: up to {detector.n_crops} of {detector.crop_size} pixels an image, nothing "
            f"is resized, pooling `{detector.pooling}`",
        ]
    kernels = detector.kernel if isinstance(detector.kernel, str) else ", ".join(detector.kernel)
    lines.append(
        f"- support vector machine: kernel {kernels}, {detector.svm_.n_features_in_} features"
    )
    return lines


def _shape(params: Mapping[str, Any]) -> str:
    """Say which network the parameters of a detector describe."""
    stage = f", cut after `{params['truncate_at']}`" if params["truncate_at"] else ""
    return f"`{params['backbone']}`{stage}, stem `{params['stem']}`"


def _usage() -> str:
    return (
        "```python\nfrom cnnsvm import InpaintDetector\n\n"
        'detector = InpaintDetector.from_pretrained("FOLDER")\n'
        '# or from the hub: from_pretrained("owner/name", revision="COMMIT"),\n'
        '# or, if it ships with cnnsvm: from_pretrained(), from_pretrained("cifake")\n'
        'detector.predict_proba(["picture.png"])\n```\n\n'
        "Pin `revision` when you take it from the hub: the commit names the weights. Every file is "
        "checked against its SHA-256, and nothing in the folder can run code."
    )


def _training(detector: Any, card: ModelCard) -> str:
    text = _bullets(card.trained_on) or f"The training pictures are {NOT_RECORDED}."
    hashes = getattr(detector, "trained_on_", None)
    if hashes is None:
        return (
            f"{text}\n\nThe bundle carries no hashes of them: whether it has seen a picture cannot "
            "be checked."
        )
    return (
        f"{text}\n\nThe bundle carries {len(hashes):,} perceptual hashes of them. Ask "
        "`cnnsvm.detection.pretrained.find_training_images` before you measure anything: a number "
        "on "
        "pictures that it has seen is not a result."
    )


def _results(card: ModelCard) -> str:
    if not card.tested_on:
        return f"Accuracy, AUC, calibration and everything else: {NOT_MEASURED}."
    metrics = list(dict.fromkeys(name for row in card.tested_on for name in row.numbers))
    head = ["data", "images / sources", *metrics]
    rows = [head, ["---"] * len(head)]
    for row in card.tested_on:
        counts = f"{_count(row.n_images)} / {_count(row.n_sources)}"
        rows.append([row.data, counts, *(_number(row.numbers.get(name)) for name in metrics)])
    table = "\n".join("| " + " | ".join(_cell(cell) for cell in cells) + " |" for cells in rows)
    protocol = card.test_protocol.strip() or f"Test protocol: {NOT_RECORDED}."
    return f"{table}\n\n{protocol}\n\nWhat is not in this table is {NOT_MEASURED}."


def _decision(detector: Any) -> str:
    if len(detector.classes_) == 2:
        high = detector.classes_.tolist()[1]
        label = "fake" if _is_binary(detector) else str(high)
        first = (
            f"`predict` says {label} if the probability of `{high}` is above "
            f"{detector.threshold_:.4g}."
        )
    else:
        first = "`predict` names the most probable class."
    if not detector.calibrate:
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
        f"{detector.confidence_:.4g}, chosen on out-of-fold scores of the training pictures so "
        f"that at most {detector.max_error:.3g} of the other verdicts are wrong. That share holds "
        f"for pictures like those of the training.{balanced}"
    )


def _origin(detector: Any, card: ModelCard) -> str:
    state = detector.random_state
    seed = card.seed if card.seed is not None else state if isinstance(state, int) else None
    command = card.command.strip()
    shown = f"```\n{command}\n```" if command else f"Command: {NOT_RECORDED}."
    versions = ", ".join(f"{name} {version}" for name, version in library_versions().items())
    facts = (
        f"seed: {NOT_RECORDED if seed is None else seed}",
        f"commit: {card.commit.strip() or NOT_RECORDED}",
        f"saved with: {versions}",
    )
    return f"{shown}\n\n{_bullets(facts)}"


def _is_binary(detector: Any) -> bool:
    return bool(detector.classes_.tolist() == [0, 1])


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _count(number: int | None) -> str:
    return NOT_RECORDED if number is None else f"{number:,}"


def _number(number: Number | None) -> str:
    if number is None:
        return NOT_MEASURED
    if isinstance(number, tuple):
        value, low, high = number
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"
    return f"{number:.3f} [n/a]"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def find_command(folder: str | os.PathLike[str]) -> str:
    """Return the command that made a saved detector, as its card has it, "" if it has none."""
    card = Path(folder) / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = re.search(rf"^## {AGAIN}\n+```\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


def find_commit(folder: Path) -> str:
    """Return the commit that a folder is at, "" outside a repository or with git missing."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
