import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import make_blobs

from cnnsvm import InpaintDetector, TunedSVC
from cnnsvm.detection.reject import Judgement
from cnnsvm.evaluation.detectors import check_calibrates, judge_images

NAMES = np.array(["original", "regenerated", "spliced"])


class Blobs(TransformerMixin, BaseEstimator):
    """An embedder of tiny images that hold three numbers."""

    def fit(self, images, y=None):
        return self

    def transform(self, images):
        return np.stack([image.reshape(-1)[:12].view(np.float32) for image in images])


def fitted(n_classes, calibrate=True, **params):
    X, y = make_blobs(90, n_features=3, centers=n_classes, cluster_std=4.0, random_state=3)
    images = [row.astype(np.float32).view(np.uint8).reshape(2, 2, 3) for row in X]
    svm = TunedSVC(n_trials=1, cv=2, calibrate=calibrate)
    return images, InpaintDetector(Blobs(), svm, random_state=0, **params).fit(images, NAMES[y])


@pytest.mark.parametrize("threshold", [0.5, 0.2, "balanced_accuracy"])
def test_of_two_classes_the_score_says_what_the_detector_does(threshold):
    X, detector = fitted(2, threshold=threshold)
    judged = judge_images(detector, X)
    assert judged.columns.tolist() == ["score", "probability", "prediction"]
    np.testing.assert_array_equal(judged["score"], detector.decision_function(X))
    np.testing.assert_allclose(judged["probability"], detector.predict_proba(X)[:, 1], rtol=1e-9)
    np.testing.assert_array_equal(judged["prediction"] == 1, detector.predict(X) == "regenerated")
    np.testing.assert_array_equal(
        judged["prediction"] == 1, judged["probability"] > detector.threshold_
    )
    assert set(judged["prediction"]) == {0, 1}


def test_of_three_classes_all_but_the_first_are_fake():
    X, detector = fitted(3)
    judged = judge_images(detector, X)
    proba = detector.predict_proba(X)
    np.testing.assert_allclose(judged["probability"], 1 - proba[:, 0], atol=1e-12)
    np.testing.assert_allclose(judged["score"], logit(1 - proba[:, 0]), rtol=1e-6)
    np.testing.assert_array_equal(judged["probability"], expit(judged["score"]))
    np.testing.assert_array_equal(judged["prediction"], (judged["score"] > 0).astype(int))
    assert judged["named"].tolist() == detector.predict(X).tolist()
    np.testing.assert_array_equal(judged["confidence"], proba.max(axis=1))
    assert set(judged["named"]) == set(NAMES)


def test_name_and_prediction_agree_wherever_a_class_has_the_most_of_it():
    X, detector = fitted(3)
    judged = judge_images(detector, X)
    real = judged["named"] == "original"
    assert real[judged["prediction"] == 0].all()  # not real by half is not the likeliest either
    sure = judged["confidence"] > 0.5
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(real[sure], judged["prediction"][sure] == 0)
    np.testing.assert_allclose(
        judged["confidence"][real], 1 - judged["probability"][real], atol=1e-12
    )


class Sure:
    """A detector of three classes that is certain of two images."""

    classes_ = NAMES
    max_error = None

    def judge(self, images):
        probabilities = np.array([[1.0, 0, 0], [0, 1, 0], [0.4, 0.3, 0.3]])
        unsure = np.array([False, False, True])
        return Judgement(probabilities, probabilities, probabilities.argmax(1), unsure)


def test_a_certain_verdict_has_a_finite_score():
    judged = judge_images(Sure(), [None] * 3)
    assert np.isfinite(judged["score"]).all()
    assert judged["prediction"].tolist() == [0, 1, 1]
    assert judged["named"].tolist() == ["original", "regenerated", "original"]
    assert judged["confidence"].tolist() == [1, 1, 0.4]
    assert "verdict" not in judged


def test_verdicts_tell_fakes_of_any_kind_from_originals():
    detector = Sure()
    detector.max_error = 0.05
    assert judge_images(detector, [None] * 3)["verdict"].tolist() == ["original", "fake", "unsure"]


def test_verdicts_of_two_classes_are_the_detectors_own():
    X, detector = fitted(2, max_error=0.2)
    said = judge_images(detector, X)["verdict"]
    own = {"original": "original", "regenerated": "fake", "unsure": "unsure"}
    assert said.tolist() == [own[verdict] for verdict in detector.verdict(X)]
    detector.rejection_threshold_ = 0.8
    again = judge_images(detector, X)["verdict"]
    assert again.tolist() == [own[verdict] for verdict in detector.verdict(X)]
    assert 0 < (again == "unsure").sum() < len(X)


def test_margins_are_refused():
    _, detector = fitted(2, calibrate=False)
    with pytest.raises(ValueError, match="calibrate=False"):
        check_calibrates(detector)
