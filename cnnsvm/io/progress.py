"""Progress of long work: a bar on a terminal, a line in the log now and then elsewhere."""

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
    """Yield ``items``, and show how many of ``total`` there were and how long the rest will take.

    ``what`` is what an item is, in the plural. The first ``ready`` items cost no time, since an
    earlier run made them: the time left is estimated from the others.
    """
    if not progress:
        yield from items
    elif sys.stderr.isatty():
        yield from _with_bar(items, total, what, ready)
    else:
        yield from _with_lines(items, total, what, ready)


def format_duration(seconds: float) -> str:
    """Write a duration with its two largest units, such as ``3 h 12 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _with_bar(items: Iterable[Any], total: int, what: str, ready: int) -> Iterator[Any]:
    bar = tqdm(total=total, desc=what, leave=None)  # one within another goes when it is full
    for number, item in enumerate(items, start=1):
        yield item
        if number == ready:  # a bar that starts here tells the time left from what is made now
            bar.initial = ready
            bar.start_t = time.time()
        bar.update()
    bar.close()


def _with_lines(items: Iterable[Any], total: int, what: str, ready: int) -> Iterator[Any]:
    start = logged = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if number <= ready:
            start = logged = now
        elif now - logged >= EVERY and number < total:
            logged = now
            left = (now - start) / (number - ready) * (total - number)
            share = 100 * number // total
            logger.info(
                "%s: %d of %d (%d %%), %s left", what, number, total, share, format_duration(left)
            )
