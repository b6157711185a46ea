"""What is said of an image: of its pixels, and apart from them of its metadata."""

import types

import numpy as np
import pytest

from cnnsvm.data.metadata import Finding
from cnnsvm.report.judging import EVIDENCE, Judge
from cnnsvm.report.knowledge import sentences_of
from cnnsvm.report.metadata import describe_metadata, names_generator

NAMES = ["generated", "regenerated", "spliced", "no_trace", "uncovered"]
GENERATOR = Finding("png_text", "PNG text 'parameters'", "Steps: 20, Sampler: Euler", "generated")
MANIFEST = Finding("c2pa", "C2PA manifest of PNG chunk caBX", "not read", "unknown")
EDITOR = Finding("exif", "EXIF Software", "GIMP 2.10", "edited")
CAMERA = Finding("exif", "EXIF Make", "Canon", "camera")


@pytest.fixture
def judge():
    """All evidence, without the detectors: what is said needs none."""
    bare = object.__new__(Judge)
    bare.combined, bare.names, bare.nothing = types.SimpleNamespace(region=None), NAMES, "no_trace"
    return bare


def row(verdict, evidence, metadata=""):
    stated = {f"probability_{name}": 0.1 for name in NAMES}
    stated[f"probability_{verdict if verdict in NAMES else 'spliced'}"] = 0.6
    return {"verdict": verdict, "evidence": evidence, "metadata": metadata, **stated}


def test_metadata_are_said_apart_from_the_pixels(judge):
    metadata = describe_metadata([EDITOR, GENERATOR])
    found = row("no_trace", "generated, trace, region", metadata)
    assert judge.kind(found) == "without known traces"
    assert judge.sentence(found) == (
        "no known trace found (0.60), but its metadata name a generator: PNG text 'parameters' "
        "(Steps: 20, Sampler: Euler); its metadata name an editor: EXIF Software (GIMP 2.10): look "
        "at that"
    )
    assert names_generator(found)
    fake = row("spliced", "region", metadata)
    assert judge.sentence(fake).startswith(
        # what leaves no trace that is known counts too, where regions alone say it
        "a part was repainted (0.70, seen in regions unlike the rest); its metadata name a gen"
    )
    assert "metadata" not in judge.sentence_of_pixels(fake)


def test_where_evidence_disagrees_it_is_said_where_to_look(judge):
    assert judge.sentence(row("unsure", "trace, region")) == (
        "unsure: look here: traces in the pixels, regions unlike the rest (most probable: a part "
        "was repainted, 0.60)"
    )


def test_no_sentence_says_original(judge):
    for verdict in ("generated", "regenerated", "spliced", "no_trace", "unsure"):
        for evidence in EVIDENCE:
            said = judge.sentence(row(verdict, evidence))
            assert not any(word in said for word in ("original", "authentic", "no_trace", "real"))


def test_cameras_and_nothing_are_not_said(judge):
    assert describe_metadata([]) == describe_metadata([CAMERA]) == ""
    assert judge.sentence(row("no_trace", "trace")) == "no known trace found (0.60)"


def test_the_caption_says_what_is_shown(judge, monkeypatch):
    monkeypatch.setattr(Judge, "model", "abc")
    judge.detector, judge.combined.region = (
        object(),
        types.SimpleNamespace(rejection_threshold_=0.87),
    )
    region, trace = row("spliced", "region", "its metadata"), row("spliced", "trace")
    assert judge.caption(region) == (
        "A part was repainted (0.70, seen in regions unlike the rest). Shown: regions unlike the "
        "rest. Model abc."
    )
    assert "Shown: traces in the pixels. Model abc." in judge.caption(trace)
    assert (judge.threshold(region), judge.threshold(trace)) == (0.87, None)


def test_a_manifest_is_said_whatever_it_says():
    assert describe_metadata([MANIFEST, CAMERA]) == (
        "its metadata hold a C2PA manifest: C2PA manifest of PNG chunk caBX (not read)"
    )


def test_a_text_that_imitates_the_sentence_names_no_generator():
    imitation = Finding("exif", "its metadata name a generator", "GIMP", "edited")
    assert not names_generator({"metadata": describe_metadata([imitation])})
    assert len(describe_metadata([Finding("exif", "x", "y" * 200, "edited")] * 9)) < 250


def test_all_evidence_says_what_it_knows(judge):
    two, three = (
        types.SimpleNamespace(classes_=np.array(names)) for names in (NAMES[:2], NAMES[:3])
    )
    three.min_side_, three.max_side_ = 141, 0
    judge.combined = types.SimpleNamespace(generated=two, trace=three, region=two)
    said = judge.knows()
    assert (
        "trace, traces in the pixels: Its training images had sides of at least 141 pixels." in said
    )
    assert sum("Fakes of another engine may pass as real" in sentence for sentence in said) == 2
    assert any(s.startswith("region, ") and "spliced by eight engines" in s for s in said)
    assert not any("\n" in sentence or "```" in sentence for sentence in said)


def test_one_detector_says_what_it_knows(tmp_path):
    judge = Judge("cifake", device="cpu")
    said = judge.knows()
    assert said[:2] == [
        "It tells apart: real, fake.",
        "Its training images had sides of 32 to 32 pixels.",
    ]
    assert any("JPEG" in sentence for sentence in said)
    assert sentences_of(judge.detector, ["a", "b"], tmp_path)[-1].startswith("It has no model card")
