"""How one-vs-rest log-odds of several classes become one set of probabilities."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from scipy.special import expit
from sklearn.datasets import make_blobs
from sklearn.metrics import log_loss

from cnnsvm.svm import TunedSVC
from cnnsvm.svm.calibration import fit_mixing, fit_platt, log_odds_to_proba, mix


def calibrated(seed, distance, n_classes=3, n_samples=2000):
    """Return one-vs-rest log-odds of Gaussian classes by Platt scaling of one coordinate each.

    Of each the first half of the rows is for fitting.
    """
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, n_classes, n_samples)
    X = rng.normal(size=(n_samples, n_classes)) + distance * np.eye(n_classes)[codes]
    half = n_samples // 2
    columns = []
    for k in range(n_classes):
        slope, offset = fit_platt(X[:half, k], codes[:half] == k)
        columns.append(slope * X[:, k] + offset)
    odds = np.column_stack(columns)
    return (odds[:half], codes[:half]), (odds[half:], codes[half:])


def fit(X, y, **params):
    return TunedSVC(**{"n_trials": 2, "random_state": 0} | params).fit(X, y)


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(150, n_features=4, centers=3, cluster_std=4.0, random_state=0)


@pytest.mark.parametrize("n_classes", [3, 4])
def test_probabilities_are_of_one_set(n_classes):
    (odds, codes), (rest, _) = calibrated(0, 2.0, n_classes)
    mixing = fit_mixing(odds, codes)
    assert mixing.shape == (n_classes, n_classes + 1)
    mixed = mix(rest, mixing)
    np.testing.assert_allclose(expit(mixed).sum(axis=1), 1, atol=1e-12)
    assert np.abs(expit(rest).sum(axis=1) - 1).max() > 0.2
    np.testing.assert_allclose(log_odds_to_proba(mixed), expit(mixed), atol=1e-12)


def test_mixed_log_odds_are_those_of_the_logits_softmax():
    (odds, codes), (rest, _) = calibrated(1, 1.0)
    mixing = fit_mixing(odds, codes)
    logits = rest @ mixing[:, :3].T + mixing[:, 3]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mix(rest, mixing), np.log(proba / (1 - proba)), rtol=1e-6)


def test_sure_logits_stay_finite():
    odds = np.array([[900.0, -900, -900], [-800, 800, -950]])
    mixed = mix(odds, np.column_stack([np.eye(3), np.zeros(3)]))
    assert np.isfinite(mixed).all()
    np.testing.assert_allclose(log_odds_to_proba(mixed), [[1, 0, 0], [0, 1, 0]], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_named_class_stays_where_classes_are_far_apart(seed):
    (odds, codes), (rest, truth) = calibrated(seed, 7.0)
    mixed = mix(rest, fit_mixing(odds, codes))
    np.testing.assert_array_equal(mixed.argmax(axis=1), rest.argmax(axis=1))
    assert (mixed.argmax(axis=1) == truth).mean() > 0.999


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("distance", "gain"), [(1.0, 0.02), (2.0, 0.05)])
def test_unseen_rows_are_told_better_than_by_dividing_by_the_sum(seed, distance, gain):
    (odds, codes), (rest, truth) = calibrated(seed, distance)
    mixed = log_odds_to_proba(mix(rest, fit_mixing(odds, codes)))
    assert log_loss(truth, mixed) < log_loss(truth, log_odds_to_proba(rest)) - gain


@pytest.mark.parametrize("seed", range(3))
def test_sure_verdicts_stay_sure(seed):
    """Dividing by the sum says 0.75 of classes that are right in 86 of 100; mixing says so."""
    (odds, codes), (rest, truth) = calibrated(seed, 2.0)
    plain, mixed = log_odds_to_proba(rest), log_odds_to_proba(mix(rest, fit_mixing(odds, codes)))
    gaps = [
        proba.max(axis=1).mean() - (proba.argmax(axis=1) == truth).mean()
        for proba in (plain, mixed)
    ]
    assert gaps[0] < -0.1
    assert abs(gaps[1]) < 0.03


def test_what_is_calibrated_already_is_left_as_good():
    """Log-odds whose probabilities sum to 1 and are true: there is nothing to gain."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (rng.random((4000, 1)) > proba.cumsum(axis=1)).sum(axis=1)
    odds = np.log(proba / (1 - proba))
    mixed = log_odds_to_proba(mix(odds[2000:], fit_mixing(odds[:2000], codes[:2000])))
    assert log_loss(codes[2000:], mixed) < log_loss(codes[2000:], proba[2000:]) + 0.02


def test_rows_without_a_score_have_no_say():
    (odds, codes), _ = calibrated(0, 1.0)
    holes = odds.copy()
    holes[::7, 1] = np.nan
    holes[3] = -np.inf
    known = np.isfinite(holes).all(axis=1)
    np.testing.assert_array_equal(fit_mixing(holes, codes), fit_mixing(odds[known], codes[known]))


def test_without_a_row_of_each_class_there_is_none():
    (odds, codes), (rest, _) = calibrated(0, 1.0)
    assert fit_mixing(odds[codes != 1], codes[codes != 1]) is None
    assert fit_mixing(np.where(codes[:, None] == 2, np.nan, odds), codes) is None
    assert fit_mixing(np.full((3, 3), np.nan), np.arange(3)) is None
    assert mix(rest, None) is rest


def test_rows_without_a_score_stay_without():
    (odds, codes), _ = calibrated(0, 1.0)
    mixing = fit_mixing(odds, codes)
    odds[2, 0] = np.nan
    mixed = mix(odds, mixing)
    assert np.isnan(mixed[2]).all()
    assert np.isfinite(np.delete(mixed, 2, axis=0)).all()


@pytest.mark.parametrize("voting", [None, "soft"])
def test_the_classifier_mixes_its_own_scores(blobs, voting):
    X, y = blobs
    model = fit(X, y, kernel=("linear", "rbf"), voting=voting)
    assert model.mixing_.shape == (3, 4)
    odds = model.decision_function(X)
    np.testing.assert_array_equal(log_odds_to_proba(odds), model.predict_proba(X))
    np.testing.assert_allclose(expit(odds).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(model.classes_[odds.argmax(axis=1)], model.predict(X))
    np.testing.assert_allclose(expit(model.cv_decision_).sum(axis=1), 1, atol=1e-12)


def test_two_classes_and_margins_are_not_mixed(blobs):
    X, y = blobs
    two = fit(X, y > 0)
    assert two.mixing_ is None
    odds = two.decision_function(X)
    np.testing.assert_array_equal(log_odds_to_proba(odds[:, None]), two.predict_proba(X))
    assert fit(X, y, calibrate=False).mixing_ is None


def test_a_refit_with_two_classes_forgets_the_mixing(blobs):
    X, y = blobs
    model = fit(X, y)
    assert model.mixing_ is not None
    assert model.fit(X, y > 0).mixing_ is None


def test_the_mixing_survives_saving(blobs):
    X, y = blobs
    model = fit(X, y)
    config, arrays = model.to_state()
    loaded = TunedSVC.from_state(json.loads(json.dumps(config)), load(save(arrays)))
    np.testing.assert_array_equal(loaded.mixing_, model.mixing_)
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert "mixing" not in fit(X, y > 0).to_state()[1]


def test_a_state_from_before_there_was_mixing_still_loads(blobs, monkeypatch):
    X, y = blobs
    model = fit(X, y)
    config, arrays = model.to_state()
    old = TunedSVC.from_state(config, {k: v for k, v in arrays.items() if k != "mixing"})
    assert old.mixing_ is None
    plain = np.column_stack([part[:, 0] for part in one_by_one(model, X)])
    np.testing.assert_array_equal(old.decision_function(X), plain)
    np.testing.assert_allclose(old.predict_proba(X), normalised(plain), rtol=1e-12)


def test_a_mixing_of_another_shape_is_damage(blobs):
    config, arrays = fit(*blobs).to_state()
    with pytest.raises(ValueError, match=r"damaged: mixing.*\(3, 3\)"):
        TunedSVC.from_state(config, arrays | {"mixing": arrays["mixing"][:, :3].copy()})


def one_by_one(model, X):
    """The calibrated log-odds of each machine alone."""
    Z = (X - model.mean_) / model.scale_
    return [model.models_[0].decide(Z)[:, [k]] for k in range(len(model.classes_))]


def normalised(odds):
    return expit(odds) / expit(odds).sum(axis=1, keepdims=True)
