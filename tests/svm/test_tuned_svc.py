import logging
import pickle
import re

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs, make_classification
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import cnnsvm.svm.tuned_svc as tuned_svc
from cnnsvm.data.splits import grouped_folds
from cnnsvm.svm import TunedSVC
from cnnsvm.svm.calibration import fit_platt
from cnnsvm.svm.inner_cv import inner_folds
from cnnsvm.svm.search import DEFAULTS

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


@parametrize_with_checks(
    [
        TunedSVC(n_trials=2),
        TunedSVC(("linear", "poly"), voting="soft", n_trials=2, cv=2),
        TunedSVC(("linear", "rbf"), calibrate=False, scale=False, n_trials=1, cv=2),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


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


def test_no_source_straddles_inner_folds(sources, seen_folds):
    X, y, groups = sources
    TunedSVC(n_trials=1, cv=4, random_state=0).fit(X, y, groups=groups)
    (folds,) = seen_folds
    assert len(folds) == 4
    for train, test in folds:
        assert set(groups[train]).isdisjoint(groups[test])


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
    np.testing.assert_allclose(model.cv_decision_, out_of_fold, atol=1e-6)


def test_multiclass_is_one_vs_rest():
    X, y = load_iris(return_X_y=True)
    names = load_iris().target_names[y]
    model = TunedSVC(n_trials=1, calibrate=False, random_state=0).fit(X, names)
    reference = make_pipeline(StandardScaler(), OneVsRestClassifier(SVC())).fit(X, y)
    np.testing.assert_allclose(
        model.decision_function(X), reference.decision_function(X), atol=1e-6
    )


@pytest.mark.parametrize("voting", [None, "soft"])
def test_multiclass_probabilities(voting):
    X, y = load_iris(return_X_y=True)
    model = TunedSVC(("linear", "rbf"), voting=voting, n_trials=2, random_state=0).fit(X, y)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(proba.argmax(axis=1), model.predict(X))
    assert model.score(X, y) > 0.9
    assert model.cv_decision_.shape == (150, 3)
    assert np.mean(model.cv_decision_.argmax(axis=1) == y) > 0.85


def test_decision_probability_and_prediction_agree(binary):
    X, y = binary
    model = TunedSVC(n_trials=3, random_state=0).fit(X, y.astype(bool))
    decision, proba = model.decision_function(X), model.predict_proba(X)[:, 1]
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-decision)))
    np.testing.assert_array_equal(model.predict(X), decision > 0)


def test_probabilities_are_calibrated_on_unseen_rows():
    X, y = make_blobs(1200, centers=[[0, 0], [1, 1]], cluster_std=1.0, random_state=0)
    model = TunedSVC("linear", n_trials=2, random_state=0).fit(X[:600], y[:600])
    proba = model.predict_proba(X[600:])[:, 1]
    for low, high in [(0, 0.3), (0.3, 0.7), (0.7, 1)]:
        inside = (proba >= low) & (proba < high)
        assert abs(proba[inside].mean() - y[600:][inside].mean()) < 0.1


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


def test_out_of_fold_decisions_do_not_flatter(binary):
    X, y = binary
    model = TunedSVC(n_trials=3, random_state=0).fit(X, y)
    assert roc_auc_score(y, model.cv_decision_) < roc_auc_score(y, model.decision_function(X))
    assert abs(roc_auc_score(y, model.cv_decision_) - model.best_score_) < 0.1


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


def test_fit_is_deterministic_to_the_bit(binary):
    X, y = binary
    model = TunedSVC(n_trials=12, random_state=7)
    first, again = model.fit(X, y).decision_function(X), model.fit(X, y).decision_function(X)
    other = clone(model).set_params(random_state=8).fit(X, y)
    np.testing.assert_array_equal(first, again)
    assert other.best_params_ != model.best_params_


def test_float32_embeddings_are_computed_in_float64(binary):
    X, y = binary
    single = X.astype(np.float32)
    model = TunedSVC(n_trials=2, random_state=0)
    narrow = model.fit(single, y).decision_function(single)
    wide = model.fit(single.astype(float), y).decision_function(single.astype(float))
    np.testing.assert_array_equal(narrow, wide)


def test_works_in_pipeline_grid_search_and_pickle(binary):
    X, y = binary
    pipeline = make_pipeline(FunctionTransformer(), TunedSVC(n_trials=1, random_state=0))
    search = GridSearchCV(pipeline, {"tunedsvc__kernel": ["rbf", ("linear", "rbf")]}, cv=2)
    search.fit(X, y)
    copy = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(copy.predict_proba(X), search.predict_proba(X))


def test_constant_features_change_nothing(binary):
    X, y = binary
    padded = np.hstack([X, np.full((len(X), 3), 5.0)])
    model = TunedSVC(n_trials=2, random_state=0)
    expected = model.fit(X, y).decision_function(X)
    np.testing.assert_allclose(model.fit(padded, y).decision_function(padded), expected, rtol=1e-6)
    np.testing.assert_array_equal(model.scale_[-3:], 1)


def test_a_smallest_class_without_groups_lowers_the_folds():
    X, y = make_blobs([10, 2], centers=None, random_state=0)
    with pytest.warns(UserWarning, match="cv=3 folds were asked for, but the smallest class has 2"):
        model = TunedSVC(n_trials=2, random_state=0).fit(X, y)
    assert model.n_splits_ == 2


def test_a_class_of_one_row_means_defaults():
    X, y = make_blobs([10, 1], centers=None, random_state=0)
    with pytest.warns(UserWarning, match="smallest class has 1 row"):
        model = TunedSVC(n_trials=2, random_state=0).fit(X, y)
    reference = clone(RBF_PIPELINE).fit(X, y)
    np.testing.assert_allclose(
        model.decision_function(X), reference.decision_function(X), atol=1e-6
    )
    assert np.isnan(model.best_score_)
    assert np.isnan(model.cv_decision_).all()
    assert model.n_splits_ == 0


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


def test_feature_names_are_kept(binary):
    X, y = binary
    frame = pd.DataFrame(X).add_prefix("embedding_")
    model = TunedSVC(n_trials=1, random_state=0).fit(frame, y)
    config, arrays = model.to_state()
    assert list(TunedSVC.from_state(config, arrays).feature_names_in_) == list(frame.columns)
