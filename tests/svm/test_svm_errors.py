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


def test_not_finite_embeddings_are_located(binary):
    X, y = binary
    model = TunedSVC(n_trials=1, random_state=0).fit(X, y)
    broken = X.copy()
    broken[7, 2] = np.inf
    for method in (lambda: model.predict(broken), lambda: model.fit(broken, y)):
        with pytest.raises(ValueError, match=r"X\[7, 2\] is inf.*NaN or inf\. Drop row 7"):
            method()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"kernel": "sigmoid"}, "kernel must be one of .* got 'sigmoid'"),
        ({"kernel": ()}, "tuple of different ones, got ()"),
        ({"kernel": ("rbf", "rbf")}, "tuple of different ones"),
        ({"n_trials": 0}, "at least 1; 1 evaluates the default .* got 0"),
        ({"n_trials": True}, "n_trials must be an integer"),
        ({"cv": 1}, "cv must be an integer number of folds, at least 2.* got 1"),
        ({"voting": "hard"}, "voting must be None .* got 'hard'"),
        ({"voting": "soft", "calibrate": False}, "Set calibrate=True or voting=None"),
        ({"calibrate": "yes"}, "calibrate must be a bool"),
        ({"cache_size": 0}, "cache_size must be a positive number"),
        ({"storage": 3}, "storage must be None or the path"),
        ({"random_state": "a"}, "seed"),
    ],
)
def test_bad_parameters(binary, params, message):
    with pytest.raises(ValueError, match=message):
        TunedSVC(**{"n_trials": 1} | params).fit(*binary)


def test_one_class_is_an_error(binary):
    X, _ = binary
    with pytest.raises(ValueError, match="y contains only one class, 'real'"):
        TunedSVC(n_trials=1).fit(X, ["real"] * len(X))
