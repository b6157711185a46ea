"""CalibratedClassifier: any classifier, calibrated out of fold as TunedSVC is."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict

from cnnsvm.data.splits import grouped_folds
from cnnsvm.svm import CalibratedClassifier, TunedSVC
from cnnsvm.svm.calibration import fit_mixing, fit_platt, mix

FOREST = RandomForestClassifier(50, min_samples_leaf=3, random_state=0)


@pytest.fixture(scope="module")
def binary():
    return make_classification(600, 8, n_informative=4, class_sep=0.7, random_state=0)


@pytest.fixture(scope="module")
def three():
    return make_blobs(600, n_features=4, centers=3, cluster_std=5.0, random_state=0)


def calibrate(classifier, X, y, groups=None):
    return CalibratedClassifier(classifier, random_state=0).fit(X, y, groups)


def folds_of(y, groups=None):
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    return grouped_folds(y, groups, 3, seed)


@pytest.mark.parametrize("data", ["binary", "three"])
def test_grouped_out_of_fold_scores_are_scaled_and_mixed(data, request):
    X, y = request.getfixturevalue(data)
    groups = np.arange(len(y)) // 2
    plain = LogisticRegression()
    raw = cross_val_predict(plain, X, y, cv=folds_of(y, groups), method="decision_function")
    raw = raw.reshape(len(y), -1)
    positive = [1] if data == "binary" else [0, 1, 2]
    lines = np.array([fit_platt(raw[:, k], y == label) for k, label in enumerate(positive)])
    odds = lines[:, 0] * raw + lines[:, 1]
    mixing = fit_mixing(odds, y)
    model = calibrate(plain, X, y, groups)
    np.testing.assert_allclose(model.cv_decision_.reshape(raw.shape), mix(odds, mixing))
    final = plain.fit(X, y).decision_function(X).reshape(raw.shape)
    expected = mix(lines[:, 0] * final + lines[:, 1], mixing)
    np.testing.assert_allclose(model.decision_function(X).reshape(raw.shape), expected)


@pytest.mark.parametrize("data", ["binary", "three"])
def test_it_is_as_good_as_what_is_calibrated_by_itself(data, request):
    """Logistic regression is calibrated by its fit, TunedSVC by the same scaling as here."""
    X, y = request.getfixturevalue(data)
    fresh, truth = X[300:], y[300:]
    tuned = TunedSVC("linear", n_trials=1, random_state=0)
    pairs = [
        (LogisticRegression(), LogisticRegression()),
        (TunedSVC("linear", n_trials=1, calibrate=False, random_state=0), tuned),
    ]
    for classifier, reference in pairs:
        ours = calibrate(classifier, X[:300], y[:300]).predict_proba(fresh)
        theirs = reference.fit(X[:300], y[:300]).predict_proba(fresh)
        assert log_loss(truth, ours) < log_loss(truth, theirs) + 0.02
        np.testing.assert_allclose(ours, theirs, atol=0.15)


@pytest.mark.parametrize("data", ["binary", "three"])
def test_probabilities_stand_in_where_there_is_no_decision_function(data, request):
    X, y = request.getfixturevalue(data)
    model = calibrate(FOREST, X[:300], y[:300])
    proba = model.predict_proba(X[300:])
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    plain = FOREST.fit(X[:300], y[:300]).predict_proba(X[300:])
    assert log_loss(y[300:], proba) < log_loss(y[300:], plain) + 0.01


def test_groups_reach_a_classifier_that_takes_them(monkeypatch, binary):
    X, y = binary[0][:60], binary[1][:60]
    groups, seen, fit = np.arange(60) // 2, [], TunedSVC.fit

    def watched(self, X, y, groups=None, calibration_rows=None):
        seen.append(len(groups))
        return fit(self, X, y, groups)

    monkeypatch.setattr(TunedSVC, "fit", watched)
    calibrate(TunedSVC("linear", n_trials=1, calibrate=False), X, y, groups)
    assert seen[-1] == 60
    assert sum(seen) == 60 * 2 + 60


@pytest.mark.parametrize(("cv", "n_splits"), [(None, 5), (3, 3)])
def test_a_search_of_a_classifier_separates_no_group(binary, cv, n_splits):
    X, y = binary[0][:90], binary[1][:90]
    groups = np.random.default_rng(0).permutation(90) // 3
    model = calibrate(GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=cv), X, y, groups)
    folds = model.classifier_.cv
    assert len(folds) == n_splits
    assert all(set(groups[train]).isdisjoint(groups[test]) for train, test in folds)


def test_a_splitter_of_ones_own_stays(binary):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=KFold(2))
    model = calibrate(search, binary[0][:90], binary[1][:90], np.arange(90) // 3)
    assert isinstance(model.classifier_.cv, KFold)
