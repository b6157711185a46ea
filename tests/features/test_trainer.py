"""What every training keeps: the contract of `Trainer`, of all that is trained in the library."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_localizer import Tiny, make_trainer, paintings

from cnnsvm.data.splits import encode_groups
from cnnsvm.features import branch
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.backbones import build_backbone, build_statistics
from cnnsvm.features.branch import StatisticsTrainer
from cnnsvm.features.finetuning import FineTuner, validation_split
from cnnsvm.features.statistics import STATISTICS_DIM
from cnnsvm.features.trainer import DivergedError, Training, best_epoch, epoch_line
from cnnsvm.localization.patches import Pairs

TRAINING = Training(
    mode="full",
    epochs=3,
    learning_rate=1e-3,
    weight_decay=0.01,
    batch_size=8,
    patience=5,
    crop_size=32,
    n_crops=2,
    validation_fraction=0.25,
    augmentation=AUGMENTATIONS["geometric"],
    random_state=0,
    n_jobs=0,
    device=torch.device("cpu"),
    dtype=torch.float32,
)


def make_finetuner(labelled_images, validate, **changes):
    images, codes, groups = labelled_images
    training = dataclasses.replace(TRAINING, **changes)
    fit, valid = validation_split(codes, encode_groups(groups, len(codes)), training)
    network = build_backbone("squeezenet1_1", preprocessing="residual")
    data = (images, codes, encode_groups(groups, len(codes)))
    return FineTuner(network, *data, fit, valid if validate else fit[:0], training)


def make_statistics_trainer(labelled_images, validate, **changes):
    rng = np.random.default_rng(0)
    codes = np.arange(600) % 2
    rows = rng.normal(0, 1, (600, STATISTICS_DIM)).astype(np.float32)
    rows[:, :40] += codes[:, None] / 2
    held_out = (rows[512:], codes[512:]) if validate else None
    network = build_statistics(True)
    training = dataclasses.replace(TRAINING, **changes)
    return StatisticsTrainer(network, rows[:512], codes[:512], held_out, 2, training)


def make_localizer_trainer(labelled_images, validate, **changes):
    pairs = Pairs(*paintings(0, 16), "half")
    valid = np.arange(12, 16 if validate else 12)
    return make_trainer(Tiny(), pairs, np.arange(12), valid, **{"epochs": 3} | changes)


MAKERS = {
    "finetuning": make_finetuner,
    "statistics": make_statistics_trainer,
    "localizer": make_localizer_trainer,
}
#: Those that stop early; the passes over statistics are always as many.
STOPPING = [name for name in MAKERS if name != "statistics"]


@pytest.fixture
def make(labelled_images, monkeypatch):
    monkeypatch.setattr(branch, "PASSES", 3)

    def build(kind, validate=True, **changes):
        return MAKERS[kind](labelled_images, validate, **changes)

    return build


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def follow(trainer, losses):
    """Let validation give one loss after the other; return the weights of each epoch."""
    kept, entries = [], iter(losses)

    def validate():
        kept.append(weights(trainer.network))
        loss = next(entries)
        return {"valid_loss": loss, "valid_iou": 1 - loss, "valid_called": 0.5, "valid_auc": 0.5}

    trainer.validate = validate
    return kept


@pytest.mark.parametrize("kind", MAKERS)
def test_the_history_has_an_entry_an_epoch_and_the_network_ends_ready(make, kind):
    trainer = make(kind)
    history = trainer.run()
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    for entry in history:
        assert {"train_loss", "valid_loss", "valid_auc", "learning_rate"} <= set(entry)
    assert not trainer.network.training
    assert not any(p.requires_grad for p in trainer.network.parameters())


@pytest.mark.parametrize("kind", MAKERS)
def test_the_weights_of_the_best_epoch_are_kept(make, kind):
    trainer = make(kind)
    kept = follow(trainer, [0.5, 0.2, 0.9])
    assert trainer.best() is None
    trainer.run()
    assert trainer.best() == 1
    own = weights(trainer.network)
    assert [same(own, other) for other in kept] == [False, True, False]


@pytest.mark.parametrize("kind", MAKERS)
def test_without_validation_all_epochs_run_and_the_last_is_kept(make, kind):
    trainer = make(kind, validate=False, patience=1)
    history = trainer.run()
    assert len(history) == 3
    assert not any(key.startswith("valid") for key in history[-1])
    assert trainer.best() == 2


@pytest.mark.parametrize("kind", STOPPING)
def test_patience_stops_training(make, kind):
    trainer = make(kind, epochs=8, patience=2)
    follow(trainer, [0.5, 0.6, 0.7, 0.8, 0.9])
    assert len(trainer.run()) == 3


@pytest.mark.parametrize("kind", MAKERS)
def test_the_seed_decides_and_torchs_generator_is_left_alone(make, kind):
    results = []
    for seed, of_torch in ((0, 1), (0, 2), (1, 1)):
        trainer = make(kind, random_state=seed)
        torch.manual_seed(of_torch)
        state = torch.get_rng_state()
        history = trainer.run()
        assert torch.equal(torch.get_rng_state(), state)
        results.append((history, weights(trainer.network)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])
    assert not same(results[0][1], results[2][1])


@pytest.mark.parametrize("kind", STOPPING)
def test_processes_that_decode_change_nothing(make, kind):
    alone, helped = make(kind, epochs=1), make(kind, epochs=1, n_jobs=1)
    assert alone.run() == helped.run()
    assert same(weights(alone.network), weights(helped.network))


@pytest.mark.parametrize("kind", STOPPING)
def test_an_interrupted_run_ends_as_an_uninterrupted_one(make, kind, tmp_path):
    whole = make(kind)
    history = whole.run()
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    interrupted = make(kind)
    train = interrupted.train_epoch

    def train_epoch(epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return train(epoch)

    interrupted.train_epoch = train_epoch
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(checkpoint)
    resumed, trained = make(kind), []
    again = resumed.train_epoch
    resumed.train_epoch = lambda epoch: trained.append(epoch) or again(epoch)
    assert resumed.run(checkpoint) == history
    assert trained == [2]
    assert same(weights(resumed.network), weights(whole.network))


@pytest.mark.parametrize("kind", MAKERS)
def test_divergence_is_an_error_that_states_the_rate(make, kind):
    trainer = make(kind)
    usual = trainer.loss
    trainer.loss = lambda *batch: usual(*batch) * float("nan")
    with pytest.raises(DivergedError, match=r"learning_rate \(now 0\.0?01?"):
        trainer.run()


@pytest.mark.parametrize("kind", MAKERS)
def test_one_cycle_ends_near_zero(make, kind):
    rates = [entry["learning_rate"] for entry in make(kind, epochs=3).run()]
    assert max(rates) == rates[1]
    assert rates[0] == pytest.approx(make(kind).options.learning_rate / 25)


def test_the_best_epoch_has_the_lowest_validation_loss_or_is_the_last():
    assert best_epoch([]) is None
    losses = [{"epoch": k, "valid_loss": loss} for k, loss in enumerate((0.3, 0.1, 0.2))]
    assert best_epoch(losses) == 1
    assert best_epoch([{"epoch": 0}, {"epoch": 1}]) == 1


def test_an_epoch_in_one_line():
    entry = {"epoch": 2, "attempt": 1, "learning_rate": 0.00084414, "state": "learning"}
    line = "epoch 3 of 20, attempt 1, learning_rate 0.0008441, state learning"
    assert epoch_line(entry, 20) == line
