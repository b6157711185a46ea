import numpy as np
import pandas as pd
import pytest
import tiny_detector
from PIL import Image
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cnnsvm import InpaintDetector, TunedSVC
from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.detection.pretrained import fingerprint
from cnnsvm.evaluation.bootstrap import bootstrap_metrics, paired_difference
from cnnsvm.evaluation.corruptions import CORRUPTIONS, corrupt
from cnnsvm.evaluation.metrics import expected_calibration_error
from cnnsvm.evaluation.protocol import outer_folds
from cnnsvm.evaluation.runs import RunMismatchError
from robustness_study import study as robustness
from robustness_study.study import (
    measure_by_folds,
    measure_robustness,
    summarise_robustness,
)

VARIANTS = ("original", "regenerated", "spliced")
SOME = ["clean", "jpeg-75", "crop", "noise-5"]
JUDGED = []


class TextureDetector(InpaintDetector):
    """A detector of a handful of statistics; it notes what it judges."""

    def _look(self, X):
        JUDGED.append(len(X))
        return super()._look(X)


DETECTOR = TextureDetector(
    tiny_detector.statistics(n_crops=1),
    TunedSVC(n_trials=2, cv=2),
    threshold="balanced_accuracy",
    random_state=0,
)


def changed(**more):
    """Clone the detector with other parameters, also nested ones of its classifier."""
    return clone(DETECTOR).set_params(**more)


@pytest.fixture(autouse=True)
def _nothing_judged():
    JUDGED.clear()


@pytest.fixture(scope="module")
def manifest(labelled_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rows = []
    for i, (image, label, source) in enumerate(zip(*labelled_images, strict=True)):
        path = folder / f"{i:02d}.png"
        Image.fromarray(image).save(path)
        kind = {"variant": VARIANTS[i % 3], "engine": "smooth" if label else None}
        rows.append(make_row(path, int(label), source, **kind))
    return make_manifest(rows)


@pytest.fixture(scope="module")
def detector(manifest):
    return fitted(DETECTOR, manifest)


@pytest.fixture(scope="module")
def predictions(detector, manifest):
    return measure_robustness(detector, manifest, SOME)


def fitted(detector, manifest, y=None):
    model = clone(detector)
    y = manifest["label"] if y is None else y
    return model.fit(manifest["path"].tolist(), y.to_numpy(), groups=manifest["source_id"])


def interrupt_after(monkeypatch, n_calls):
    """Let the detector judge so many times, then stop the run."""
    judge = TextureDetector._look

    def interrupted(self, X):
        if len(JUDGED) == n_calls:
            raise KeyboardInterrupt
        return judge(self, X)

    monkeypatch.setattr(TextureDetector, "_look", interrupted)


def forbid_fitting(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("fitted again")

    monkeypatch.setattr(TextureDetector, "fit", forbidden)


def test_there_is_one_row_an_image_and_corruption_in_order(predictions, manifest):
    assert list(predictions.columns) == [
        *("path", "source_id", "label", "variant", "engine", "mask_schema"),
        *("corruption", "score", "probability", "prediction"),
    ]
    assert predictions["corruption"].tolist() == np.repeat(SOME, len(manifest)).tolist()
    for _, table in predictions.groupby("corruption"):
        assert table["path"].tolist() == manifest["path"].tolist()
        assert table["label"].tolist() == manifest["label"].tolist()


def test_all_corruptions_are_the_default(detector, manifest):
    few = measure_robustness(detector, manifest.iloc[:3])
    assert few["corruption"].unique().tolist() == list(CORRUPTIONS)


def test_scores_are_those_of_degraded_images(detector, manifest, predictions):
    clean = predictions[predictions["corruption"] == "clean"]
    np.testing.assert_allclose(clean["score"], detector.decision_function(manifest["path"]))
    chance = detector.predict_proba(manifest["path"])[:, 1]
    np.testing.assert_allclose(clean["probability"], chance)
    np.testing.assert_array_equal(clean["prediction"], detector.predict(manifest["path"]))
    noisy = predictions[predictions["corruption"] == "noise-5"].iloc[7]
    seed = robustness._seed(0, noisy["source_id"])
    by_hand = detector.decision_function([corrupt(noisy["path"], "noise-5", seed)])
    assert noisy["score"] == pytest.approx(by_hand[0])


def test_the_threshold_is_that_of_the_detector_throughout(
    detector, manifest, predictions, monkeypatch
):
    forbid_fitting(monkeypatch)
    threshold = detector.threshold_
    assert threshold != 0.5  # chosen in the fit
    again = measure_robustness(detector, manifest, SOME)
    pd.testing.assert_frame_equal(again, predictions)
    assert detector.threshold_ == threshold
    offset = logit(threshold)
    np.testing.assert_allclose(again["probability"], expit(again["score"] + offset))
    np.testing.assert_array_equal(again["prediction"], again["probability"] > threshold)


def test_both_classes_of_a_source_get_one_seed(detector, manifest, monkeypatch):
    seen = []

    def watch(image, rng):
        seen.append(float(rng.random()))
        return image

    for name in ("first", "second"):
        monkeypatch.setitem(CORRUPTIONS, name, watch)
    for state in (0, 1):
        measure_robustness(detector, manifest, ["first", "second"], random_state=state)
    by_source = np.reshape(seen, (2, 2, 12, 3))  # state, corruption, source, variant
    assert (np.ptp(by_source, axis=3) == 0).all()
    assert len(np.unique(by_source[:, 0])) == 24


def test_neither_company_nor_order_nor_label_matter(detector, manifest, predictions):
    part = manifest.iloc[[20, 3, 11]].assign(label=[1, 0, 0], variant="original")
    alone = measure_robustness(detector, part, ["noise-5", "crop"])
    assert (alone["label"] == 0).all()  # that of the variant
    for row in alone.to_dict("records"):
        known = predictions["corruption"].eq(row["corruption"]) & predictions["path"].eq(
            row["path"]
        )
        assert row["score"] == pytest.approx(predictions.loc[known, "score"].item())


def test_few_pixels_are_held_at_once(detector, manifest, predictions, monkeypatch):
    size = load_image(manifest["path"].iloc[0]).nbytes
    monkeypatch.setattr(robustness, "CHUNK", 4 * size)
    chunked = measure_robustness(detector, manifest, SOME)
    assert max(JUDGED) <= 4 / 0.75**2 + 1  # crops are smaller
    assert sum(JUDGED) == len(SOME) * len(manifest)
    pd.testing.assert_frame_equal(chunked, predictions)


def test_with_several_kinds_of_fake_the_first_class_is_real(manifest):
    model = fitted(DETECTOR, manifest, manifest["variant"])
    assert model.classes_.tolist() == sorted(VARIANTS)
    found = measure_robustness(model, manifest, ["clean"])
    chance = 1 - model.predict_proba(manifest["path"])[:, 0]
    np.testing.assert_allclose(found["probability"], chance)
    np.testing.assert_allclose(found["score"], logit(chance))
    np.testing.assert_array_equal(found["prediction"], chance > 0.5)
    assert found["label"].tolist() == manifest["label"].tolist()


def test_an_interrupted_run_goes_on(detector, manifest, predictions, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            measure_robustness(detector, manifest, SOME, folder=tmp_path)
    assert {path.stem for path in tmp_path.glob("*.parquet")} == set(SOME[:2])
    resumed = measure_robustness(detector, manifest, SOME, folder=tmp_path)
    assert len(JUDGED) == 4  # the first two were not judged again
    pd.testing.assert_frame_equal(resumed, predictions)
    measure_robustness(detector, manifest, SOME[::-1], folder=tmp_path)
    assert len(JUDGED) == 4
    assert not list(tmp_path.glob("*.partial"))


def test_a_loaded_detector_goes_on_where_the_fitted_one_was(detector, manifest, tmp_path):
    first = measure_robustness(detector, manifest, ["clean"], folder=tmp_path / "run")
    loaded = TextureDetector.from_pretrained(detector.save_pretrained(tmp_path / "model", bits=32))
    loaded.set_params(cache_dir=tmp_path)
    loaded.embedder_[0].set_params(n_jobs=1)
    again = measure_robustness(loaded, manifest, ["clean"], folder=tmp_path / "run")
    assert len(JUDGED) == 1
    pd.testing.assert_frame_equal(again, first)


def test_results_of_another_run_are_refused(detector, manifest, tmp_path):
    measure_robustness(detector, manifest, ["clean"], folder=tmp_path)
    n_judged = len(JUDGED)
    other = manifest.copy()
    other.loc[5, "sha256"] = "0" * 64
    moved = fitted(DETECTOR, manifest)
    moved.threshold_ = 0.9
    for change in (
        {"detector": moved},
        {"detector": fitted(changed(classifier__n_trials=1), manifest)},
        {"manifest": other},
        {"manifest": manifest.iloc[:-3]},
        {"random_state": 1},
    ):
        arguments = {"detector": detector, "manifest": manifest} | change
        with pytest.raises(RunMismatchError, match="Choose another output folder"):
            measure_robustness(corruptions=["crop"], folder=tmp_path, **arguments)
    assert len(JUDGED) == n_judged


def test_the_network_is_part_of_what_a_detector_is(labelled_images):
    model = tiny_detector.detector(tiny_detector.cnn()).fit(*labelled_images)
    before = fingerprint(model)
    model.embedder_[0].set_params(device="auto", n_jobs=2)
    assert fingerprint(model) == before
    for other in ({"n_crops": 3}, {"precision": "bfloat16"}):
        model.embedder_[0].set_params(**other)
        assert fingerprint(model) != before
        model.embedder_[0].set_params(n_crops=2, precision="float32")
        assert fingerprint(model) == before
    next(model.embedder_[0].network_.parameters()).data[0] += 1e-3
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"detector": DETECTOR}, NotFittedError, "not fitted"),
        ({"corruptions": ["blur"]}, ValueError, "There is: clean"),
        ({"corruptions": ["crop", "crop"]}, ValueError, "more than once"),
        ({"manifest": "empty"}, ValueError, "no rows"),
    ],
)
def test_what_cannot_be_measured_is_refused(detector, manifest, change, error, message):
    arguments = {"detector": detector, "manifest": manifest} | change
    if isinstance(arguments["manifest"], str):
        arguments["manifest"] = manifest.iloc[:0]
    with pytest.raises(error, match=message):
        measure_robustness(**arguments)


def test_probabilities_are_needed(manifest, monkeypatch):
    margins = changed(classifier__calibrate=False, threshold=0.5)
    with pytest.raises(ValueError, match="calibrate=True"):
        measure_robustness(fitted(margins, manifest), manifest)
    forbid_fitting(monkeypatch)
    with pytest.raises(ValueError, match="calibrate=True"):
        measure_by_folds(margins, manifest)


@pytest.fixture(scope="module")
def by_folds(manifest):
    return measure_by_folds(DETECTOR, manifest, SOME, n_splits=3)


def test_folds_judge_every_image_once_in_each_corruption(by_folds, manifest):
    assert by_folds["corruption"].tolist() == np.repeat(SOME, len(manifest)).tolist()
    for _, table in by_folds.groupby("corruption"):
        assert table["path"].tolist() == manifest["path"].tolist()
        assert sorted(table["fold"].unique()) == [0, 1, 2]
    assert (by_folds.groupby("source_id")["fold"].nunique() == 1).all()


def test_a_fold_is_judged_by_a_detector_of_the_others(by_folds, manifest):
    train, test = outer_folds(manifest, 3, 0)[1]
    model = fitted(DETECTOR, manifest.iloc[train])
    by_hand = measure_robustness(model, manifest.iloc[test], SOME)
    part = by_folds[by_folds["fold"] == 1].drop(columns="fold").reset_index(drop=True)
    pd.testing.assert_frame_equal(part, by_hand)


def test_fitted_folds_are_taken_up_again(by_folds, manifest, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 6)  # in the second fold
        with pytest.raises(KeyboardInterrupt):
            measure_by_folds(DETECTOR, manifest, SOME, n_splits=3, folder=tmp_path)
    fits = []
    fit = TextureDetector.fit
    monkeypatch.setattr(TextureDetector, "fit", lambda *a, **k: fits.append(1) or fit(*a, **k))
    resumed = measure_by_folds(DETECTOR, manifest, SOME, n_splits=3, folder=tmp_path)
    assert len(fits) == 1
    assert len(JUDGED) == 3 * len(SOME)
    pd.testing.assert_frame_equal(resumed, by_folds)
    assert not list(tmp_path.rglob("cache"))
    other = changed(cache_dir=tmp_path / "other")
    measure_by_folds(other, manifest, SOME, n_splits=3, folder=tmp_path)
    assert len(fits) == 1


def test_folds_of_another_run_are_refused(manifest, tmp_path, monkeypatch):
    measure_by_folds(DETECTOR, manifest, ["clean"], n_splits=2, folder=tmp_path)
    forbid_fitting(monkeypatch)
    for change in (
        {"detector": changed(classifier__kernel="linear")},
        {"manifest": manifest.iloc[:-3]},
        {"n_splits": 3},
        {"random_state": 1},
    ):
        arguments = {"detector": DETECTOR, "manifest": manifest, "n_splits": 2} | change
        with pytest.raises(RunMismatchError, match="Choose another output folder"):
            measure_by_folds(corruptions=["clean"], folder=tmp_path, **arguments)


def test_folds_may_be_fitted_on_the_kind_of_fake(manifest, tmp_path, monkeypatch):
    options = {"n_splits": 3, "target": "variant"}
    found = measure_by_folds(DETECTOR, manifest, ["clean"], **options, folder=tmp_path)
    train, test = outer_folds(manifest, 3, 0)[1]
    model = fitted(DETECTOR, manifest.iloc[train], manifest["variant"].iloc[train])
    chance = 1 - model.predict_proba(manifest["path"].iloc[test])[:, 0]
    np.testing.assert_allclose(found.loc[found["fold"] == 1, "probability"], chance)
    assert found["label"].tolist() == manifest["label"].tolist()
    forbid_fitting(monkeypatch)
    with pytest.raises(RunMismatchError, match="Choose another output folder"):
        measure_by_folds(DETECTOR, manifest, ["clean"], n_splits=3, folder=tmp_path)


@pytest.mark.parametrize(
    ("target", "message"),
    [("kind", "must name a column"), ("engine", "empty in some rows"), ("path", "all originals")],
)
def test_a_target_must_tell_originals_from_fakes(manifest, monkeypatch, target, message):
    forbid_fitting(monkeypatch)
    with pytest.raises(ValueError, match=message):
        measure_by_folds(DETECTOR, manifest, target=target)


def test_inner_folds_are_checked_before_anything_is_fitted(manifest, monkeypatch):
    forbid_fitting(monkeypatch)
    greedy = changed(classifier__cv=9)
    with pytest.raises(ValueError, match=r"8 group\(s\) but 9 folds"):
        measure_by_folds(greedy, manifest, n_splits=3)


@pytest.fixture(scope="module")
def judged(by_folds):
    """Predictions with mistakes of every kind."""
    rng = np.random.default_rng(0)
    score = rng.normal(np.where(by_folds["label"] == 1, 1.0, -0.5), 1.2)
    score -= 0.4 * (by_folds["corruption"] != "clean") * by_folds["label"]
    probability, prediction = expit(score + 0.3), (score > 0).astype(int)
    return by_folds.assign(score=score, probability=probability, prediction=prediction)


@pytest.fixture(scope="module")
def summary(judged):
    return summarise_robustness(judged, n_resamples=200)


def test_the_summary_has_a_row_for_each_corruption_and_variant(summary):
    pairs = list(zip(summary["corruption"], summary["variant"], strict=True))
    assert pairs == [(name, kind) for name in SOME for kind in ("all", "regenerated", "spliced")]
    assert (summary["n_originals"] == 12).all()
    assert summary["n_fakes"].tolist() == [24, 12, 12] * 4
    assert (summary["n_sources"] == 12).all()


def test_the_summary_is_what_scikit_learn_says(summary, judged):
    for row in summary.to_dict("records"):
        part = judged[judged["corruption"] == row["corruption"]]
        if row["variant"] != "all":
            part = part[(part["label"] == 0) | (part["variant"] == row["variant"])]
        truth, chance, called = part["label"], part["probability"], part["prediction"]
        assert row["roc_auc"] == pytest.approx(roc_auc_score(truth, chance))
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, called))
        assert row["detection_rate"] == pytest.approx(called[truth == 1].mean())
        assert row["false_alarm_rate"] == pytest.approx(called[truth == 0].mean())
        assert row["ece"] == pytest.approx(expected_calibration_error(truth, chance))


def test_changes_are_paired_with_clean(summary, judged):
    indexed = summary.set_index(["corruption", "variant"])
    clean, crop = (indexed.loc[(name, "spliced")] for name in ("clean", "crop"))
    assert crop["roc_auc_change"] == pytest.approx(crop["roc_auc"] - clean["roc_auc"])
    assert clean[["roc_auc_change", "roc_auc_change_low", "roc_auc_change_high"]].eq(0).all()
    parts = [
        judged[(judged["corruption"] == name) & (judged["variant"] != "regenerated")]
        for name in ("crop", "clean")
    ]
    expected = paired_difference(*parts, "roc_auc", 200)
    for end in ("low", "high"):
        assert crop[f"roc_auc_change_{end}"] == pytest.approx(expected[end])


def test_intervals_are_those_of_resampled_sources(summary, judged):
    indexed = summary.set_index(["corruption", "variant"])
    part = judged[judged["corruption"] == "crop"]
    expected = bootstrap_metrics(part, 200)
    row = indexed.loc[("crop", "all")]
    for column, name in (("roc_auc", "roc_auc"), ("detection_rate", "recall"), ("ece", "ece")):
        assert row[f"{column}_low"] == pytest.approx(expected[name]["low"])
        assert row[f"{column}_high"] == pytest.approx(expected[name]["high"])
    rate = row["false_alarm_rate"]
    assert 0 <= row["false_alarm_rate_low"] < rate < row["false_alarm_rate_high"]
    half_width = 1.96 * np.sqrt(rate * (1 - rate) / 12)
    assert row["false_alarm_rate_high"] - rate == pytest.approx(half_width, abs=0.1)


def test_one_variant_alone_is_all(judged):
    part = judged[judged["variant"] != "spliced"]
    found = summarise_robustness(part, n_resamples=20)
    assert found["variant"].tolist() == ["all", "regenerated"] * 4
    halves = [
        found[found["variant"] == name].drop(columns="variant") for name in ("all", "regenerated")
    ]
    pd.testing.assert_frame_equal(*(half.reset_index(drop=True) for half in halves))


def test_without_clean_there_is_no_change(judged):
    found = summarise_robustness(judged[judged["corruption"] != "clean"], n_resamples=20)
    assert found["roc_auc_change"].isna().all()
    assert found["roc_auc"].notna().all()


def test_originals_alone_still_raise_false_alarms(judged):
    found = summarise_robustness(judged[judged["label"] == 0], n_resamples=20)
    assert found["variant"].unique().tolist() == ["all"]
    assert found["roc_auc"].isna().all()
    assert found["false_alarm_rate"].notna().all()
    fakes = summarise_robustness(judged[judged["label"] == 1], n_resamples=20)
    assert fakes["false_alarm_rate"].isna().all()
    assert fakes["detection_rate"].notna().all()
