"""What every classifier of `cnnsvm.svm` keeps: scikit-learn's manners, groups, calibration."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import load_iris, make_blobs, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from cnnsvm.svm import CalibratedClassifier, TunedSVC, calibration, tuned_svc
from cnnsvm.svm.calibration import choose_calibration_rows, fit_platt
from cnnsvm.svm.inner_cv import inner_folds

pytestmark = pytest.mark.filterwarnings("ignore:Solver terminated early")
FOREST = RandomForestClassifier(20, min_samples_leaf=3, random_state=0)
CLASSIFIERS = {
    "rbf": TunedSVC(n_trials=2, random_state=0),
    "vote": TunedSVC(("linear", "rbf"), voting="soft", n_trials=2, random_state=0),
    "landmarks": TunedSVC("linear", n_trials=2, n_landmarks=30, random_state=0),
    "logistic": CalibratedClassifier(LogisticRegression(max_iter=500), random_state=0),
    "forest": CalibratedClassifier(FOREST, random_state=0),
}
each = pytest.mark.parametrize("classifier", CLASSIFIERS.values(), ids=CLASSIFIERS)
one_of_each_class = pytest.mark.parametrize(
    "classifier", [CLASSIFIERS["rbf"], CLASSIFIERS["logistic"]], ids=["rbf", "logistic"]
)


@pytest.fixture(scope="module")
def binary():
    return make_classification(90, 12, n_informative=4, class_sep=0.7, flip_y=0.1, random_state=0)


@pytest.fixture
def seen_folds(monkeypatch):
    """Collect the inner folds that a fit uses."""
    seen = []

    def spy(*args):
        seen.append(inner_folds(*args))
        return seen[-1]

    for module in (tuned_svc, calibration):
        monkeypatch.setattr(module, "inner_folds", spy)
    return seen


@parametrize_with_checks(
    [
        TunedSVC(n_trials=2),
        TunedSVC(("linear", "poly"), voting="soft", n_trials=2, cv=2),
        TunedSVC(("linear", "rbf"), calibrate=False, scale=False, n_trials=1, cv=2),
        CalibratedClassifier(LogisticRegression()),
    ]
)
def test_common_checks(estimator, check):
    check(estimator)


@each
@pytest.mark.parametrize("labels", [[False, True], ["b", "a", "c"]])
def test_decision_probability_and_prediction_agree(classifier, labels):
    X, y = load_iris(return_X_y=True)
    X, y = (X[y > 0], y[y > 0] - 1) if len(labels) == 2 else (X, y)
    model = clone(classifier).fit(X, np.array(labels)[y])
    odds, proba = model.decision_function(X), model.predict_proba(X)
    np.testing.assert_array_equal(model.classes_, sorted(labels))
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[proba.argmax(axis=1)], model.predict(X))
    np.testing.assert_allclose(proba[:, 1], expit(odds if len(labels) == 2 else odds[:, 1]))
    assert model.score(X, np.array(labels)[y]) > 0.9
    assert model.cv_decision_.shape == odds.shape
    if len(labels) == 3:
        np.testing.assert_allclose(expit(model.cv_decision_).sum(axis=1), 1)


@each
def test_no_source_straddles_inner_folds(classifier, binary, seen_folds):
    X, y = binary
    groups = np.arange(90) // 3
    clone(classifier).set_params(cv=4).fit(X, y, groups=groups)
    (folds,) = seen_folds
    assert len(folds) == 4
    for train, test in folds:
        assert set(groups[train]).isdisjoint(groups[test])


@each
def test_out_of_fold_decisions_do_not_flatter(classifier, binary):
    X, y = binary
    model = clone(classifier).fit(X, y)
    assert roc_auc_score(y, model.cv_decision_) < roc_auc_score(y, model.decision_function(X))


@each
def test_probabilities_are_calibrated_on_unseen_rows(classifier):
    X, y = make_blobs(1200, centers=[[0, 0], [1, 1]], cluster_std=1.0, random_state=0)
    proba = clone(classifier).fit(X[:600], y[:600]).predict_proba(X[600:])[:, 1]
    for low, high in [(0, 0.3), (0.3, 0.7), (0.7, 1)]:
        inside = (proba >= low) & (proba < high)
        assert abs(proba[inside].mean() - y[600:][inside].mean()) < 0.1


@each
def test_fit_is_deterministic_to_the_bit_and_starts_afresh(classifier, binary):
    X, y = binary
    model = clone(classifier)
    first = model.fit(X, y).decision_function(X)
    assert model.fit(X, np.arange(90) % 3).mixing_.shape == (3, 4)
    np.testing.assert_array_equal(model.fit(X, y).decision_function(X), first)
    assert model.mixing_ is None


@each
def test_float32_embeddings_are_computed_in_float64(classifier, binary):
    X, y = binary[0].astype(np.float32), binary[1]
    narrow = clone(classifier).fit(X, y).decision_function(X)
    wide = clone(classifier).fit(X.astype(float), y).decision_function(X.astype(float))
    np.testing.assert_array_equal(narrow, wide)


@one_of_each_class
def test_works_in_pipeline_grid_search_and_pickle(classifier, binary):
    X, y = binary
    pipeline = make_pipeline(FunctionTransformer(), clone(classifier))
    search = GridSearchCV(pipeline, {f"{pipeline.steps[1][0]}__cv": [2, 3]}, cv=2).fit(X, y)
    copy = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(copy.predict_proba(X), search.predict_proba(X))


@one_of_each_class
def test_feature_names_are_kept(classifier, binary):
    frame = pd.DataFrame(binary[0]).add_prefix("embedding_")
    model = clone(classifier).fit(frame, binary[1])
    assert list(model.feature_names_in_) == list(frame.columns)


@each
@pytest.mark.parametrize(
    ("n_smallest", "n_splits", "message"), [(2, 2, "3 folds.*2 rows"), (1, 0, "1 row")]
)
def test_a_small_class_without_groups_lowers_the_folds(classifier, n_smallest, n_splits, message):
    X, y = make_blobs([10, n_smallest], centers=None, random_state=0)
    with pytest.warns(UserWarning, match=message):
        model = clone(classifier).fit(X, y)
    assert np.isnan(model.cv_decision_).all() == (n_splits == 0)
    assert np.isfinite(model.decision_function(X)).all()
    assert getattr(model, "n_splits_", n_splits) == n_splits


@one_of_each_class
def test_too_few_groups_is_an_error(classifier, binary):
    X, y = binary
    groups = np.where(y == 1, np.arange(90) % 2, np.arange(90))
    with pytest.raises(ValueError, match=r"2 group.*3 folds"):
        clone(classifier).fit(X, y, groups=groups)


@one_of_each_class
def test_a_failed_fit_leaves_what_was_there(classifier, binary):
    X, y = binary
    model = clone(classifier)
    for rejected in (np.zeros(90), np.full(90, np.nan)):
        with pytest.raises(ValueError, match=r"class|NaN"):
            model.fit(X, rejected)
    with pytest.raises(NotFittedError):
        model.predict(X)
    expected = model.fit(X, y).decision_function(X)
    with pytest.raises(ValueError, match="groups"):
        model.fit(X, 1 - y, groups=[None] * 90)
    np.testing.assert_array_equal(model.decision_function(X), expected)


@one_of_each_class
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_embeddings_are_refused(classifier, binary, value):
    X, y = binary
    model = clone(classifier).fit(X, y)
    broken = X.copy()
    broken[7, 2] = value
    for method in (lambda: model.predict(broken), lambda: model.fit(broken, y)):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            method()


@one_of_each_class
def test_one_class_is_an_error(classifier, binary):
    with pytest.raises(ValueError, match="only one class, 'real'"):
        clone(classifier).fit(binary[0], ["real"] * 90)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (TunedSVC("sigmoid"), "kernel.*'sigmoid'"),
        (TunedSVC(()), r"kernel.*\(\)"),
        (TunedSVC(("rbf", "rbf")), "kernel.*different"),
        (TunedSVC(("rbf", "sigmoid")), "kernel.*sigmoid"),
        (TunedSVC(3), "kernel.*3"),
        (TunedSVC(n_trials=0), "n_trials.*0"),
        (TunedSVC(n_trials=2.5), r"n_trials.*2\.5"),
        (TunedSVC(cv=1), "cv.*1"),
        (TunedSVC(voting="hard"), "voting.*'hard'"),
        (TunedSVC(voting="soft", calibrate=False), "calibrate=True or voting=None"),
        (TunedSVC(calibrate="yes"), "calibrate.*'yes'"),
        (TunedSVC(scale="yes"), "scale.*'yes'"),
        (TunedSVC(verbose="yes"), "verbose.*'yes'"),
        (TunedSVC(cache_size=0), "cache_size.*0"),
        (TunedSVC(n_landmarks=0), "n_landmarks.*0"),
        (TunedSVC(n_landmarks=2.5), r"n_landmarks.*2\.5"),
        (TunedSVC(storage=3), "storage.*3"),
        (TunedSVC(random_state="a"), "random_state.*'a'"),
        (CalibratedClassifier(FunctionTransformer()), "classifier.*FunctionTransformer"),
        (CalibratedClassifier(LogisticRegression(), cv=1), "cv.*1"),
        (CalibratedClassifier(LogisticRegression(), random_state="a"), "random_state.*'a'"),
    ],
)
def test_bad_parameters_are_named_with_their_value(binary, model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*binary)


def without_mixing(monkeypatch):
    for module in (tuned_svc, calibration):
        monkeypatch.setattr(module, "fit_mixing", lambda *_: None)


single_voters = pytest.mark.parametrize(
    "classifier", [c for name, c in CLASSIFIERS.items() if name != "vote"]
)


@single_voters
@pytest.mark.parametrize("n_classes", [2, 3])
def test_platt_scaling_is_that_of_the_calibration_rows(classifier, n_classes, monkeypatch):
    without_mixing(monkeypatch)
    X, y = make_blobs(90, centers=n_classes, cluster_std=6.0, random_state=1)
    mask = np.random.default_rng(1).random(90) < 0.5
    odds = clone(classifier).fit(X, y, None, mask).cv_decision_.reshape(90, -1)
    plain = clone(classifier).fit(X, y).cv_decision_.reshape(90, -1)
    targets = y[:, None] == (np.array([1]) if n_classes == 2 else np.arange(n_classes))
    for k in range(targets.shape[1]):
        # Platt scaling of what is calibrated by all rows, which differs by slope and offset only
        slope, offset = fit_platt(plain[mask, k], targets[mask, k])
        np.testing.assert_allclose(odds[:, k], slope * plain[:, k] + offset, atol=1e-6)
        assert not np.allclose(odds[:, k], plain[:, k], atol=0.01)


@each
@pytest.mark.parametrize("n_classes", [2, 3])
def test_calibration_rows_that_lack_a_class_and_all_rows_change_nothing(classifier, n_classes):
    X, y = make_blobs(60, centers=n_classes, cluster_std=6.0, random_state=0)
    plain = clone(classifier).fit(X, y).decision_function(X)
    for rows in (y != 1, np.zeros(60, bool), np.ones(60, bool)):
        model = clone(classifier).fit(X, y, calibration_rows=rows)
        np.testing.assert_array_equal(model.decision_function(X), plain)


@one_of_each_class
@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (np.ones(89, bool), r"bool \(89,\)"),
        (np.ones(90, int), r"int64 \(90,\)"),
        (np.ones((90, 1), bool), r"bool \(90, 1\)"),
        (np.arange(30), r"int64 \(30,\)"),
        (True, r"bool \(\)"),
    ],
)
def test_calibration_rows_are_one_boolean_a_row(classifier, binary, rows, named):
    with pytest.raises(ValueError, match=rf"calibration_rows .*\(90,\).*{named}"):
        clone(classifier).fit(*binary, calibration_rows=rows)


def test_a_list_of_booleans_chooses_rows():
    codes = np.array([0, 1, 0, 1])
    rows = choose_calibration_rows([True, True, False, False], codes)
    assert rows.tolist() == [True, True, False, False]
    assert choose_calibration_rows([True, False, True, False], codes).all()
    assert choose_calibration_rows(None, codes).all()
