"""Kernels, machines and inner cross-validation, exact and on landmarks."""

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_moons
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from cnnsvm.data.splits import grouped_folds
from cnnsvm.svm import TunedSVC, machines
from cnnsvm.svm.inner_cv import InnerCV, macro_auc, sample_folds
from cnnsvm.svm.machines import (
    Kernel,
    NystroemFeatures,
    build_machine,
    check_memory,
    choose_landmarks,
    fit_machines,
    fit_scaler,
    gamma_unit,
    inverse_root,
    make_kernel,
    pairwise_base,
)
from cnnsvm.svm.space import DEFAULTS, SPACES

KERNELS = [
    Kernel("linear", gamma=0.1),
    Kernel("rbf", gamma=0.2),
    Kernel("poly", gamma=0.1, degree=3, coef0=0.5),
]
PARAMS = {"C": 1.0, "class_weight": None}
NAMES = [kernel.name for kernel in KERNELS]


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(120, 10, n_informative=4, class_sep=0.6, random_state=0)
    return X[:80], y[:80] == 1, X[80:]


@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_decisions_are_those_of_svc(data, kernel, class_weight):
    X, target, X_new = data
    params = {"C": 3.0, "class_weight": class_weight}
    dual = machines.solve_dual(kernel(X, X), target, params, tol=1e-9)
    ours = machines.build_machine(kernel, X, dual).decide(X_new)
    svc = SVC(tol=1e-9, **params, **kernel.libsvm_params()).fit(X, target)
    np.testing.assert_allclose(ours, svc.decision_function(X_new), atol=1e-6)


@pytest.mark.parametrize(("cache_size", "atol"), [(100, 1e-9), (0.01, 1e-5)])
def test_distances_are_geometric_and_centred(data, cache_size, atol):
    X, target, _ = data
    columns = target[:, np.newaxis]
    (ours,), (dual,) = fit_machines("linear", X, columns, DEFAULTS["linear"], cache_size)
    margins, weight = ours.decide(X), ours.vectors[0] / np.sqrt(gamma_unit(X))
    expected = (margins - margins.mean()) / np.linalg.norm(weight)
    np.testing.assert_allclose(dual.distance(margins), expected, rtol=0, atol=atol)


def test_equal_rows_have_finite_distances():
    X, target = np.ones((6, 2)), np.arange(6) < 3
    _, (dual,) = fit_machines("rbf", X, target[:, np.newaxis], DEFAULTS["rbf"], 100)
    assert dual.norm == 1


def test_the_linear_machine_is_its_primal_weight(data):
    X, target, X_new = data
    params = {"C": 0.5, "class_weight": None}
    dual = machines.solve_dual(X @ X.T, target, params, tol=1e-9)
    ours = machines.build_machine(Kernel("linear"), X, dual)
    svc = SVC(kernel="linear", C=0.5, tol=1e-9).fit(X, target)
    assert ours.vectors.shape == (1, 10)
    np.testing.assert_allclose(ours.vectors, svc.coef_, atol=1e-6)
    np.testing.assert_allclose(ours.decide(X_new), svc.decision_function(X_new), atol=1e-6)


def test_blocks_of_rows_change_nothing(data, monkeypatch):
    X, target, X_new = data
    (ours,), _ = fit_machines("rbf", X, target[:, np.newaxis], DEFAULTS["rbf"], 100)
    whole = ours.decide(X_new)
    monkeypatch.setattr(machines, "BLOCK_BYTES", 8 * len(ours.vectors) * 3)
    np.testing.assert_allclose(ours.decide(X_new), whole, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_less_memory_gives_the_same_scores(data, name):
    X, target, _ = data
    rows = np.arange(80)
    folds = [(rows[rows % 2 == part], rows[rows % 2 != part]) for part in (0, 1)]
    targets = np.column_stack([target, ~target])
    kept, computed = (InnerCV(name, X, targets, folds, True, size) for size in (100, 0.06))
    assert (kept.keeps_folds, computed.keeps_folds) == (True, False)
    scores = [inner.out_of_fold(DEFAULTS[name]) for inner in (kept, computed)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_folds_that_share_a_matrix_score_as_those_of_their_own(name):
    X, y = make_classification(1000, 10, n_informative=4, class_sep=0.6, random_state=0)
    folds = grouped_folds(y, None, 4, 0)
    own, shared = (InnerCV(name, X, y[:, np.newaxis] == 1, folds, True, size) for size in (100, 10))
    assert (own.keeps_folds, shared.keeps_folds) == (True, False)
    scores = [inner.fold_aucs(DEFAULTS[name]) for inner in (own, shared)]
    np.testing.assert_allclose(scores[0], scores[1], atol=0.003)


def test_a_search_that_lacks_memory_takes_a_sample_and_says_so(data, monkeypatch, caplog):
    monkeypatch.setattr("cnnsvm.svm.inner_cv.MIN_SEARCH_ROWS", 40)
    X, target, _ = data
    folds = grouped_folds(target, None, 2, 0)
    inner = InnerCV("rbf", X, target[:, np.newaxis], folds, True, 0.01)
    sampled = inner.fold_aucs(DEFAULTS["rbf"])
    assert "uses 40 of 80 rows" in caplog.text
    assert "cache_size=1 would" in caplog.text
    assert sampled != InnerCV("rbf", X, target[:, np.newaxis], folds, True, 100).fold_aucs(
        DEFAULTS["rbf"]
    )
    assert np.isfinite(inner.out_of_fold(DEFAULTS["rbf"])).all()


def test_a_study_of_a_sample_is_not_resumed_with_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnsvm.svm.inner_cv.MIN_SEARCH_ROWS", 40)
    X, y = make_classification(80, 5, random_state=0)
    how = {"n_trials": 2, "storage": tmp_path / "study.journal", "random_state": 0}
    few = TunedSVC(cache_size=0.01, **how).fit(X, y)
    assert few.score(X, y) > 0.8
    with pytest.raises(ValueError, match="other settings"):
        TunedSVC(**how).fit(X, y)


def test_a_sample_keeps_the_folds_and_the_share_of_classes():
    rng = np.random.default_rng(0)
    target = rng.random(3000) < 0.02
    folds = grouped_folds(target, rng.integers(0, 700, 3000), 3, 0)
    chosen, fewer = sample_folds(folds, target[:, np.newaxis], 600, 0)
    assert len(chosen) == pytest.approx(600, abs=60)
    assert (np.diff(chosen) > 0).all()
    for (train, test), (some_train, some_test) in zip(folds, fewer, strict=True):
        assert set(chosen[some_train]) <= set(train)
        assert set(chosen[some_test]) <= set(test)
        assert target[chosen[some_test]].sum() >= min(20, target[test].sum())
        assert len(some_train) + len(some_test) == len(chosen)


def test_scaling_sees_the_training_fold_only(data):
    X, target, _ = data
    folds = [(np.arange(40), np.arange(40, 80))]
    shifted = X.copy()
    shifted[41:] += 1000
    params = DEFAULTS["rbf"]
    first, second = (
        InnerCV("rbf", rows, target[:, np.newaxis], folds, True, 100).fold_scores(0, params)
        for rows in (X, shifted)
    )
    assert first[0] == second[0]


def test_a_target_that_cannot_be_fitted_scores_nan(data):
    X, target, _ = data
    order = np.argsort(target, kind="stable")
    inner = InnerCV("rbf", X, target[:, np.newaxis], [(order[:20], order[20:])], True, 100)
    assert inner.scorable() == []
    assert np.isnan(inner.out_of_fold(DEFAULTS["rbf"])).all()
    assert np.isnan(inner.fold_auc(0, DEFAULTS["rbf"]))


def test_macro_auc_leaves_undefined_columns_out():
    targets = np.array([[True, True], [False, True]])
    assert macro_auc(targets, np.array([[1.0, 0], [0.0, 1]])) == 1
    assert np.isnan(macro_auc(targets[:, 1:], np.zeros((2, 1))))


def test_gamma_unit_is_scikit_learns_scale(data):
    X, target, _ = data
    assert gamma_unit(X) == pytest.approx(SVC(gamma="scale").fit(X, target)._gamma)
    assert gamma_unit(np.ones((3, 2))) == 1
    assert make_kernel("rbf", {"gamma_factor": 2.0}, 0.25).gamma == 0.5


def test_constant_features_have_scale_one():
    mean, deviation = fit_scaler(np.array([[5.0, 1], [5, 3]]), scale=True)
    np.testing.assert_array_equal(mean, [5, 2])
    np.testing.assert_array_equal(deviation, [1, 1])


@pytest.mark.filterwarnings("ignore:Solver terminated early")
@pytest.mark.parametrize("name", NAMES)
def test_every_corner_of_the_space_can_be_fitted(data, name):
    X, target, X_new = data
    space = SPACES[name]
    low = {k: getattr(d, "low", "balanced") for k, d in space.items()}
    high = {k: getattr(d, "high", None) for k, d in space.items()}
    for params in (low, high):
        (ours,), _ = fit_machines(name, X, target[:, np.newaxis], params, 100)
        assert np.isfinite(ours.decide(X_new)).all()


def test_the_estimator_does_not_depend_on_memory(data):
    X, target, X_new = data
    fits = [TunedSVC(n_trials=2, cache_size=c, random_state=0).fit(X, target) for c in (100, 0.01)]
    first, second = (fit.decision_function(X_new) for fit in fits)
    np.testing.assert_allclose(first, second, atol=1e-2)


def moons(n=600, seed=0):
    X, y = make_moons(n, noise=0.15, random_state=seed)
    return X, y


def test_the_root_is_that_of_the_inverse():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 40))
    matrix = rows @ rows.T
    root = inverse_root(matrix)
    np.testing.assert_allclose(root @ matrix @ root, np.eye(30), atol=1e-8)


def test_directions_without_weight_are_left_out():
    rows = np.random.default_rng(0).normal(size=(20, 3))  # rank 3
    root = inverse_root(rows @ rows.T)
    assert np.isfinite(root).all()
    assert np.linalg.matrix_rank(root, tol=1e-6) == 3


def test_features_are_scikit_learns():
    """The kernel of the features is that of scikit-learn's Nystroem on the same landmarks."""
    X, _ = moons(80)
    landmarks = choose_landmarks(80, 20, 0)
    kernel = Kernel("rbf", gamma=0.7)
    ours = NystroemFeatures(kernel, pairwise_base("rbf", X, X[landmarks]), landmarks).features
    reference = Nystroem(kernel="rbf", gamma=0.7, n_components=20).fit(X[landmarks])
    theirs = reference.transform(X)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "rbf", "poly"])
def test_the_machine_decides_as_the_linear_one_on_features(name):
    X, y = moons(200)
    landmarks = choose_landmarks(200, 50, 1)
    kernel = Kernel(name, gamma=0.5, degree=2, coef0=1.0)
    base = pairwise_base(name, X, X[landmarks])
    dual = NystroemFeatures(kernel, base, landmarks).solve(y == 1, PARAMS)
    margins = build_machine(kernel, X, dual).decide(X)
    gram = kernel(X, X[landmarks])
    weight = np.linalg.pinv(inverse_root(gram[landmarks])) @ dual.coef
    features = gram @ inverse_root(gram[landmarks])
    # the inverse of a nearly singular matrix: how near depends on the build of LAPACK
    np.testing.assert_allclose(margins, features @ weight + dual.intercept, atol=1e-4)
    assert dual.centre == pytest.approx(margins.mean(), abs=1e-6)
    assert dual.norm == pytest.approx(np.linalg.norm(weight), rel=1e-4)


def test_enough_landmarks_rank_as_the_exact_machine():
    X, y = moons()
    fresh, truth = moons(seed=1)
    exact = TunedSVC(n_trials=4, random_state=0).fit(X, y)
    approximate = TunedSVC(n_trials=4, n_landmarks=150, random_state=0).fit(X, y)
    a, b = (svm.decision_function(fresh) for svm in (exact, approximate))
    assert np.corrcoef(a, b)[0, 1] > 0.97
    assert roc_auc_score(truth, b) > roc_auc_score(truth, a) - 0.005
    assert len(approximate.models_[0].machines[0].vectors) == 150


def test_few_landmarks_lose_what_the_data_need():
    """The approximation is real: three landmarks cannot follow the moons."""
    X, y = moons()
    fresh, truth = moons(seed=1)
    poor = TunedSVC(n_trials=4, n_landmarks=3, random_state=0).fit(X, y)
    rich = TunedSVC(n_trials=4, n_landmarks=100, random_state=0).fit(X, y)
    assert poor.score(fresh, truth) < rich.score(fresh, truth) - 0.03


def test_no_more_rows_than_landmarks_is_exact():
    X, y = moons(60)
    exact = TunedSVC(n_trials=2, random_state=0).fit(X, y)
    same = TunedSVC(n_trials=2, n_landmarks=60, random_state=0).fit(X, y)
    np.testing.assert_array_equal(same.decision_function(X), exact.decision_function(X))


def test_the_seed_chooses_the_landmarks():
    X, y = moons(200)
    one, same, other = (
        TunedSVC(n_trials=1, n_landmarks=20, random_state=seed).fit(X, y).models_[0].machines[0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.vectors, same.vectors)
    assert not np.array_equal(one.vectors, other.vectors)


def test_a_study_of_exact_machines_is_not_resumed(tmp_path):
    X, y = moons(100)
    storage = tmp_path / "study.journal"
    TunedSVC(n_trials=1, storage=storage, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="other settings"):
        TunedSVC(n_trials=1, n_landmarks=20, storage=storage, random_state=0).fit(X, y)


def test_memory_is_refused_before_it_is_taken():
    check_memory(1000, 100, limit=3 * 8 * 1000 * 100)
    with pytest.raises(MemoryError, match=r"n_landmarks=100 .* 50 landmarks"):
        check_memory(1000, 100, limit=3 * 8 * 1000 * 50)
    with pytest.raises(MemoryError, match="landmarks"):
        choose_landmarks(10**9, 10**5, 0)
