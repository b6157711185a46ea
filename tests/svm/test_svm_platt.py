import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cnnsvm.svm.calibration import fit_platt, log_odds_to_proba, soft_vote


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
