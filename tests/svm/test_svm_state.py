import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load, save
from sklearn.datasets import make_blobs

from cnnsvm.svm import TunedSVC


@pytest.fixture(scope="module")
def blobs():
    return make_blobs(60, n_features=4, centers=3, cluster_std=4.0, random_state=0)


def through_files(model):
    config, arrays = model.to_state()
    text, blob = json.dumps(config, allow_nan=False), save(arrays)
    return TunedSVC.from_state(json.loads(text), load(blob))


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 2]])
@pytest.mark.parametrize("labels", [np.array(["b", "a", "c"]), np.array(["b", "a", "c"], object)])
@pytest.mark.parametrize("how", [{}, {"voting": "soft"}, {"n_landmarks": 20}])
def test_round_trip_is_exact(blobs, classes, labels, how):
    X, y = blobs
    kept = np.isin(y, classes)
    model = TunedSVC(("linear", "rbf", "poly"), n_trials=2, random_state=0, **how)
    model.fit(X[kept], labels[y[kept]])
    loaded = through_files(model)
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.cv_decision_, model.cv_decision_)
    assert loaded.classes_.dtype == model.classes_.dtype
    np.testing.assert_array_equal(loaded.mixing_, model.mixing_)
    for name in ("best_params_", "best_score_", "search_results_", "n_features_in_", "n_splits_"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.get_params() == model.get_params()


def test_margins_and_bool_labels_round_trip(blobs):
    X, y = blobs
    model = TunedSVC("linear", n_trials=1, calibrate=False, random_state=0).fit(X, y > 0)
    loaded = through_files(model)
    np.testing.assert_array_equal(loaded.decision_function(X), model.decision_function(X))
    np.testing.assert_array_equal(loaded.classes_, [False, True])
    assert not hasattr(loaded, "predict_proba")


def test_untuned_classifier_and_odd_parameters_round_trip(tmp_path):
    X, y = make_blobs([5, 1], centers=None, random_state=0)
    model = TunedSVC(
        n_trials=np.int64(2), random_state=np.random.RandomState(0), storage=tmp_path / "s.log"
    )
    with pytest.warns(UserWarning, match="smallest class"):
        model.fit(X, y)
    loaded = through_files(model)
    assert np.isnan(loaded.best_score_)
    assert loaded.random_state is None
    assert loaded.storage is None
    assert str(tmp_path) not in json.dumps(model.to_state()[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config, arrays: config.update(format=99), "has format 99, but this version reads"),
        (lambda config, arrays: config.pop("classes"), "damaged .*classes"),
        (lambda config, arrays: arrays.pop("model.0.slope"), "damaged .*slope"),
        (lambda config, arrays: config["models"][0].pop(), "3 classes take 3 machines, got 2"),
        (lambda config, arrays: config["models"][0][0].update(name="os"), "kernel 'os'"),
        (lambda config, arrays: arrays.update(mean=np.zeros(9)), r"expected .* 9\)"),
        (lambda config, arrays: arrays.update(mixing=np.zeros((3, 3))), r"mixing.*\(3, 3\)"),
        (lambda config, arrays: config["params"].update(n_trials=0), "n_trials.*0"),
        (lambda config, arrays: config["params"].update(evil=1), "damaged .*evil"),
    ],
)
def test_damaged_states_are_refused(blobs, damage, message):
    config, arrays = TunedSVC(n_trials=1, random_state=0).fit(*blobs).to_state()
    damage(config, arrays)
    with pytest.raises(ValueError, match=message):
        TunedSVC.from_state(config, arrays)


def test_labels_that_json_cannot_hold_are_refused(blobs):
    X, y = blobs
    model = TunedSVC(n_trials=1, random_state=0).fit(X, y.astype("datetime64[D]"))
    with pytest.raises(TypeError, match="Convert y before fit"):
        model.to_state()


def test_feature_names_round_trip(blobs):
    frame = pd.DataFrame(blobs[0]).add_prefix("embedding_")
    loaded = through_files(TunedSVC(n_trials=1, random_state=0).fit(frame, blobs[1]))
    assert list(loaded.feature_names_in_) == list(frame.columns)
