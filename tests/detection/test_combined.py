import io

import numpy as np
import pytest
from PIL import Image

from cnnsvm import CombinedDetector
from cnnsvm.detection.combined import combine
from cnnsvm.detection.reject import Judgement
from cnnsvm.features.residual_statistics import ResidualStatistics


class Said:
    """A fitted detector whose opinion of each image is given."""

    min_side_ = 60

    def __init__(self, classes, probabilities, bar):
        self.classes_ = np.array(classes)
        self.probabilities, self.bar = np.array(probabilities), bar
        self.embedder_ = [ResidualStatistics(crop_size=64, n_crops=4)]

    def judge(self, images):
        codes = self.probabilities.argmax(axis=1)
        unsure = self.probabilities.max(axis=1) <= self.bar
        return Judgement(np.zeros(len(codes)), self.probabilities, codes, unsure)


def combined(whole, trace, **options):
    return CombinedDetector(
        Said(["generated", "original"], whole, 0.8),
        Said(["original", "regenerated", "spliced"], trace, 0.7),
        **options,
    )


WHOLE = [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]]
TRACE = [
    [0.9, 0.05, 0.05],
    [0.9, 0.05, 0.05],
    [0.1, 0.8, 0.1],
    [0.5, 0.2, 0.3],
    [0.9, 0.05, 0.05],
    [0.0, 0.1, 0.9],
]
VERDICTS = ["generated", "no_trace", "regenerated", "unsure", "unsure", "spliced"]
IMAGES = [np.zeros((64, 64, 3), np.uint8)] * len(WHOLE)


def test_the_stated_rule_gives_the_verdict():
    assert combined(WHOLE, TRACE).verdict(IMAGES).tolist() == VERDICTS


@pytest.mark.parametrize("whole", ["generated", "original", "unsure"])
@pytest.mark.parametrize("trace", ["original", "regenerated", "spliced", "unsure"])
@pytest.mark.parametrize("region", [None, "original", "spliced", "unsure"])
def test_nothing_is_said_to_have_no_trace_unless_all_are_sure(whole, trace, region):
    verdict, evidence = combine(whole, trace, region)
    sure = whole == trace == "original" and region in (None, "original")
    assert (verdict == "no_trace") == sure
    assert evidence
    if verdict in ("generated", "regenerated", "spliced"):
        assert verdict in (whole, trace, region)


@pytest.mark.parametrize(("side", "verdict"), [(59, "unsure"), (60, "spliced")])
def test_a_region_alone_convicts_no_image_smaller_than_all_that_trace_knows(side, verdict):
    region = Said(["original", "spliced"], [[0.05, 0.95]], 0.9)
    model = combined(*ALL_ORIGINAL, region=region)
    assert model.verdict([np.zeros((side, 90, 3), np.uint8)]).tolist() == [verdict]


@pytest.mark.parametrize(
    ("spliced", "side", "verdict"),
    [(0.3, 64, "unsure"), (0.6, 64, "spliced"), (0.3, 1344, "unsure"), (0.3, 1345, "spliced")],
)
def test_traces_of_a_splice_where_no_region_stands_out_are_no_verdict(spliced, side, verdict):
    region = Said(["original", "spliced"], [[1 - spliced, spliced]], 0.9)
    model = combined([[0.1, 0.9]], [[0.05, 0.05, 0.9]], region=region)
    (row,) = model.explain([np.zeros((side, side, 3), np.uint8)]).to_dict("records")
    assert row["verdict"] == verdict
    assert row["evidence"] == ("trace" if verdict == "spliced" else "trace, region")


ALL_ORIGINAL = ([[0.1, 0.9]], [[0.9, 0.05, 0.05]])


@pytest.mark.parametrize(
    ("spliced", "verdict", "evidence"),
    [
        (0.95, "spliced", "region"),
        (0.6, "unsure", "region"),
        (0.4, "no_trace", "generated, trace, region"),
        (0.05, "no_trace", "generated, trace, region"),
    ],
)
def test_a_region_that_is_more_probable_than_not_takes_no_trace_away(spliced, verdict, evidence):
    region = Said(["original", "spliced"], [[1 - spliced, spliced]], 0.9)
    model = combined(*ALL_ORIGINAL, region=region)
    (row,) = model.explain(IMAGES[:1]).to_dict("records")
    assert (row["verdict"], row["evidence"]) == (verdict, evidence)


def test_the_odds_of_a_splice_are_those_of_both():
    region = Said(["original", "spliced"], [[0.2, 0.8]], 0.9)
    before, after = (
        dict(zip(model.classes_, model.predict_proba(IMAGES[:1])[0], strict=True))
        for model in (combined(*ALL_ORIGINAL), combined(*ALL_ORIGINAL, region=region))
    )
    odds = [each["spliced"] / (each["no_trace"] + each["uncovered"]) for each in (before, after)]
    assert odds[1] / odds[0] == pytest.approx(4)
    assert sum(after.values()) == pytest.approx(1)
    assert after["generated"] == before["generated"]


def test_probabilities_sum_to_one_and_keep_what_each_detector_says():
    model = combined(WHOLE, TRACE)
    found = model.predict_proba(IMAGES)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    column = {name: found[:, k] for k, name in enumerate(model.classes_)}
    np.testing.assert_allclose(column["generated"], np.array(WHOLE)[:, 0])
    ratio = column["spliced"] / (1 - column["generated"])
    np.testing.assert_allclose(ratio, np.array(TRACE)[:, 2])


def test_what_no_detector_covers_is_set_aside():
    certain = combined([[0.0, 1.0]], [[1.0, 0.0, 0.0]], uncovered=0.25)
    found = dict(zip(certain.classes_, certain.predict_proba(IMAGES[:1])[0], strict=True))
    assert (found["no_trace"], found["uncovered"]) == (0.75, 0.25)


@pytest.mark.parametrize(("spliced", "seen"), [(0.2, 0.2), (0.5, 0.5), (1.0, 0.98)])
def test_a_region_that_trace_does_not_know_is_uncovered(spliced, seen):
    region = Said(["original", "spliced"], [[1 - spliced, spliced]], 0.9)
    model = combined(*ALL_ORIGINAL, region=region, uncovered=0.2)
    found = dict(zip(model.classes_, model.predict_proba(IMAGES[:1])[0], strict=True))
    nothing = found["uncovered"] + found["no_trace"]
    assert found["no_trace"] / nothing == pytest.approx(0.8 * (1 - seen))
    assert sum(found.values()) == pytest.approx(1)


def test_recalibrated_it_calls_spliced_what_a_region_alone_finds():
    region = Said(["original", "spliced"], [[0.5, 0.5]] * 20, 0.9)
    model = combined([[0.0, 1.0]] * 20, [[1.0, 0.0, 0.0]] * 20, region=region)
    model.recalibrate(IMAGES[:1] * 20)
    one = combined([[0.0, 1.0]], [[1.0, 0.0, 0.0]])
    for spliced, verdict in ((0.3, "no_trace"), (0.8, "spliced")):
        one.region = Said(["original", "spliced"], [[1 - spliced, spliced]], 0.9)
        one.false_alarms_ = model.false_alarms_
        assert one.verdict(IMAGES[:1]).tolist() == [verdict]


def test_explain_lists_all_evidence():
    table = combined(WHOLE, TRACE).explain(IMAGES)
    assert table["verdict"].tolist() == VERDICTS
    assert table["evidence"].tolist() == [
        "generated",
        "generated, trace",
        "trace",
        "trace",
        "generated",
        "trace",
    ]
    assert table["coverage"].tolist() == [1.0] * len(IMAGES)


@pytest.mark.parametrize(("side", "verdict"), [(64, "no_trace"), (65, "unsure")])
def test_an_image_of_which_less_than_half_can_be_seen_is_not_called_clean(
    side, verdict, monkeypatch
):
    monkeypatch.setattr("cnnsvm.detection.combined._MOST_SEEN", 64**2)
    images = [np.zeros((64, side, 3), np.uint8)]
    assert combined(*ALL_ORIGINAL).verdict(images).tolist() == [verdict]


def test_coverage_is_the_share_of_the_pixels_that_crops_show():
    model = combined(WHOLE[:1], TRACE[:1])
    assert model.coverage(np.zeros((128, 128, 3), np.uint8)) == 1.0
    assert model.coverage(np.zeros((256, 256, 3), np.uint8)) == pytest.approx(4 * 64**2 / 256**2)
    assert model.coverage(np.zeros((20, 30, 3), np.uint8)) == 1.0


def test_a_detector_of_other_classes_is_refused():
    wrong = combined(WHOLE, TRACE)
    wrong.trace = wrong.generated
    with pytest.raises(ValueError, match="regenerated"):
        wrong.verdict(IMAGES)


@pytest.mark.parametrize("uncovered", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(uncovered):
    with pytest.raises(ValueError, match="uncovered"):
        combined(WHOLE, TRACE, uncovered=uncovered).predict_proba(IMAGES)


def test_recalibrated_on_untouched_images_it_names_what_exceeds_their_scores():
    fake = np.linspace(0.05, 0.5, 20)
    model = combined([[0.0, 1.0]] * 20, [[1 - p, 0.0, p] for p in fake])
    model.recalibrate(IMAGES[:1] * 20, 0.1)
    assert model.false_alarms_.threshold == pytest.approx(1 - 0.88 * (1 - fake[-2]))
    model.trace = Said(["original", "regenerated", "spliced"], [[0.55, 0.0, 0.45]], 0.7)
    model.generated = Said(["generated", "original"], [[0.0, 1.0]], 0.8)
    assert model.verdict(IMAGES[:1]).tolist() == ["unsure"]
    model.trace.probabilities = np.array([[0.5, 0.3, 0.2]])
    assert model.verdict(IMAGES[:1]).tolist() == ["regenerated"]
    model.trace.probabilities = np.array([[0.9, 0.05, 0.05]])
    assert model.verdict(IMAGES[:1]).tolist() == ["no_trace"]


def test_what_happened_to_a_file_is_told():
    smooth = np.random.default_rng(0).normal(128, 30, (160, 160, 3)).clip(0, 255).astype(np.uint8)
    once = Image.fromarray(smooth).resize((208, 208), Image.Resampling.BICUBIC)
    jpeg = io.BytesIO()
    once.save(jpeg, "JPEG", quality=80)
    images = [smooth, np.asarray(once), jpeg.getvalue()]
    table = combined(WHOLE[:3], TRACE[:3]).explain(images)
    assert table["was_jpeg"].tolist() == [False, False, True]
    assert table["was_resampled"].tolist()[:2] == [False, True]
