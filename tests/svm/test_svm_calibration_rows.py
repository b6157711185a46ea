"""TunedSVC.fit(..., calibration_rows=mask): whose out-of-fold scores calibrate."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_classification

from cnnsvm.svm import TunedSVC, tuned_svc
from cnnsvm.svm.calibrated_classifier import choose_calibration_rows
from cnnsvm.svm.calibration import fit_mixing, fit_platt
from cnnsvm.svm.inner_cv import InnerCV


@pytest.fixture(scope="module")
def binary():
    X, y = make_classification(90, 6, n_informative=3, class_sep=0.7, flip_y=0.1, random_state=0)
    return X, y, np.random.default_rng(0).random(90) < 0.4


def fit(X, y, calibration=None, **params):
    model = TunedSVC(**{"n_trials": 2, "random_state": 0} | params)
    return model.fit(X, y, calibration_rows=calibration)


def platt(model):
    return [(part.slope.tolist(), part.offset.tolist()) for part in model.models_]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_platt_scaling_is_that_of_the_masked_rows(n_classes, monkeypatch):
    # before the classes' log-odds are mixed: of that, see the next test
    monkeypatch.setattr(tuned_svc, "fit_mixing", lambda *_: None)
    X, y = make_blobs(90, centers=n_classes, cluster_std=6.0, random_state=1)
    mask = np.random.default_rng(1).random(90) < 0.5
    model, plain = fit(X, y, mask), fit(X, y)
    odds = model.cv_decision_.reshape(90, -1)
    uncalibrated = plain.cv_decision_.reshape(90, -1)
    targets = y[:, None] == (np.array([1]) if n_classes == 2 else np.arange(n_classes))
    for k in range(targets.shape[1]):
        # Platt scaling of what is calibrated by all rows, which differs by slope and offset only
        slope, offset = fit_platt(uncalibrated[mask, k], targets[mask, k])
        np.testing.assert_allclose(odds[:, k], slope * uncalibrated[:, k] + offset, atol=1e-6)
        assert not np.allclose(odds[:, k], uncalibrated[:, k], atol=0.01)


def test_the_mixing_is_that_of_the_masked_rows(monkeypatch):
    X, y = make_blobs(90, centers=3, cluster_std=6.0, random_state=1)
    mask = np.random.default_rng(1).random(90) < 0.5
    mixed = fit(X, y, mask)
    with monkeypatch.context() as patch:
        patch.setattr(tuned_svc, "fit_mixing", lambda *_: None)
        odds = fit(X, y, mask).cv_decision_
    np.testing.assert_array_equal(mixed.mixing_, fit_mixing(odds[mask], y[mask]))
    assert not np.allclose(mixed.mixing_, fit_mixing(odds, y), atol=0.01)


def test_scores_of_other_rows_have_no_say(binary, monkeypatch):
    X, y, mask = binary
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


def test_tuning_and_the_machines_still_see_every_row(binary):
    X, y, mask = binary
    masked, plain = fit(X, y, mask), fit(X, y)
    assert masked.search_results_ == plain.search_results_
    ours, theirs = masked.models_[0].machines[0], plain.models_[0].machines[0]
    np.testing.assert_array_equal(ours.vectors, theirs.vectors)
    order = np.argsort(plain.decision_function(X))
    assert (np.diff(masked.decision_function(X)[order]) >= 0).all()


def test_all_rows_are_no_mask_at_all(binary):
    X, y, _ = binary
    assert platt(fit(X, y, np.ones(90, bool))) == platt(fit(X, y))


def test_every_voter_is_calibrated_on_the_masked_rows(binary):
    X, y, mask = binary
    kernels = ("linear", "rbf")
    vote = fit(X, y, mask, kernel=kernels, voting="soft")
    alone = [fit(X, y, mask, kernel=kernel) for kernel in kernels]
    assert platt(vote) == [platt(model)[0] for model in alone]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_that_lack_a_class_calibrate_nothing(n_classes):
    X, y = make_blobs(60, centers=n_classes, cluster_std=6.0, random_state=0)
    assert platt(fit(X, y, y != 1)) == platt(fit(X, y))
    assert platt(fit(X, y, np.zeros(60, bool))) == platt(fit(X, y))


def test_the_mask_needs_no_new_trials(binary, tmp_path, monkeypatch):
    X, y, mask = binary
    path = tmp_path / "studies.log"
    fit(X, y, storage=path)
    expected = platt(fit(X, y, mask))

    def forbidden(*args):
        raise AssertionError("tuned again")

    monkeypatch.setattr(InnerCV, "fold_auc", forbidden)
    assert platt(fit(X, y, mask, storage=path)) == expected


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (np.ones(89, bool), r"bool \(89,\)"),
        (np.ones(90, int), r"int64 \(90,\)"),
        (np.ones((90, 1), bool), r"bool \(90, 1\)"),
        (np.arange(30), r"int64 \(30,\)"),
        (True, r"bool \(\)"),
    ],
)
def test_a_mask_is_one_boolean_a_row(binary, mask, named):
    X, y, _ = binary
    with pytest.raises(ValueError, match=rf"bool of shape \(90,\), one a row, got {named}.*None"):
        fit(X, y, mask)


def test_a_list_of_booleans_is_a_mask():
    codes = np.array([0, 1, 0, 1])
    rows = choose_calibration_rows([True, True, False, False], codes)
    assert rows.tolist() == [True, True, False, False]
    assert choose_calibration_rows([True, False, True, False], codes).all()
    assert choose_calibration_rows(None, codes).all()
