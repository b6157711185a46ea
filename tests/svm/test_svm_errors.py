import numpy as np
import pytest
from sklearn.datasets import make_classification

from cnnsvm.svm import TunedSVC


@pytest.fixture(scope="module")
def binary():
    return make_classification(40, 5, random_state=0)


def test_too_few_groups_is_an_error(binary):
    X, y = binary
    groups = np.arange(len(y))
    with pytest.raises(ValueError, match=r"2 group\(s\) but 3 folds.*Add sources or lower"):
        TunedSVC(n_trials=1).fit(X, y, groups=np.where(y == 1, groups % 2, groups))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_embeddings_are_refused(binary, value):
    X, y = binary
    model = TunedSVC(n_trials=1, random_state=0).fit(X, y)
    broken = X.copy()
    broken[7, 2] = value
    for method in (lambda: model.predict(broken), lambda: model.fit(broken, y)):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            method()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel": "sigmoid"}, "kernel.*'sigmoid'"),
        ({"kernel": ()}, r"kernel.*\(\)"),
        ({"kernel": ("rbf", "rbf")}, "kernel.*different"),
        ({"kernel": ("rbf", "sigmoid")}, "kernel.*sigmoid"),
        ({"kernel": 3}, "kernel.*3"),
        ({"n_trials": 0}, "n_trials.*0"),
        ({"n_trials": 2.5}, "n_trials.*2.5"),
        ({"cv": 1}, "cv.*1"),
        ({"voting": "hard"}, "voting.*'hard'"),
        ({"voting": "soft", "calibrate": False}, "calibrate=True or voting=None"),
        ({"calibrate": "yes"}, "calibrate.*'yes'"),
        ({"scale": "yes"}, "scale.*'yes'"),
        ({"verbose": "yes"}, "verbose.*'yes'"),
        ({"cache_size": 0}, "cache_size.*0"),
        ({"n_landmarks": 0}, "n_landmarks.*0"),
        ({"n_landmarks": 2.5}, "n_landmarks.*2.5"),
        ({"storage": 3}, "storage.*3"),
        ({"random_state": "a"}, "random_state.*'a'"),
    ],
)
def test_bad_parameters_are_named_with_their_value(binary, params, message):
    with pytest.raises(ValueError, match=message):
        TunedSVC(**{"n_trials": 1} | params).fit(*binary)


def test_one_class_is_an_error(binary):
    X, _ = binary
    with pytest.raises(ValueError, match="y contains only one class, 'real'"):
        TunedSVC(n_trials=1).fit(X, ["real"] * len(X))
