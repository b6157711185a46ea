import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC

from cnnsvm.svm import TunedSVC, smo
from cnnsvm.svm.gram import KernelRows, SharedGram, score_fold
from cnnsvm.svm.machines import Kernel, fit_scaler
from cnnsvm.svm.smo import solve

KERNELS = [Kernel("linear", 0.2), Kernel("rbf", 0.3), Kernel("poly", 0.1, 3, 0.5)]
settings.register_profile("smo", deadline=None, max_examples=60)
settings.load_profile("smo")


def problem(seed, n, overlap=1.0):
    rng = np.random.default_rng(seed)
    target = np.arange(n) % 2 == 0
    X = rng.normal(size=(n, 4)) + target[:, None] / overlap
    return X, target


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 60),
    kernel=st.sampled_from(KERNELS),
    C=st.floats(1e-3, 1e2),
    held_out=st.floats(0, 0.4),
)
def test_margins_of_all_rows_are_those_of_svc(seed, n, kernel, C, held_out):
    X, target = problem(seed, n)
    fitted = np.random.default_rng(seed).random(n) >= held_out
    fitted[:4] = True
    weights, margins, _ = solve(kernel(X, X), target, np.where(fitted, C, 0.0), tol=1e-8)
    svc = SVC(C=C, tol=1e-8, **kernel.libsvm_params()).fit(X[fitted], target[fitted])
    free = (np.abs(weights) > 1e-6 * C) & (np.abs(weights) < C * (1 - 1e-6))
    expected = svc.decision_function(X)
    if free.any():  # else any of a range of intercepts is optimal
        np.testing.assert_allclose(margins, expected, rtol=1e-4, atol=1e-3)
    else:
        np.testing.assert_allclose(np.ptp(margins - expected), 0, atol=1e-3)
    assert not weights[~fitted].any()
    assert (weights[target] >= 0).all()
    assert (weights[~target] <= 0).all()
    assert np.abs(weights).max() <= C
    assert weights.sum() == pytest.approx(0, abs=1e-8 * C * n)


@given(seed=st.integers(0, 10**6), C=st.floats(1e-3, 1e3), kernel=st.sampled_from(KERNELS))
def test_at_the_usual_tolerance_single_precision_is_enough(seed, C, kernel):
    X, target = problem(seed, 40)
    box = np.full(40, C)
    margins = solve(kernel(X, X).astype(np.float32), target, box).margins
    exact = solve(kernel(X, X), target, box, tol=1e-8).margins
    agree = (margins > 0) == (exact > 0)
    assert agree[np.abs(exact) > 0.05].all()


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(12, 90),
    kernel=st.sampled_from(KERNELS),
    C=st.floats(1e-3, 1e2),
    weight=st.sampled_from([1.0, 1.1]),
)
def test_the_machine_of_a_fold_is_the_same_from_the_start_of_another(seed, n, kernel, C, weight):
    X, target = problem(seed, n)
    fold = np.random.default_rng(seed).permutation(np.arange(n) // 4 % 3)
    gram = kernel(X, X)
    boxes = [np.where(fold != k, C * weight**k, 0.0) for k in (0, 1)]
    start = solve(gram, target, boxes[0], tol=1e-8)
    alone, seeded = (solve(gram, target, boxes[1], 1e-8, start=each) for each in (None, start))
    apart = alone.margins - seeded.margins
    np.testing.assert_allclose(apart, apart.mean(), atol=1e-3)  # but for the range of intercepts
    if ((np.abs(alone.weights) > 1e-6 * C) & (np.abs(alone.weights) < 0.999 * boxes[1])).any():
        np.testing.assert_allclose(apart, 0, atol=1e-3)
    assert seeded.weights.sum() == pytest.approx(0, abs=1e-8 * C * n)
    assert (np.abs(seeded.weights) <= boxes[1]).all()
    again = solve(gram, target, boxes[0], tol=1e-8, start=start)  # nothing is left to do
    np.testing.assert_allclose(again.weights, start.weights, atol=1e-6 * C)


@pytest.fixture
def small_sets(monkeypatch):
    """Working sets of which even small problems need many."""
    monkeypatch.setattr(smo, "WHOLE_ROWS", 0)
    monkeypatch.setattr(smo, "WORKING_ROWS", 16)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("C", [0.01, 1, 100])
def test_working_sets_and_rows_on_demand_find_the_machine_of_svc(small_sets, kernel, C):
    X, target = problem(0, 300)
    fitted = np.arange(300) % 5 > 0
    box = np.where(fitted, C, 0.0)
    svc = SVC(C=C, tol=1e-6, **kernel.libsvm_params()).fit(X[fitted], target[fitted])
    expected = svc.decision_function(X)
    rows = KernelRows(kernel, X, np.arange(300), cache_size=1e-3)  # in single precision
    for gram, tol, atol in ((kernel(X, X), 1e-6, 1e-9), (rows, 1e-4, 1e-3)):
        found = solve(gram, target, box, tol=tol)
        np.testing.assert_allclose(found.margins, expected, rtol=1e-3, atol=1e-3)
        own = kernel(X, X) @ found.weights + found.intercept
        np.testing.assert_allclose(found.margins, own, rtol=0, atol=atol)


def test_rows_on_demand_are_those_of_the_kernel_however_few_are_kept(monkeypatch):
    monkeypatch.setattr(smo, "WHOLE_ROWS", 0)
    monkeypatch.setattr(smo, "WORKING_ROWS", 8)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) + 1000  # far from 0, where squares lose digits
    kernel = Kernel("rbf", 0.3)
    gram, exact = KernelRows(kernel, X, np.arange(40), cache_size=1e-6), kernel(X, X)
    for _ in range(30):
        numbers = rng.permutation(40)[:4]
        store, places = gram.load(numbers)
        assert len(store) == 8
        np.testing.assert_allclose(store[places], exact[numbers], atol=1e-6)
    np.testing.assert_allclose(gram.diagonal(), 1)


def test_a_machine_that_does_not_converge_warns(monkeypatch):
    monkeypatch.setattr(smo, "MIN_ITER_LIMIT", 1)
    X, target = problem(0, 40, overlap=9)
    gram = Kernel("linear", 1e3)(X, X)
    with pytest.warns(ConvergenceWarning, match="has not converged"):
        solve(gram, target, np.full(40, 1e6), tol=1e-9, warn=True)


@pytest.mark.parametrize("name", ["linear", "rbf", "poly"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_fold_is_scored_as_by_svc(name, class_weight):
    X, y = make_classification(200, 10, n_informative=5, weights=[0.7], random_state=0)
    train, test = np.arange(150), np.arange(150, 200)
    mean, deviation = fit_scaler(X[train], True)
    Z = (X - mean) / deviation
    gram = SharedGram(name, Z, train)
    params = {"C": 2.0, "class_weight": class_weight, "degree": 2, "coef0": 1.0}
    params["gamma_factor"] = 0.5
    targets = np.column_stack([y == 1, y == 0, y == 2])
    scores = score_fold(gram.matrix(params), (train, test), targets, params)
    kernel = Kernel(name, gram.unit * 0.5, 2 if name == "poly" else 1, 1.0 if name == "poly" else 0)
    svc = SVC(C=2.0, class_weight=class_weight, **kernel.libsvm_params()).fit(Z[train], y[train])
    np.testing.assert_allclose(scores[:, 0], svc.decision_function(Z[test]), atol=1e-2)
    np.testing.assert_allclose(scores[:, 1], -scores[:, 0], atol=1e-2)
    assert np.isnan(scores[:, 2]).all()


def test_equal_rows_and_flat_kernels_end():
    margins = solve(np.ones((6, 6)), np.arange(6) < 3, np.ones(6)).margins
    assert np.isfinite(margins).all()
    assert np.ptp(margins) == pytest.approx(0, abs=1e-12)
    params = {"C": 1.0, "class_weight": None}
    gram = SharedGram("rbf", np.ones((6, 2)), np.arange(4)).matrix(params)
    targets = np.array([[1], [0], [1], [0], [1], [0]], bool)
    distances = score_fold(gram, (np.arange(4), np.arange(4, 6)), targets, params, True)
    assert np.isfinite(distances).all()


def test_classes_with_the_same_rows_are_equally_probable():
    rows = np.random.default_rng(0).normal(size=(12, 1000))
    X = np.stack([rows + 1, rows, rows + 1e-4 * rows[::-1]], axis=1).reshape(36, -1)
    y, groups = np.tile([0, 1, 2], 12), np.repeat(np.arange(12), 3)
    model = TunedSVC(n_trials=1, cv=2, random_state=0).fit(X, y, groups=groups)
    chances = model.predict_proba(X)
    assert (chances[y == 0, 0] > 0.8).all()
    np.testing.assert_allclose(chances[y > 0, 1:], 0.5, atol=0.15)
