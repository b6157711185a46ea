import pytest

from cnnsvm.localization.collapse import best_epoch, failure, patience_is_over, state_of

STATES = {"l": "learning", "g": "guessing", "n": "nothing", "e": "everything", "d": "diverged"}


def warming_up(entries, n):
    """Say of the first n epochs that they degraded patches less than the training is to."""
    shares = [k / n for k in range(n)]
    return [e | {"degradations": s} for e, s in zip(entries, shares, strict=False)] + entries[n:]


def history(text, losses=None):
    """Write a history: a state and an attempt each epoch, such as "l0 n0 n0 l1"; IoU rises."""
    entries = []
    for epoch, word in enumerate(text.split()):
        entry = {"epoch": epoch, "state": STATES[word[0]], "attempt": int(word[1])}
        if word[0] != "d":
            entry["valid_iou"] = 0.5 + epoch / 100
            entry["valid_loss"] = losses[epoch] if losses else 1 - epoch / 100
        entries.append(entry)
    return entries


@pytest.mark.parametrize(
    ("iou", "called", "repainted", "state"),
    [
        (0.6, 0.4, 0.4, "learning"),
        (0.3, 0.4, 0.4, "guessing"),
        (0.43, 0.4, 0.4, "guessing"),
        (0.4, 1.0, 0.4, "everything"),
        (0.41, 0.96, 0.4, "everything"),
        (0.0, 0.0, 0.4, "nothing"),
        (0.005, 0.3, 0.4, "nothing"),
        (0.99, 0.99, 0.99, "learning"),  # everything is repainted
        (0.1, 0.02, 0.02, "learning"),
        (0.92, 0.9, 0.9, "learning"),
    ],
)
def test_states(iou, called, repainted, state):
    assert state_of(iou, called, repainted) == state


def test_the_best_epoch_is_that_of_the_highest_iou_of_use():
    assert best_epoch(history("l0 l0 l0")) == 2
    assert best_epoch(history("l0 l0 e0")) == 1  # whatever its IoU
    assert best_epoch(history("l0 d0 e0")) == 0
    assert best_epoch(history("n0 e0 g0", [0.5, 0.4, 0.6])) == 1  # none of use: the loss decides
    assert best_epoch(history("d0 d0")) is None
    assert best_epoch([]) is None
    unvalidated = [{"epoch": k, "attempt": 0, "state": "learning"} for k in range(3)]
    assert best_epoch(unvalidated) == 2


@pytest.mark.parametrize(
    ("text", "attempt", "what"),
    [
        ("l0 n0 n0", 0, None),
        ("l0 n0 n0 n0", 0, "collapsed"),
        ("l0 n0 e0 n0", 0, "collapsed"),
        ("l0 e0 e0 e0", 0, "collapsed"),
        ("l0 n0 n0 l0 n0 n0", 0, None),
        ("l0 g0 g0 g0", 0, None),  # weak is not collapsed: patience will tell
        ("l0 n0 n0 n0", 1, None),  # a new attempt has yet to show
        ("l0 n0 n0 n0 n1 n1", 1, None),
        ("l0 n0 n0 n0 n1 n1 n1", 1, "collapsed"),
        ("l0 d0", 0, "diverged"),
        ("d0", 0, "diverged"),
        ("d0 l1", 1, None),
    ],
)
def test_failures(text, attempt, what):
    assert failure(history(text), attempt, patience=5) == what


def test_little_patience_makes_collapses_quick():
    assert failure(history("l0 n0"), 0, patience=1) == "collapsed"


def test_a_slow_start_is_no_collapse_while_the_loss_falls():
    text = "n0 n0 n0 n0 n0 n0 n0 n0"
    assert failure(history(text), 0, patience=3) is None
    stuck = [0.9, 0.8, 0.7, 0.6, 0.61, 0.62, 0.63]
    assert failure(history("n0 n0 n0 n0 n0 n0", stuck), 0, patience=3) is None
    assert failure(history("n0 n0 n0 n0 n0 n0 n0", stuck), 0, patience=3) == "collapsed"
    assert failure(history("n0 n0 n0 n0 n0 n0 g0", stuck), 0, patience=3) is None


def test_until_one_is_of_use_auc_counts_as_well_as_loss():
    entries = history("g0 g0 g0 g0", [0.5, 0.4, 0.6, 0.6])
    for entry, auc in zip(entries, [0.5, 0.52, 0.6, 0.55], strict=True):
        entry["valid_auc"] = auc
    assert best_epoch(entries) == 2
    assert not patience_is_over(entries, 0, 2)
    assert patience_is_over(entries, 0, 1)
    entries[2]["valid_auc"] = 0.4
    entries[1]["state"] = "learning"
    assert best_epoch(entries) == 1
    assert patience_is_over(entries, 0, 2)
    for entry, auc in zip(entries, [0.9, 0.5, 0.5, 0.5], strict=True):
        entry.update(valid_auc=auc, state="guessing")
    assert best_epoch(entries) == 0
    assert not patience_is_over(entries, 0, 3)  # its loss was the lowest in epoch 1


def test_patience_counts_from_the_best_epoch_of_an_attempt():
    assert not patience_is_over(history("l0 l0 l0"), 0, 1)
    assert not patience_is_over(history("l0 g0 g0"), 0, 3)
    assert patience_is_over(history("l0 g0 g0 g0"), 0, 3)
    # an attempt that begins with the first weights needs its time to come up to the one before
    losses = [0.5, 0.5, 0.5, 0.9, 0.8, 0.7, 0.6, 0.6, 0.6]
    assert not patience_is_over(history("e0 e0 e0 n1 n1 n1 n1 n1", losses), 1, 2)
    assert patience_is_over(history("e0 e0 e0 n1 n1 n1 n1 n1 n1", losses), 1, 2)
    assert not patience_is_over([], 0, 3)


def test_epochs_that_warm_up_are_kept_only_if_there_are_no_others():
    falling = [e | {"valid_iou": 0.9 - e["epoch"] / 10} for e in history("l0 l0 l0 l0 l0")]
    assert best_epoch(falling) == 0
    assert best_epoch(warming_up(falling, 3)) == 3
    assert best_epoch(warming_up(falling, 5)) == 0
    dead = [e | {"state": "nothing"} if e["epoch"] > 2 else e for e in falling]
    assert best_epoch(warming_up(dead, 3)) == 0


def test_patience_waits_for_the_warm_up():
    falling = [e | {"valid_iou": 0.9 - e["epoch"] / 10} for e in history("l0 l0 l0 l0 l0")]
    assert patience_is_over(falling[:4], 0, 2)
    warm = warming_up(falling, 3)
    assert [patience_is_over(warm[:n], 0, 2) for n in (2, 3, 4, 5)] == [False] * 4
    assert patience_is_over([*warm, falling[-1] | {"epoch": 5, "valid_iou": 0.1}], 0, 2)
