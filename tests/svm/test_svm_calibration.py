"""Platt scaling, voting, and one set of probabilities of several classes."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cnnsvm.svm.calibration import fit_mixing, fit_platt, log_odds_to_proba, mix, soft_vote


def make_scores(n_samples=300, shift=2.0, offset=-40.0):
    rng = np.random.default_rng(0)
    target = rng.random(n_samples) < 0.2
    return 7 * (rng.standard_normal(n_samples) + shift * target) + offset, target


def platt_targets(target):
    n_pos = target.sum()
    n_neg = len(target) - n_pos
    return np.where(target, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))


@pytest.mark.parametrize("shift", [0.5, 2.0, 50.0])
def test_platt_is_the_maximum_of_the_regularised_likelihood(shift):
    scores, target = make_scores(shift=shift)
    slope, offset = fit_platt(scores, target)
    residual = expit(slope * scores + offset) - platt_targets(target)
    assert abs(residual.sum()) < 1e-7
    assert abs((residual * (scores - scores.mean()) / scores.std()).sum()) < 1e-7


def test_platt_agrees_with_weighted_logistic_regression():
    scores, target = make_scores()
    goal = platt_targets(target)
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(
        np.tile(scores, 2)[:, np.newaxis],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate([goal, 1 - goal]),
    )
    slope, offset = fit_platt(scores, target)
    assert slope == pytest.approx(reference.coef_[0, 0], rel=1e-6)
    assert offset == pytest.approx(reference.intercept_[0], rel=1e-6)


def test_separable_scores_give_finite_slopes():
    slope, offset = fit_platt(np.array([-1.0, -1, 1, 1]), np.array([False, False, True, True]))
    np.testing.assert_allclose(expit(slope * np.array([-1, 1]) + offset), [0.25, 0.75])


@pytest.mark.parametrize("scores", [-make_scores()[0], np.zeros(300)])
def test_scores_that_do_not_rank_keep_their_order_at_the_prevalence(scores, caplog):
    target = make_scores()[1]
    slope, offset = fit_platt(scores, target)
    assert slope > 0
    assert "do not rank" in caplog.text
    log_odds = slope * scores + offset
    np.testing.assert_allclose(log_odds, logit(platt_targets(target).mean()), atol=0.01)


def test_soft_vote_is_the_mean_probability():
    log_odds = np.random.default_rng(0).normal(scale=3, size=(3, 20, 2))
    np.testing.assert_allclose(expit(soft_vote(log_odds)), expit(log_odds).mean(axis=0))


def test_sure_voters_do_not_saturate():
    np.testing.assert_allclose(soft_vote(np.array([[800.0, -800], [900, -900]]))[0], 800.69, atol=1)
    proba = log_odds_to_proba(np.array([[-900.0, -800, -1000]]))
    np.testing.assert_allclose(proba, [[0, 1, 0]], atol=1e-12)


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
def test_mixing_tells_unseen_rows_better_than_dividing_by_the_sum(seed):
    """Dividing by the sum says 0.75 of classes that are right in 86 of 100; mixing says so."""
    for distance, gain in [(1.0, 0.02), (2.0, 0.05)]:
        (odds, codes), (rest, truth) = calibrated(seed, distance)
        plain = log_odds_to_proba(rest)
        mixed = log_odds_to_proba(mix(rest, fit_mixing(odds, codes)))
        assert log_loss(truth, mixed) < log_loss(truth, plain) - gain
    gaps = [p.max(axis=1).mean() - (p.argmax(axis=1) == truth).mean() for p in (plain, mixed)]
    assert gaps[0] < -0.1
    assert abs(gaps[1]) < 0.03
    (odds, codes), (rest, truth) = calibrated(seed, 7.0)  # far apart: the named class stays
    named = mix(rest, fit_mixing(odds, codes)).argmax(axis=1)
    np.testing.assert_array_equal(named, rest.argmax(axis=1))
    assert (named == truth).mean() > 0.999


def test_what_is_calibrated_already_is_left_as_good():
    """Log-odds whose probabilities sum to 1 and are true: there is nothing to gain."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (rng.random((4000, 1)) > proba.cumsum(axis=1)).sum(axis=1)
    odds = np.log(proba / (1 - proba))
    mixed = log_odds_to_proba(mix(odds[2000:], fit_mixing(odds[:2000], codes[:2000])))
    assert log_loss(codes[2000:], mixed) < log_loss(codes[2000:], proba[2000:]) + 0.02


def test_rows_without_a_score_have_no_say_and_stay_without():
    (odds, codes), _ = calibrated(0, 1.0)
    holes = odds.copy()
    holes[::7, 1] = np.nan
    holes[3] = -np.inf
    known = np.isfinite(holes).all(axis=1)
    mixing = fit_mixing(holes, codes)
    np.testing.assert_array_equal(mixing, fit_mixing(odds[known], codes[known]))
    mixed = mix(holes[::7], mixing)
    assert np.isnan(mixed).all()
    assert np.isfinite(mix(odds, mixing)).all()


def test_without_a_row_of_each_class_there_is_none():
    (odds, codes), (rest, _) = calibrated(0, 1.0)
    assert fit_mixing(odds[codes != 1], codes[codes != 1]) is None
    assert fit_mixing(np.where(codes[:, None] == 2, np.nan, odds), codes) is None
    assert fit_mixing(np.full((3, 3), np.nan), np.arange(3)) is None
    assert mix(rest, None) is rest
