"""Processes of torchrun that help a program with its trainings, and do nothing else of it."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cnnsvm.features.devices import HELPERS, Processes, join
from cnnsvm.features.finetuning import FineTuner
from cnnsvm.features.trainer import DivergedError

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def launched(
    device: str = "auto",
    gpu_memory_fraction: float | None = None,
    batch_shares: Sequence[float] | None = None,
) -> Iterator[bool]:
    """Let all processes that torchrun started train the networks of the first one together.

    The first process runs the block, which is the whole program; the others take their part of
    each batch while it trains a network, and skip the block. So there is one search, one writer and
    one report. Without torchrun the block runs as it is.

    Parameters
    ----------
    device, gpu_memory_fraction : as of an embedder
        Of every process; with "auto" or "cuda" each takes a GPU of its own.
    batch_shares : sequence of positive float, or None
        How much of a batch each process takes, by rank, such as (3, 1) for a GPU three times as
        fast as the other; None means the same.

    Yields
    ------
    bool
        Whether this is the first process. The others shall end.

    Raises
    ------
    ValueError
        If there are not as many shares as processes, or one is not positive.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        _check_shares(batch_shares, 1)
        yield True
        return
    _check_shares(batch_shares, int(os.environ["WORLD_SIZE"]))
    _, joined = join(device, gpu_memory_fraction, distributed=True)
    together = replace(joined, shares=tuple(batch_shares or ()))
    if not together.is_first:
        help_training(together, device, gpu_memory_fraction)
        yield False
        return
    before = HELPERS.set(together)
    try:
        yield True
    finally:
        HELPERS.reset(before)
    together.from_first(None)  # not after an error: the others may wait within a step


def help_training(
    together: Processes, device: str = "auto", gpu_memory_fraction: float | None = None
) -> None:
    """Take this process's part of each training of the first one, until that is done."""
    place, _ = join(device, gpu_memory_fraction, distributed=True)
    while (task := together.from_first(None)) is not None:
        task["training"] = replace(task["training"], device=place)
        tuner = FineTuner(**task, processes=together)
        with contextlib.suppress(DivergedError):  # the first one says so
            tuner.run()


def _check_shares(shares: Sequence[float] | None, count: int) -> None:
    if shares is not None and (len(shares) != count or min(shares) <= 0):
        raise ValueError(
            f"batch shares {tuple(shares)!r}: there are {count} processes, and each needs one "
            "positive number. Give one for each, in the order of their ranks, or none."
        )
