import numpy as np
import pytest
import yaml

from cnnsvm import InpaintDetector
from cnnsvm.detection.model_card import MISUSE, Measured, ModelCard, find_command, render_card

FULL = ModelCard(
    name="A detector of VAE round trips",
    summary="Tells paintings from paintings that went through a VAE.",
    trained_on=("389 paintings (WikiArt, public domain), one VAE round trip each",),
    tested_on=(
        Measured("paintings", {"ROC AUC": (0.9684, 0.956, 0.978), "ECE": 0.036}, 780, 389),
        Measured("JPEG 90 | afterwards", {"ROC AUC": (0.943, 0.928, 0.958)}),
    ),
    test_protocol="Three folds by source; 95 % intervals over sources.",
    limits=("Pixel-space diffusion is not seen at all.",),
    command="cnnsvm fit paintings model --seed 7",
    seed=7,
    commit="0123abc",
    tags=("vae", 'od"d: #1'),
)


@pytest.fixture(scope="module")
def detector():
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    return InpaintDetector("precomputed", n_trials=1, max_error=0.4, random_state=5).fit(X, y)


def header(text):
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("card", [None, FULL])
def test_the_header_is_what_the_hub_reads(detector, card):
    head = header(render_card(detector, card))
    assert head["license"] == "bsd-3-clause"
    assert head["library_name"] == "cnnsvm"
    assert head["pipeline_tag"] == "image-classification"
    assert "inpainting-detection" in head["tags"]
    if card is not None:
        assert {"vae", 'od"d: #1'} <= set(head["tags"])


def test_the_hubs_own_reader_takes_it(detector):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(render_card(detector, FULL))
    assert card.data.license == "bsd-3-clause"
    assert card.data.pipeline_tag == "image-classification"


def test_without_a_card_no_number_is_made_up(detector):
    text = render_card(detector)
    results = section(text, "What it was tested on")
    assert "not measured" in results
    assert not any(sign.isdigit() for sign in results)
    assert "training pictures are not recorded" in section(text, "What it was trained on")
    origin = section(text, "How to make it again")
    assert "Command: not recorded" in origin
    assert "commit: not recorded" in origin
    assert "seed: 5" in origin  # that of the detector


def test_numbers_stand_with_their_intervals_and_gaps_are_told(detector):
    results = section(render_card(detector, FULL), "What it was tested on")
    rows = [line for line in results.splitlines() if line.startswith("|")]
    assert rows == [
        "| data | images / sources | ROC AUC | ECE |",
        "| --- | --- | --- | --- |",
        "| paintings | 780 / 389 | 0.968 [0.956, 0.978] | 0.036 [n/a] |",
        "| JPEG 90 \\| afterwards | not recorded / not recorded | 0.943 [0.928, 0.958] "
        "| not measured |",
    ]
    assert "Three folds by source" in results


@pytest.mark.parametrize("number", [(0.5, 0.6, 0.7), (0.5, 0.4), float("nan"), (0.5, 0.4, np.inf)])
def test_an_impossible_number_is_refused(number):
    with pytest.raises(ValueError, match=r"paintings: AUC"):
        Measured("paintings", {"AUC": number})


def test_what_it_is_not_for_is_always_said(detector):
    for card in (None, FULL):
        text = section(render_card(detector, card), "What it must not be used for")
        assert all(line in text for line in MISUSE)
        for words in ("only evidence against a person", "unlike the training data", "recompressed"):
            assert words in text
        assert "absence of evidence is not evidence of authenticity" in text
        assert "identify people" in text
    assert "Pixel-space diffusion" in section(render_card(detector, FULL), "Limits")


def test_threshold_and_unsure_rule_are_those_of_the_detector(detector):
    text = section(render_card(detector), "When it says fake, and when unsure")
    assert f"above {detector.threshold_:.4g}" in text
    assert f"above {detector.confidence_:.4g}" in text
    assert "at most 0.4 of the other verdicts" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, "never unsure"), ({"calibrate": False}, "no probabilities")],
)
def test_a_detector_without_an_unsure_rule_says_so(changes, words):
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.repeat(["a", "b", "c"], 10)
    detector = InpaintDetector("precomputed", n_trials=1, **changes).fit(X, y)
    text = render_card(detector)
    assert words in section(text, "When it says fake, and when unsure")
    assert "most probable class" in text
    assert "classes: `a`, `b`, `c`" in text


def test_hashes_of_the_training_images_are_mentioned(detector):
    assert "no hashes" in section(render_card(detector), "What it was trained on")
    detector.trained_on_ = np.arange(1200, dtype=np.uint64)
    try:
        assert "1,200 perceptual hashes" in render_card(detector)
    finally:
        del detector.trained_on_


def test_origin_names_command_seed_commit_and_versions(detector):
    origin = section(render_card(detector, FULL), "How to make it again")
    for part in ("cnnsvm fit paintings model --seed 7", "seed: 7", "commit: 0123abc", "torch "):
        assert part in origin


def test_the_command_is_found_again_in_a_card(detector, tmp_path):
    assert find_command(tmp_path) == ""
    for card, expected in ((None, ""), (FULL, FULL.command)):
        (tmp_path / "README.md").write_text(render_card(detector, card))
        assert find_command(tmp_path) == expected
