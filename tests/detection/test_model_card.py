import re

import numpy as np
import pytest
import yaml
from tiny_detector import cnn, detector, statistics, tuning

from cnnsvm import TunedSVC
from cnnsvm.detection.model_card import CardFacts, Measured, render_card
from scripting import find_command

FULL = CardFacts(
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
def fitted(labelled_images):
    parts = [cnn("resnet18", truncate_at="layer1", finetune=tuning(epochs=1)), statistics()]
    return detector(*parts, max_error=0.4, n_views=2, random_state=5).fit(*labelled_images)


def header(text):
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_hub_reads_its_header(fitted):
    hub = pytest.importorskip("huggingface_hub")
    for card, tags in ((None, {"inpainting-detection"}), (FULL, {"vae", 'od"d: #1'})):
        text = render_card(fitted, card)
        head = header(text)
        assert head["license"] == "bsd-3-clause"
        assert head["library_name"] == "cnnsvm"
        assert head["pipeline_tag"] == "image-classification"
        assert tags <= set(head["tags"])
        read = hub.ModelCard(text).data
        assert (read.license, read.pipeline_tag) == ("bsd-3-clause", "image-classification")


def test_without_a_card_no_number_is_made_up(fitted):
    text = render_card(fitted)
    results = section(text, "What it was tested on")
    assert "not measured" in results
    assert not any(sign.isdigit() for sign in results)
    assert "not recorded" in section(text, "What it was trained on")
    origin = section(text, "How to make it again")
    assert "Command: not recorded" in origin
    assert "commit: not recorded" in origin
    assert "seed: 5" in origin  # that of the detector


def test_numbers_stand_with_their_intervals_and_gaps_are_told(fitted):
    results = section(render_card(fitted, FULL), "What it was tested on")
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


def test_what_it_is_not_for_and_its_limits_are_always_said(fitted):
    for card in (None, FULL):
        text = render_card(fitted, card)
        misuse = section(text, "What it must not be used for")
        for word in ("only evidence", "authentic", "unlike the training", "recompressed", "people"):
            assert word in misuse
        assert len(misuse.strip().splitlines()) == 5
        limits = section(text, "Limits").strip().splitlines()
        assert len(limits) == 4 + (0 if card is None else len(card.limits))
    assert "Pixel-space diffusion" in limits[-1]


def test_embedders_classes_and_classifier_are_described(fitted):
    what = section(render_card(fitted), "What it is")
    for embedder in fitted.embedder_:
        assert f"{sum(p.numel() for p in embedder.network_.parameters()):,} weights" in what
    for part in ("`resnet18`", "cut after `layer1`", "stem `native`", "residual statistics"):
        assert part in what
    assert "crops of 32 pixels, up to 2 an image" in what
    assert "classes: `0`, `1` (0 real, 1 fake)" in what
    assert f"{fitted.classifier_.n_features_in_} features" in what


def test_threshold_and_unsure_rule_are_those_of_the_detector(fitted):
    text = section(render_card(fitted), "When it says fake, and when unsure")
    assert f"above {fitted.threshold_:.4g}" in text
    assert f"above {fitted.rejection_threshold_:.4g}" in text
    assert "at most 0.4 of" in text
    assert "equally frequent" in text  # the views are balanced


@pytest.mark.parametrize(
    ("classifier", "words"),
    [(None, "never unsure"), (TunedSVC(n_trials=1, cv=2, calibrate=False), "no probabilities")],
)
def test_a_detector_without_an_unsure_rule_says_so(labelled_images, classifier, words):
    images, _, groups = labelled_images
    names = np.tile(["a", "b", "c"], 12)
    model = detector(cnn(resize=40), classifier=classifier).fit(images, names, groups)
    text = render_card(model)
    assert words in section(text, "When it says fake, and when unsure")
    assert "most probable class" in text
    assert "classes: `a`, `b`, `c`" in text
    assert "short side of 40" in text


def test_hashes_of_the_training_images_are_mentioned(fitted):
    trained = section(render_card(fitted), "What it was trained on")
    assert re.search(rf"\b{len(fitted.trained_on_)} perceptual hashes", trained)


def test_origin_names_command_seed_commit_and_versions(fitted):
    origin = section(render_card(fitted, FULL), "How to make it again")
    for part in ("cnnsvm fit paintings model --seed 7", "seed: 7", "commit: 0123abc", "torch "):
        assert part in origin


def test_the_command_is_found_again_in_a_card(fitted, tmp_path):
    assert find_command(tmp_path) == ""
    for card, expected in ((None, ""), (FULL, FULL.command)):
        (tmp_path / "README.md").write_text(render_card(fitted, card))
        assert find_command(tmp_path) == expected
