import logging
import re

import numpy as np
import optuna
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs, make_classification
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import cross_val_predict, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import cnnsvm.svm.tuned_svc as tuned_svc
from cnnsvm.data.splits import grouped_folds
from cnnsvm.svm import TunedSVC
from cnnsvm.svm.calibration import fit_mixing, fit_platt
from cnnsvm.svm.inner_cv import InnerCV, inner_folds
from cnnsvm.svm.space import DEFAULTS

RBF_PIPELINE = make_pipeline(StandardScaler(), SVC(kernel="rbf"))


@pytest.fixture(scope="module")
def binary():
    return make_classification(90, 12, n_informative=4, class_sep=0.7, flip_y=0.1, random_state=0)


@pytest.fixture(scope="module")
def sources():
    """Forty sources of five near copies, whose labels are noise: only a leak predicts them."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 5)
    X = rng.standard_normal((40, 8))[groups] + 0.01 * rng.standard_normal((200, 8))
    return X, rng.permutation(np.repeat([0, 1], 20))[groups], groups


@pytest.fixture
def seen_folds(monkeypatch):
    """Collect the inner folds that a fit uses."""
    seen = []

    def spy(*args):
        seen.append(inner_folds(*args))
        return seen[-1]

    monkeypatch.setattr(tuned_svc, "inner_folds", spy)
    return seen


def test_groups_reach_the_inner_folds_through_cross_validate(sources):
    X, y, groups = sources
    model = TunedSVC(n_trials=1, random_state=0)
    scores = {}
    for name, params in {"grouped": {"groups": groups}, "leaking": {}}.items():
        result = cross_validate(
            model,
            X,
            y,
            groups=groups,
            params=params,
            cv=grouped_folds(y, groups, 2),
            return_estimator=True,
        )
        scores[name] = np.mean([fitted.best_score_ for fitted in result["estimator"]])
    assert scores["leaking"] > 0.98
    assert abs(scores["grouped"] - 0.5) < 0.2


def test_chance_level_scores_keep_their_order_and_give_the_prevalence(sources, caplog):
    X, y, groups = sources
    caplog.set_level(logging.WARNING, "cnnsvm")
    model = TunedSVC(n_trials=1, random_state=0).fit(X, y, groups=groups)
    margins = TunedSVC(n_trials=1, random_state=0, calibrate=False).fit(X, y, groups=groups)
    assert "do not rank" in caplog.text
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], y.mean(), atol=0.01)
    decisions, raw = model.decision_function(X), margins.decision_function(X)
    np.testing.assert_array_equal(np.argsort(decisions), np.argsort(raw))


def test_first_trial_is_the_plain_svc(binary, seen_folds):
    X, y = binary
    model = TunedSVC(n_trials=1, calibrate=False, random_state=0).fit(X, y)
    reference = clone(RBF_PIPELINE).fit(X, y)
    np.testing.assert_allclose(
        model.decision_function(X), reference.decision_function(X), atol=1e-6
    )
    (folds,) = seen_folds
    expected = cross_val_score(RBF_PIPELINE, X, y, cv=folds, scoring="roc_auc").mean()
    assert model.best_score_ == pytest.approx(expected, abs=1e-3)
    out_of_fold = cross_val_predict(RBF_PIPELINE, X, y, cv=folds, method="decision_function")
    # two solvers, each of which stops at a violation of 1e-3
    np.testing.assert_allclose(model.cv_decision_, out_of_fold, atol=5e-3)


def test_multiclass_is_one_vs_rest():
    X, y = load_iris(return_X_y=True)
    names = load_iris().target_names[y]
    model = TunedSVC(n_trials=1, calibrate=False, random_state=0).fit(X, names)
    reference = make_pipeline(StandardScaler(), OneVsRestClassifier(SVC())).fit(X, y)
    np.testing.assert_allclose(
        model.decision_function(X), reference.decision_function(X), atol=1e-6
    )


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_strong_regularisation_does_not_break_calibration(monkeypatch, kernel):
    """With a tiny C the intercept follows the majority of a fold and swamps the margins."""
    monkeypatch.setitem(DEFAULTS[kernel], "C", 1e-3)
    X, y = make_classification(1200, 30, n_informative=5, class_sep=0.7, random_state=2)
    model = TunedSVC(kernel, n_trials=1, random_state=0).fit(X[:400], y[:400])
    assert abs(roc_auc_score(y[:400], model.cv_decision_) - model.best_score_) < 0.01
    decisions = model.decision_function(X[400:])
    slope, offset = fit_platt(decisions, y[400:] == 1)
    best_loss = log_loss(y[400:], expit(slope * decisions + offset))
    assert log_loss(y[400:], expit(decisions)) < best_loss + 0.01


@pytest.mark.filterwarnings("ignore:Solver terminated early")
def test_soft_vote_averages_the_best_of_each_kernel(binary):
    X, y = binary
    options = {"n_trials": 2, "random_state": 0}
    kernels = ("linear", "rbf", "poly")
    vote = TunedSVC(kernels, voting="soft", **options).fit(X, y)
    alone = [TunedSVC(kernel, **options).fit(X, y).predict_proba(X) for kernel in kernels]
    np.testing.assert_allclose(vote.predict_proba(X), np.mean(alone, axis=0))
    assert [study["kernel"] for study in vote.search_results_] == list(kernels)


@pytest.mark.filterwarnings("ignore:Solver terminated early")
def test_best_kernel_wins(binary):
    X, y = binary
    options = {"n_trials": 2, "random_state": 0}
    kernels = ("linear", "rbf", "poly")
    model = TunedSVC(kernels, **options).fit(X, y)
    scores = {kernel: TunedSVC(kernel, **options).fit(X, y).best_score_ for kernel in kernels}
    assert model.best_params_["kernel"] == max(scores, key=scores.__getitem__)
    assert model.best_score_ == max(scores.values())


def test_the_seed_draws_folds_and_trials(binary):
    model = TunedSVC(n_trials=12, random_state=7).fit(*binary)
    other = clone(model).set_params(random_state=8).fit(*binary)
    assert other.best_params_ != model.best_params_


def test_constant_features_change_nothing(binary):
    X, y = binary
    padded = np.hstack([X, np.full((len(X), 3), 5.0)])
    model = TunedSVC(n_trials=2, random_state=0)
    expected = model.fit(X, y).decision_function(X)
    np.testing.assert_allclose(model.fit(padded, y).decision_function(padded), expected, rtol=1e-6)
    np.testing.assert_array_equal(model.scale_[-3:], 1)


def test_a_class_of_one_row_means_defaults():
    X, y = make_blobs([10, 1], centers=None, random_state=0)
    with pytest.warns(UserWarning, match="smallest class has 1 row"):
        model = TunedSVC(n_trials=2, random_state=0).fit(X, y)
    reference = clone(RBF_PIPELINE).fit(X, y)
    np.testing.assert_allclose(
        model.decision_function(X), reference.decision_function(X), atol=1e-6
    )
    assert np.isnan(model.best_score_)


def test_a_fold_that_lacks_a_class_is_left_out(monkeypatch):
    X, y = make_blobs(60, centers=3, random_state=0)
    lonely = np.flatnonzero(y == 2)
    rest = np.flatnonzero(y != 2)
    folds = [
        (rest, lonely),
        (np.concatenate([lonely, rest[::2]]), rest[1::2]),
        (np.concatenate([lonely, rest[1::2]]), rest[::2]),
    ]
    monkeypatch.setattr(tuned_svc, "inner_folds", lambda *args: folds)
    model = TunedSVC(n_trials=2, random_state=0).fit(X, y)
    assert np.isnan(model.cv_decision_[:, 2]).all()
    assert np.isfinite(model.cv_decision_[:, :2]).all()
    assert model.best_score_ > 0.9
    assert model.score(X, y) > 0.8


def test_without_calibration_there_are_no_probabilities(binary):
    model = TunedSVC(n_trials=1, calibrate=False, random_state=0).fit(*binary)
    assert not hasattr(model, "predict_proba")
    with pytest.raises(AttributeError, match=re.escape("'predict_proba'")):
        model.predict_proba(binary[0])


def test_fit_is_silent_and_leaves_optuna_alone(binary, capfd):
    before = optuna.logging.get_verbosity()
    TunedSVC(n_trials=3, random_state=0, verbose=True).fit(*binary)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


@pytest.fixture(scope="module")
def masked():
    """Rows, labels, and which rows calibrate."""
    X, y = make_classification(90, 6, n_informative=3, class_sep=0.7, flip_y=0.1, random_state=0)
    return X, y, np.random.default_rng(0).random(90) < 0.4


def fit(X, y, calibration=None, **params):
    model = TunedSVC(**{"n_trials": 2, "random_state": 0} | params)
    return model.fit(X, y, calibration_rows=calibration)


def platt(model):
    return [(part.slope.tolist(), part.offset.tolist()) for part in model.models_]


def test_the_mixing_is_that_of_the_masked_rows(monkeypatch):
    X, y = make_blobs(90, centers=3, cluster_std=6.0, random_state=1)
    mask = np.random.default_rng(1).random(90) < 0.5
    mixed = fit(X, y, mask)
    with monkeypatch.context() as patch:
        patch.setattr(tuned_svc, "fit_mixing", lambda *_: None)
        odds = fit(X, y, mask).cv_decision_
    np.testing.assert_array_equal(mixed.mixing_, fit_mixing(odds[mask], y[mask]))
    assert not np.allclose(mixed.mixing_, fit_mixing(odds, y), atol=0.01)


def test_scores_of_other_rows_have_no_say(masked, monkeypatch):
    X, y, mask = masked
    expected = platt(fit(X, y, mask))
    original = InnerCV.out_of_fold
    noise = np.random.default_rng(5).normal(0, 9, (90, 1))

    def disturbed(rows):
        def out_of_fold(self, params, as_distances=False):
            return original(self, params, as_distances) + np.where(rows[:, None], noise, 0)

        return out_of_fold

    monkeypatch.setattr(InnerCV, "out_of_fold", disturbed(~mask))
    assert platt(fit(X, y, mask)) == expected
    assert platt(fit(X, y)) != expected
    monkeypatch.setattr(InnerCV, "out_of_fold", disturbed(mask))
    assert platt(fit(X, y, mask)) != expected


def test_tuning_and_the_machines_still_see_every_row(masked):
    X, y, mask = masked
    masked, plain = fit(X, y, mask), fit(X, y)
    assert masked.search_results_ == plain.search_results_
    ours, theirs = masked.models_[0].machines[0], plain.models_[0].machines[0]
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)
    order = np.argsort(plain.decision_function(X))
    assert (np.diff(masked.decision_function(X)[order]) >= 0).all()


def test_every_voter_is_calibrated_on_the_masked_rows(masked):
    X, y, mask = masked
    kernels = ("linear", "rbf")
    vote = fit(X, y, mask, kernel=kernels, voting="soft")
    alone = [fit(X, y, mask, kernel=kernel) for kernel in kernels]
    assert platt(vote) == [platt(model)[0] for model in alone]


def test_the_mask_needs_no_new_trials(masked, tmp_path, monkeypatch):
    X, y, mask = masked
    path = tmp_path / "studies.log"
    fit(X, y, storage=path)
    expected = platt(fit(X, y, mask))

    def forbidden(*args):
        raise AssertionError("tuned again")

    monkeypatch.setattr(InnerCV, "fold_auc", forbidden)
    assert platt(fit(X, y, mask, storage=path)) == expected
