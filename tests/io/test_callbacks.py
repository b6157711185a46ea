import threading

import numpy as np
import pytest
from sklearn.base import clone
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_detector import SVM, cnn, detector, statistics, tuning

from cnnsvm import InpaintDetector, LocalizerTraining, TunedSVC
from cnnsvm.io.callbacks import Callback, TensorBoardCallback

IMAGES = list(np.random.default_rng(0).integers(0, 256, (8, 40, 48, 3), dtype=np.uint8))
LABELS = np.array([0, 1] * 4)


class Notes(Callback):
    """What was told, with something in it that cannot be copied or pickled."""

    def __init__(self):
        self.epochs, self.trials, self.lock = [], [], threading.Lock()

    def on_epoch_end(self, metrics, step):
        self.epochs.append((step, dict(metrics)))

    def on_trial_end(self, metrics, step):
        self.trials.append((step, dict(metrics)))


@pytest.fixture
def notes():
    return Notes()


def told_detector(notes, **more):
    svm = TunedSVC(**SVM | {"n_trials": 3}, callbacks=[notes])
    return detector(cnn(finetune=tuning(callbacks=[notes])), classifier=svm, **more)


def test_every_epoch_and_trial_is_told(notes):
    fitted = told_detector(notes).fit(IMAGES, LABELS)
    assert notes.epochs == list(enumerate(fitted.history_))
    trials = fitted.classifier_.search_results_[0]["trials"]
    assert [step for step, _ in notes.trials] == [0, 1, 2]
    for (_, metrics), trial in zip(notes.trials, trials, strict=True):
        assert metrics == {"kernel": "linear", "score": trial["score"], **trial["params"]}


def test_callbacks_change_no_result_and_no_cache_and_are_not_saved(notes, tmp_path):
    plain = detector(cnn(finetune=tuning()), classifier=TunedSVC(**SVM | {"n_trials": 3}))
    plain.set_params(cache_dir=tmp_path / "cache").fit(IMAGES, LABELS)
    told = told_detector(notes, cache_dir=tmp_path / "cache").fit(IMAGES, LABELS)
    assert notes.epochs == []  # the network came from the cache
    np.testing.assert_array_equal(plain.predict_proba(IMAGES), told.predict_proba(IMAGES))
    loaded = InpaintDetector.from_pretrained(told.save_pretrained(tmp_path / "saved"))
    assert loaded.embedder_[0].finetune.callbacks is None
    assert loaded.classifier_.callbacks is None


def test_clones_share_callbacks(notes):
    told = clone(told_detector(notes))
    assert told.classifier.callbacks == [notes]
    assert told.embedder[0].finetune.callbacks == [notes]
    assert clone(LocalizerTraining(callbacks=[notes])).callbacks == [notes]


def test_what_is_no_callback_is_refused():
    with pytest.raises(ValueError, match="must be instances of"):
        detector(statistics(finetune=tuning(callbacks=[print]))).fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match="must be instances of"):
        TunedSVC(callbacks=["tensorboard"]).fit(np.eye(8), LABELS)


def test_tensorboard_gets_the_numbers(tmp_path):
    board = TensorBoardCallback(tmp_path)
    fitted = told_detector(board).fit(IMAGES, LABELS)
    found = EventAccumulator(str(tmp_path)).Reload()
    losses = [event.value for event in found.Scalars("epoch/train_loss")]
    assert losses == pytest.approx([entry["train_loss"] for entry in fitted.history_])
    scores = [event.value for event in found.Scalars("trial/linear/score")]
    trials = fitted.classifier_.search_results_[0]["trials"]
    assert scores == pytest.approx([trial["score"] for trial in trials])
    assert "trial/linear/kernel" not in found.Tags()["scalars"]
