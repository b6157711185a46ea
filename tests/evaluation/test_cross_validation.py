import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit, logit
from sklearn.base import clone
from tiny_detector import cnn, detector

from cnnsvm import InpaintDetector, TunedSVC
from cnnsvm.data.manifest import make_manifest, make_row
from cnnsvm.evaluation import protocol as crossval
from cnnsvm.evaluation.protocol import (
    cross_validate_detector,
    outer_folds,
    shuffled_labels,
)
from cnnsvm.evaluation.runs import RunMismatchError

DETECTOR = detector(cnn(), classifier=TunedSVC(n_trials=2, cv=2))


def changed(**more):
    """Clone the detector with other parameters of its classifier."""
    other = clone(DETECTOR)
    other.classifier.set_params(**more)
    return other


@pytest.fixture(scope="module")
def manifest(labelled_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rows = []
    for i, (image, label, source) in enumerate(zip(*labelled_images, strict=True)):
        path = folder / f"{i:02d}.png"
        Image.fromarray(image).save(path)
        schema = ["left", "right"][i % 2] if label else None
        rows.append(make_row(path, int(label), source, mask_schema=schema))
    return make_manifest(rows)


@pytest.fixture(scope="module")
def found(manifest):
    return cross_validate_detector(DETECTOR, manifest, n_splits=3)


def test_every_image_is_judged_once_in_the_manifests_order(found, manifest):
    assert found.predictions["path"].tolist() == manifest["path"].tolist()
    assert found.predictions["label"].tolist() == manifest["label"].tolist()
    assert found.predictions["fold"].between(0, 2).all()
    assert found.predictions.notna().drop(columns=["engine", "mask_schema"]).all().all()


def test_no_source_is_in_two_folds(found, manifest):
    assert (found.predictions.groupby("source_id")["fold"].nunique() == 1).all()
    for train, test in outer_folds(manifest, 3, 0):
        assert set(manifest["source_id"].iloc[train]).isdisjoint(manifest["source_id"].iloc[test])


def test_the_detector_never_meets_its_test_images(manifest, monkeypatch):
    fitted = []
    fit = InpaintDetector.fit

    def watch(self, X, y=None, groups=None):
        fitted.append((list(X), list(groups)))
        return fit(self, X, y, groups)

    monkeypatch.setattr(InpaintDetector, "fit", watch)
    found = cross_validate_detector(DETECTOR, manifest, n_splits=3)
    for k, (paths, groups) in enumerate(fitted):
        judged = found.predictions[found.predictions["fold"] == k]
        assert set(paths).isdisjoint(judged["path"])
        assert set(groups).isdisjoint(judged["source_id"])
        assert len(set(groups)) == 8


def test_probability_and_prediction_follow_from_the_score(found):
    frame = found.predictions
    thresholds = np.array([fold["threshold"] for fold in found.folds])[frame["fold"]]
    np.testing.assert_allclose(frame["probability"], expit(frame["score"] + logit(thresholds)))
    np.testing.assert_array_equal(frame["prediction"], frame["score"] > 0)


def test_scores_are_those_of_a_detector_fitted_by_hand(found, manifest):
    train, test = outer_folds(manifest, 3, 0)[1]
    model = clone(DETECTOR).fit(manifest.iloc[train])
    by_hand = model.predict_proba(manifest.iloc[test])[:, 1]
    np.testing.assert_allclose(found.predictions["probability"].iloc[test], by_hand, atol=1e-9)


def test_an_interrupted_run_goes_on(manifest, found, tmp_path, monkeypatch):
    run_fold, calls = crossval.judge_images, []

    def interrupted(model, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run_fold(model, images)

    monkeypatch.setattr(crossval, "judge_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate_detector(DETECTOR, manifest, n_splits=3, folder=tmp_path)
    assert (tmp_path / "fold_0" / "fold.json").is_file()
    assert (tmp_path / "fold_1" / "cache").is_dir()
    resumed = cross_validate_detector(DETECTOR, manifest, n_splits=3, folder=tmp_path)
    assert len(calls) == 4  # the first fold was not judged again
    columns = ["path", "fold", "score", "probability", "prediction"]
    pd.testing.assert_frame_equal(resumed.predictions[columns], found.predictions[columns])
    assert not list(tmp_path.rglob("cache"))


def test_results_of_another_run_are_refused(manifest, tmp_path):
    cross_validate_detector(DETECTOR, manifest, n_splits=2, folder=tmp_path)
    other = changed(kernel="linear")
    for change in (
        {"detector": other},
        {"manifest": manifest.iloc[:-3]},
        {"n_splits": 3},
        {"labels": 1 - manifest["label"].to_numpy()},
    ):
        arguments = {"detector": DETECTOR, "manifest": manifest, "n_splits": 2} | change
        with pytest.raises(RunMismatchError, match="Choose another output folder"):
            cross_validate_detector(folder=tmp_path, **arguments)


def test_what_does_not_change_results_may_differ(manifest, tmp_path):
    cross_validate_detector(DETECTOR, manifest, n_splits=2, folder=tmp_path)
    other = changed(verbose=True)
    other.embedder[0].set_params(n_jobs=1)
    cross_validate_detector(other, manifest, n_splits=2, folder=tmp_path)


def test_fold_summaries_are_plain_json(found):
    for k, fold in enumerate(found.folds):
        assert fold["fold"] == k
        assert fold["n_train"] + fold["n_test"] == 36
        assert fold["n_sources_train"] + fold["n_sources_test"] == 12
        json.dumps(fold)


def test_fewer_sources_than_folds(manifest):
    with pytest.raises(ValueError, match=r"12 group\(s\) but 13 folds were asked for"):
        cross_validate_detector(DETECTOR, manifest, n_splits=13)


def test_probabilities_are_needed(manifest):
    with pytest.raises(ValueError, match="use calibrate=True"):
        cross_validate_detector(changed(calibrate=False), manifest)


def test_labels_are_shuffled_within_sources(manifest):
    shuffled = shuffled_labels(manifest, 0)
    assert (shuffled != manifest["label"]).any()
    by_source = pd.Series(shuffled).groupby(manifest["source_id"]).sum()
    assert (by_source == 2).all()
    np.testing.assert_array_equal(shuffled, shuffled_labels(manifest, 0))


def test_labels_of_unpaired_images_are_shuffled_over_all():
    frame = pd.DataFrame({"label": [0] * 30 + [1] * 30, "source_id": range(60)})
    shuffled = shuffled_labels(frame, 0)
    assert shuffled.sum() == 30
    assert 5 < shuffled[:30].sum() < 25


def test_a_claim_without_results_does_not_bar_the_way(manifest, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("weights are missing")

    with monkeypatch.context() as patch:
        patch.setattr(InpaintDetector, "fit", fail)
        with pytest.raises(ValueError, match="weights are missing"):
            cross_validate_detector(DETECTOR, manifest, n_splits=2, folder=tmp_path)
    other = changed(kernel="linear")
    cross_validate_detector(other, manifest, n_splits=2, folder=tmp_path)


def test_inner_folds_are_checked_before_anything_is_fitted(manifest, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("fitted first")

    monkeypatch.setattr(InpaintDetector, "fit", forbidden)
    with pytest.raises(ValueError, match=r"8 group\(s\) but 9 folds"):
        cross_validate_detector(changed(cv=9), manifest, n_splits=3)
