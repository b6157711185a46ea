"""What follows from the history of a training: its best epoch, whether to stop, a collapse.

A localiser can fall into calling no pixel repainted, or every one, and stay there. ``state`` in an
entry of the history says so. All decisions follow from the history, so that a resumed training
decides as an uninterrupted one.
"""

from collections.abc import Sequence

from cnnsvm.features.trainer import Entry

#: Of use; of no more use than calling everything; useless in one of two ways; no longer finite.
LEARNING, GUESSING, NOTHING, EVERYTHING = "learning", "guessing", "nothing", "everything"
DIVERGED = "diverged"

#: IoU up to which nothing counts as found, and share of called pixels from which everything is.
LEAST_IOU, MOST_CALLED = 0.01, 0.95
#: How far the IoU of a network of use lies above that of calling everything, as a part of what is
#: repainted or of what is not: a network with random weights may come out above it by chance.
MARGIN = 0.1
#: Useless epochs in a row after which a training that was of use has collapsed.
DEAD_EPOCHS = 3


def state_of(iou: float, called: float, repainted: float) -> str:
    """Name what a network does: "learning", "guessing", "nothing" or "everything".

    ``iou`` is pooled over the validation pixels, ``called`` and ``repainted`` are the shares of
    them that are called repainted, and that are: the latter is the IoU of calling every pixel.
    """
    if called >= MOST_CALLED > repainted:
        return EVERYTHING
    if iou <= LEAST_IOU:
        return NOTHING
    is_of_use = iou > repainted + MARGIN * min(repainted, 1 - repainted)
    return LEARNING if is_of_use or repainted >= MOST_CALLED else GUESSING


def best_epoch(history: Sequence[Entry]) -> int | None:
    """Find the epoch whose weights are kept.

    That of the highest validation IoU among those of use. Where none is, the highest AUC decides,
    and where that is not defined the lowest validation loss: a network that learns first calls
    nothing, as most pixels are untouched. Without a validation it is the last epoch. Epochs that
    degraded patches less often than the last one does (``degradations``) count only if no other is
    of use. None if every one diverged.
    """
    sound = [entry for entry in history if entry["state"] != DIVERGED]
    if not sound:
        return None
    ripe = [entry for entry in sound if not is_warming_up(entry)]
    if _some_learn(ripe) or not _some_learn(sound):
        sound = ripe or sound
    if "valid_iou" not in sound[-1]:
        return int(sound[-1]["epoch"])
    return int(max(sound, key=_merit)["epoch"])


def patience_is_over(history: Sequence[Entry], attempt: int, patience: int) -> bool:
    """Return whether the last ``patience`` epochs of an attempt brought no progress.

    Until one is of use, a lower validation loss is progress as well as a higher AUC.
    """
    own = _of_attempt(history, attempt)
    best = best_epoch(own)
    if best is None or is_warming_up(own[-1]):
        return False
    validated = [entry for entry in own if "valid_loss" in entry]
    if validated and not _some_learn(own):
        best = max(best, min(validated, key=lambda entry: entry["valid_loss"])["epoch"])
    return own[-1]["epoch"] - best >= patience


def is_warming_up(entry: Entry) -> bool:
    """Return whether degradations were rarer in an epoch than in the last one."""
    return entry.get("degradations", 1.0) < 1


def failure(history: Sequence[Entry], attempt: int, patience: int) -> str | None:
    """Name what has gone wrong with an attempt, None if nothing has.

    - "diverged": its last loss was NaN or infinite;
    - "collapsed": an earlier epoch was of use and in the last `DEAD_EPOCHS` (or ``patience``, if
      that is less) the network called nothing or everything; or none ever was, it does so now,
      and patience is over: a slow start is no collapse.
    """
    own = _of_attempt(history, attempt)
    if not own:
        return None
    if own[-1]["state"] == DIVERGED:
        return DIVERGED
    n_dead = min(DEAD_EPOCHS, patience)
    last = [entry["state"] in (NOTHING, EVERYTHING) for entry in own[-n_dead:]]
    if _some_learn(history):
        is_over = len(last) == n_dead and all(last)
    else:
        is_over = last[-1] and patience_is_over(history, attempt, patience)
    return "collapsed" if is_over else None


def _some_learn(history: Sequence[Entry]) -> bool:
    return any(entry["state"] == LEARNING for entry in history)


def _of_attempt(history: Sequence[Entry], attempt: int) -> list[Entry]:
    return [entry for entry in history if entry["attempt"] == attempt]


def _merit(entry: Entry) -> tuple[float, float, float]:
    iou = entry["valid_iou"] if entry["state"] == LEARNING else 0.0
    return iou, entry.get("valid_auc", 0.0), -entry["valid_loss"]
