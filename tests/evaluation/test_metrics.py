import warnings

import numpy as np
import pytest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from cnnsvm.evaluation.metrics import (
    METRICS,
    binary_metrics,
    expected_calibration_error,
    reliability_bins,
    weighted_metrics,
)


def random_case(seed):
    """Draw a problem with ties among the probabilities and a free-standing decision."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 120))
    y = rng.permutation(np.r_[0, 1, rng.integers(2, size=n - 2)])
    probability = np.clip(np.round(rng.normal(0.4 + 0.2 * y, 0.3), int(rng.integers(1, 4))), 0, 1)
    prediction = rng.permutation(np.r_[0, 1, rng.integers(2, size=n - 2)])
    return y, probability, prediction, rng.integers(0, 4, size=n) + np.isin(np.arange(n), [0, 1])


def scikit_learn(y, probability, prediction, weight):
    decided = {"sample_weight": weight, "zero_division": np.nan}
    return {
        "accuracy": reference.accuracy_score(y, prediction, sample_weight=weight),
        "balanced_accuracy": reference.balanced_accuracy_score(y, prediction, sample_weight=weight),
        "precision": reference.precision_score(y, prediction, **decided),
        "recall": reference.recall_score(y, prediction, **decided),
        "f1": reference.f1_score(y, prediction, **decided),
        "roc_auc": reference.roc_auc_score(y, probability, sample_weight=weight),
        "pr_auc": reference.average_precision_score(y, probability, sample_weight=weight),
        "mcc": reference.matthews_corrcoef(y, prediction, sample_weight=weight),
        "brier": reference.brier_score_loss(y, probability, sample_weight=weight),
    }


def weigh(y, probability, prediction, weight):
    values = weighted_metrics(y, probability, prediction, np.asarray(weight)[None])
    return {name: value[0] for name, value in values.items()}


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_scikit_learn(seed, weighted):
    y, probability, prediction, weight = random_case(seed)
    weight = weight + (y == 0) * 0.25 + 0.5 if weighted else np.ones(len(y))
    ours = weigh(y, probability, prediction, weight)
    if not weighted:
        assert binary_metrics(y, probability, prediction) == ours
    assert tuple(ours) == METRICS
    for name, expected in scikit_learn(y, probability, prediction, weight).items():
        assert ours[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("seed", range(10))
def test_whole_weights_count_as_repeated_rows(seed):
    y, probability, prediction, weight = random_case(seed)
    repeated = binary_metrics(*(np.repeat(v, weight) for v in (y, probability, prediction)))
    assert weigh(y, probability, prediction, weight) == pytest.approx(
        repeated, abs=1e-12, nan_ok=True
    )


def test_many_weightings_at_once_equal_one_at_a_time():
    y, probability, prediction, _ = random_case(3)
    weights = np.random.default_rng(0).integers(0, 3, size=(20, len(y)))
    together = weighted_metrics(y, probability, prediction, weights)
    for i, weight in enumerate(weights):
        alone = weigh(y, probability, prediction, weight)
        assert {name: v[i] for name, v in together.items()} == pytest.approx(alone, nan_ok=True)


@pytest.mark.parametrize("seed", range(10))
def test_ece_agrees_with_scikit_learns_calibration_curve(seed):
    y, probability, _, _ = random_case(seed)
    share, mean = calibration_curve(y, probability, n_bins=10, strategy="uniform")
    _, ours, count = reliability_bins(y, probability)
    np.testing.assert_allclose(ours[count > 0], share)
    expected = np.average(np.abs(mean - share), weights=count[count > 0])
    assert expected_calibration_error(y, probability) == pytest.approx(expected)
    assert binary_metrics(y, probability, y)["ece"] == pytest.approx(expected)


def test_ece_of_honest_probabilities_is_small_and_of_overconfident_ones_is_their_excess():
    rng = np.random.default_rng(0)
    chance = rng.random(20_000)
    y = rng.random(20_000) < chance
    assert expected_calibration_error(y, chance) < 0.02
    assert expected_calibration_error([1, 0], [1.0, 1.0]) == pytest.approx(0.5)
    assert expected_calibration_error([1, 1, 0, 0], [0.8] * 4, n_bins=5) == pytest.approx(0.3)


def test_a_probability_on_an_edge_falls_into_the_lower_bin():
    tenths = np.arange(11) / 10
    _, _, count = reliability_bins(np.ones(11, dtype=int), tenths)
    np.testing.assert_array_equal(count, [2, *[1] * 9])


@pytest.mark.parametrize(
    ("y", "prediction", "undefined"),
    [
        ([1, 1], [1, 0], {"balanced_accuracy", "roc_auc", "pr_auc", "mcc"}),
        ([0, 0], [1, 0], {"balanced_accuracy", "roc_auc", "pr_auc", "mcc", "recall"}),
        ([0, 1], [0, 0], {"precision", "mcc"}),
        (
            [0, 0],
            [0, 0],
            {"balanced_accuracy", "roc_auc", "pr_auc", "mcc", "recall", "precision", "f1"},
        ),
        ([], [], set(METRICS)),
    ],
)
def test_undefined_metrics_are_nan_without_a_warning(y, prediction, undefined):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = binary_metrics(y, [0.2, 0.6][: len(y)], prediction)
    assert {name for name, value in values.items() if np.isnan(value)} == undefined


@pytest.mark.parametrize(
    ("y", "probability", "prediction", "weight", "message"),
    [
        (["fake", "real"], [0.1, 0.2], [0, 1], [1, 1], "y must hold only 0"),
        ([0, 1], [0.1, 2.5], [0, 1], [1, 1], r"\[0, 1\], got 2.5"),
        ([0, 1], [0.1, np.nan], [0, 1], [1, 1], "got nan"),
        ([0, 1], [0.1, 0.2], [0, 2], [1, 1], "prediction must hold only 0"),
        ([0, 1], [0.1, 0.2], [0, 1], [1, -1], "at least 0, got -1"),
        ([0, 1], [0.1, 0.2], [0, 1], [1, np.inf], "finite.* got inf"),
        ([0, 1], [0.1], [0, 1], [1, 1], "inconsistent numbers of samples"),
    ],
)
def test_impossible_values_are_refused(y, probability, prediction, weight, message):
    with pytest.raises(ValueError, match=message):
        weigh(y, probability, prediction, weight)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="n_bins must be at least 1, got 0"):
        expected_calibration_error([0, 1], [0.1, 0.9], n_bins=0)
