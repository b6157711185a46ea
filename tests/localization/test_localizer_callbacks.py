import warnings

from tiny_localizer import localizer

from cnnsvm import InpaintLocalizer
from cnnsvm.io.callbacks import Callback


class Notes(Callback):
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, metrics, step):
        self.epochs.append((step, dict(metrics)))


def test_epochs_are_told_once_and_callbacks_are_not_saved(tiny_network, painted, tmp_path):
    notes = Notes()
    told = localizer(epochs=2, callbacks=[notes]).set_params(cache_dir=tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs teach little
        told.fit(*painted[0])
        assert notes.epochs == list(enumerate(told.history_))
        plain = localizer(epochs=2).set_params(cache_dir=tmp_path / "cache").fit(*painted[0])
    assert len(list((tmp_path / "cache").iterdir())) == 1  # both of one task
    assert plain.history_ == told.history_
    loaded = InpaintLocalizer.from_pretrained(told.save_pretrained(tmp_path / "saved"))
    assert loaded.training.callbacks is None
