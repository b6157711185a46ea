import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.svm import SVC

from cnnsvm.svm import TunedSVC
from cnnsvm.svm.machines import Kernel, fit_scaler
from cnnsvm.svm.smo import SharedGram, solve

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
    weights, margins = solve(kernel(X, X), target, np.where(fitted, C, 0.0), tol=1e-8)
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
    _, margins = solve(kernel(X, X).astype(np.float32), target, box)
    _, exact = solve(kernel(X, X), target, box, tol=1e-8)
    agree = (margins > 0) == (exact > 0)
    assert agree[np.abs(exact) > 0.05].all()


@pytest.mark.parametrize("name", ["linear", "rbf", "poly"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_fold_is_scored_as_by_svc(name, class_weight):
    X, y = make_classification(200, 10, n_informative=5, weights=[0.7], random_state=0)
    train, test = np.arange(150), np.arange(150, 200)
    mean, deviation = fit_scaler(X[train], True)
    Z = (X - mean) / deviation
    gram = SharedGram(name, Z, train, test)
    params = {"C": 2.0, "class_weight": class_weight, "degree": 2, "coef0": 1.0}
    params["gamma_factor"] = 0.5
    targets = np.column_stack([y == 1, y == 0, y == 2])
    scores = gram.scores(params, targets)
    kernel = Kernel(name, gram.unit * 0.5, 2 if name == "poly" else 1, 1.0 if name == "poly" else 0)
    svc = SVC(C=2.0, class_weight=class_weight, **kernel.libsvm_params()).fit(Z[train], y[train])
    np.testing.assert_allclose(scores[:, 0], svc.decision_function(Z[test]), atol=1e-2)
    np.testing.assert_allclose(scores[:, 1], -scores[:, 0], atol=1e-2)
    assert np.isnan(scores[:, 2]).all()


def test_equal_rows_and_flat_kernels_end():
    _, margins = solve(np.ones((6, 6)), np.arange(6) < 3, np.ones(6))
    assert np.isfinite(margins).all()
    assert np.ptp(margins) == pytest.approx(0, abs=1e-12)
    gram = SharedGram("rbf", np.ones((6, 2)), np.arange(4), np.arange(4, 6))
    params = {"C": 1.0, "class_weight": None}
    distances = gram.scores(params, np.array([[1], [0], [1], [0], [1], [0]], bool), True)
    assert np.isfinite(distances).all()


def test_classes_with_the_same_rows_are_equally_probable():
    rows = np.random.default_rng(0).normal(size=(12, 1000))
    X = np.stack([rows + 1, rows, rows + 1e-4 * rows[::-1]], axis=1).reshape(36, -1)
    y, groups = np.tile([0, 1, 2], 12), np.repeat(np.arange(12), 3)
    model = TunedSVC(n_trials=1, cv=2, random_state=0).fit(X, y, groups=groups)
    chances = model.predict_proba(X)
    assert (chances[y == 0, 0] > 0.8).all()
    np.testing.assert_allclose(chances[y > 0, 1:], 0.5, atol=0.15)
