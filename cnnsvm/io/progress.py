"""Progress of long work: a bar on a terminal, now and then a line in the log elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

EVERY = 30.0  # seconds between two lines of the log


def show_progress(
    items: Iterable[Any], total: int, what: str, progress: bool = True, *, ready: int = 0
) -> Iterator[Any]:
    """Pass items on and say how many of them came and how long the rest will take.

    Parameters
    ----------
    items : iterable
    total : int
    what : str
        What an item is, in the plural.
    progress : bool
        False says nothing.
    ready : int
        How many of the first items cost nothing, since an earlier call made them: the time left
        is told from the others.
    """
    if progress and sys.stderr.isatty():
        yield from _with_bar(items, total, what, ready)
    else:
        yield from _with_lines(items, total, what, ready) if progress else items


def format_duration(seconds: float) -> str:
    """Write a duration with its two largest units, such as ``3 h 12 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _with_bar(items: Iterable[Any], total: int, what: str, ready: int) -> Iterator[Any]:
    bar = tqdm(total=total, desc=what)
    for number, item in enumerate(items, start=1):
        yield item
        if number == ready:  # a bar that starts here tells the time left from what is made now
            bar.initial = ready
            bar.start_t = time.time()
        bar.update()
    bar.close()


def _with_lines(items: Iterable[Any], total: int, what: str, ready: int) -> Iterator[Any]:
    start = said = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if number <= ready:
            start = said = now
        elif now - said >= EVERY and number < total:
            said = now
            left = (now - start) / (number - ready) * (total - number)
            share = 100 * number // total
            logger.info(
                "%s: %d of %d (%d %%), %s left", what, number, total, share, format_duration(left)
            )
