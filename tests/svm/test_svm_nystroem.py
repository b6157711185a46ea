import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics import roc_auc_score

from cnnsvm.svm import TunedSVC
from cnnsvm.svm.kernels import (
    Kernel,
    check_memory,
    choose_landmarks,
    inverse_root,
    pairwise_base,
)
from cnnsvm.svm.machines import build_machine, solve_on_landmarks

PARAMS = {"C": 1.0, "class_weight": None}


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
    gram = kernel(X, X[landmarks])
    ours = gram @ inverse_root(gram[landmarks])
    reference = Nystroem(kernel="rbf", gamma=0.7, n_components=20).fit(X[landmarks])
    theirs = reference.transform(X)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6)


@pytest.mark.parametrize("name", ["linear", "rbf", "poly"])
def test_the_machine_decides_as_the_linear_one_on_features(name):
    X, y = moons(200)
    landmarks = choose_landmarks(200, 50, 1)
    kernel = Kernel(name, gamma=0.5, degree=2, coef0=1.0)
    base = pairwise_base(name, X, X[landmarks])
    (dual,) = solve_on_landmarks(kernel, base, landmarks, [y == 1], PARAMS)
    margins = build_machine(kernel, X, dual).decide(X)
    gram = kernel(X, X[landmarks])
    weight = np.linalg.pinv(inverse_root(gram[landmarks])) @ dual.coef
    features = gram @ inverse_root(gram[landmarks])
    np.testing.assert_allclose(margins, features @ weight + dual.intercept, atol=1e-5)
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


def test_three_classes_and_groups():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 60)
    X = rng.normal(size=(180, 2)) + np.repeat([[0, 0], [4, 0], [0, 4]], 60, axis=0)
    groups = np.tile(np.arange(60), 3)
    svm = TunedSVC(n_trials=2, n_landmarks=40, random_state=0).fit(X, y, groups)
    assert svm.score(X, y) > 0.9
    np.testing.assert_allclose(svm.predict_proba(X).sum(axis=1), 1)


def test_state_comes_back_to_the_bit():
    X, y = moons(120)
    svm = TunedSVC(n_trials=2, n_landmarks=30, random_state=0).fit(X, y)
    again = TunedSVC.from_state(*svm.to_state())
    assert again.n_landmarks == 30
    np.testing.assert_array_equal(again.decision_function(X), svm.decision_function(X))


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


@pytest.mark.parametrize("value", [0, -1, 2.5, "many"])
def test_a_bad_number_is_refused(value):
    with pytest.raises(ValueError, match="n_landmarks"):
        TunedSVC(n_landmarks=value).fit(*moons(20))
