import logging
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from tiny_localizer import Tiny, assert_same_weights, make_trainer, weights

from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.trainer import DivergedError
from cnnsvm.localization import trainer
from cnnsvm.localization import training as losses
from cnnsvm.localization.patches import Pairs
from cnnsvm.localization.trainer import RATE_FACTOR, LocalizerTrainer, warn_of_collapse

FIT, VALID = np.arange(12), np.arange(12, 16)


def run(painted, checkpoint=None, valid=VALID, **changes):
    network = Tiny()
    pairs = Pairs(*painted[0], "half")
    return network, make_trainer(network, pairs, FIT, valid, **changes).run(checkpoint)


def script(monkeypatch, states):
    """Let validation tell a story: (state, IoU) of each epoch; weights are kept by epoch."""
    kept = []

    def validate(self):
        kept.append(weights(self.network))
        state, iou = states[len(self.history)]
        return {"valid_iou": iou, "valid_loss": 1.0, "valid_called": 0.5, "state": state}

    monkeypatch.setattr(LocalizerTrainer, "validate", validate)
    return kept


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_every_loss_and_optimizer_learns(painted, loss, optimizer):
    network, history = run(painted, loss=loss, optimizer=optimizer, epochs=16, weight_decay=1e-4)
    best = max(history, key=lambda entry: entry["valid_iou"])
    assert best["valid_auc"] > 0.85
    assert best["valid_iou"] > 0.5
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_a_collapse_is_restarted_from_the_best_weights_at_a_lower_rate(
    painted, monkeypatch, caplog
):
    useful = [("learning", 0.3), ("learning", 0.6)]
    script(monkeypatch, [*useful, *[("nothing", 0.0)] * 3, *[("learning", 0.7)] * 5])
    begun = []
    restart = LocalizerTrainer.restart

    def watch(self):
        restart(self)
        begun.append((weights(self.network), self.best_weights, self.optimiser))

    monkeypatch.setattr(LocalizerTrainer, "restart", watch)
    with caplog.at_level(logging.WARNING):
        _, history = run(painted, epochs=10)
    assert [entry["attempt"] for entry in history] == [0] * 5 + [1] * 5
    assert history[5]["learning_rate"] == pytest.approx(RATE_FACTOR * history[0]["learning_rate"])
    ((start, best, optimiser),) = begun
    assert_same_weights(start, best)
    assert optimiser.param_groups[0]["initial_lr"] < 1e-2
    assert "attempt 0 collapsed after epoch 4; restarted at 0.2" in caplog.text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_collapse(history, patience=5)


def test_a_network_that_was_never_of_use_starts_again_from_the_first_weights(painted, monkeypatch):
    script(monkeypatch, [("everything", 0.3)] * 9)
    starts = []
    begin = LocalizerTrainer.begin
    monkeypatch.setattr(
        LocalizerTrainer,
        "begin",
        lambda self, *a, **k: (starts.append(weights(self.network)), begin(self, *a, **k)),
    )
    _, history = run(painted, epochs=9, patience=2, max_restarts=2)
    assert [entry["attempt"] for entry in history] == [0] * 3 + [1] * 3 + [2] * 3
    for start in starts[1:]:
        assert_same_weights(start, weights(Tiny()))
    with pytest.warns(ConvergenceWarning, match=r"no use: after 3 attempt\(s\) its best epoch"):
        warn_of_collapse(history, patience=2)


def test_restarts_come_to_an_end_with_the_best_weights(painted, monkeypatch):
    kept = script(monkeypatch, [("learning", 0.6), *[("nothing", 0.0)] * 20])
    network, history = run(painted, epochs=20, max_restarts=1)
    assert [entry["attempt"] for entry in history] == [0] * 4 + [1] * 3
    assert_same_weights(weights(network), kept[0])
    with pytest.warns(
        ConvergenceWarning, match=r"last of 2 attempt.*collapsed.*epoch 0 \(IoU 0\.6"
    ):
        warn_of_collapse(history, patience=5)


def flat_dice(logits, targets):
    """The form of the Dice loss without squares, which calls everything repainted."""
    chance = torch.sigmoid(logits)
    return 1 - (2 * (chance * targets).sum() + 1) / (chance.sum() + targets.sum() + 1)


def test_a_true_collapse_is_found(painted, monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "dice", flat_dice)
    _, history = run(painted, epochs=24, patience=4, max_restarts=1)
    assert {"everything"} == {entry["state"] for entry in history[2:6]}
    assert history[-1]["attempt"] == 1


def broken_between(first, last):
    """Make a loss that is NaN from one call to another."""
    calls = []

    def loss(logits, targets):
        calls.append(len(calls))
        value = losses.dice(logits, targets)
        return value * float("nan") if first <= calls[-1] <= last else value

    return loss


def test_a_loss_that_is_no_number_is_handled_as_a_collapse(painted, monkeypatch):
    # two steps and one batch of validation in an epoch: the fifth call is in the second epoch
    monkeypatch.setitem(losses.LOSSES, "dice", broken_between(4, 4))
    network, history = run(painted, epochs=5)
    assert [entry["state"] == "diverged" for entry in history] == [False, True] + [False] * 3
    assert [entry["attempt"] for entry in history] == [0, 0, 1, 1, 1]
    assert all(torch.isfinite(value).all() for value in weights(network).values())


def test_training_that_never_has_a_finite_loss_is_an_error(painted, monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "dice", broken_between(0, 10**6))
    with pytest.raises(DivergedError, match=r"each of 3 attempt\(s\).*Lower learning_rate \(now 0"):
        run(painted, epochs=9)


@pytest.mark.parametrize("stopped_at", [1, 5])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    painted, monkeypatch, tmp_path, stopped_at
):
    """Also when it had collapsed and begun again (the loss is NaN in epoch 2)."""

    def run_with_nan(checkpoint, done):
        calls_an_epoch = 3
        first = 2 * calls_an_epoch - calls_an_epoch * done
        monkeypatch.setitem(losses.LOSSES, "dice", broken_between(first, first))
        return run(painted, checkpoint, epochs=7)

    whole, whole_history = run_with_nan(None, 0)
    run_epoch = LocalizerTrainer.run_epoch

    def stop(self):
        if len(self.history) == stopped_at:
            raise KeyboardInterrupt
        return run_epoch(self)

    checkpoint = tmp_path / "task" / "checkpoint.pt"
    monkeypatch.setattr(LocalizerTrainer, "run_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run_with_nan(checkpoint, 0)
    monkeypatch.setattr(LocalizerTrainer, "run_epoch", run_epoch)
    resumed, history = run_with_nan(checkpoint, stopped_at)
    assert {entry["attempt"] for entry in history} == {0, 1}
    assert history == whole_history
    assert_same_weights(weights(resumed), weights(whole))


def test_a_threshold_of_its_own_is_chosen_where_the_iou_is_highest(painted):
    _, fixed = run(painted, epochs=4)
    _, chosen = run(painted, epochs=4, threshold="iou")
    for a, b in zip(fixed, chosen, strict=True):
        assert a["valid_threshold"] == 0.5
        assert b["valid_iou"] >= a["valid_iou"]
        assert b["valid_auc"] == a["valid_auc"]
    assert {entry["valid_threshold"] for entry in chosen} != {0.5}


def test_degradations_come_in_slowly(painted, monkeypatch):
    used = []

    class Watched(trainer.DrawnPatches):
        def __init__(self, pairs, draws, size, augmentation, balance):
            used.append(augmentation)
            super().__init__(pairs, draws, size, augmentation, balance)

    monkeypatch.setattr(trainer, "DrawnPatches", Watched)
    _, history = run(painted, epochs=4, warmup=0.5)
    full = AUGMENTATIONS["full"]
    assert [a.codec for a in used] == [0.0, full.codec / 2, full.codec, full.codec]
    assert [entry.get("degradations", 1.0) for entry in history] == [0.0, 0.5, 1.0, 1.0]
    assert {a.turn for a in used} == {True}
    used.clear()
    _, history = run(painted, epochs=2, warmup=1.0, augmentation=AUGMENTATIONS["geometric"])
    assert not any("degradations" in entry for entry in history)


def test_each_attempt_warms_up_anew(painted, monkeypatch):
    script(
        monkeypatch, [*[("learning", 0.6)] * 4, *[("nothing", 0.0)] * 3, *[("learning", 0.7)] * 5]
    )
    _, history = run(painted, epochs=11, warmup=0.5)
    shares = [entry.get("degradations", 1.0) for entry in history]
    assert shares[0] == 0
    assert shares[6] == 1
    assert [entry["attempt"] for entry in history][7] == 1
    assert shares[7:] == [0.0, 0.5, 1.0, 1.0]
