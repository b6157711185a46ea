"""Threads that stop when their work has to."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

_AHEAD = 4  # items a thread that may be begun before the first of them is asked for


def map_in_threads(
    function: Callable[[Any], Any], items: Sequence[Any], n_jobs: int | None = None
) -> Generator[Any, None, None]:
    """Apply a function to items and yield the results in their order.

    When an item fails, the results before it are yielded, then its exception is raised. Whatever
    ends the iteration, items not yet begun are dropped and those begun are waited for, so that
    no thread writes a file after its caller has given up.

    Parameters
    ----------
    function : callable of one argument
    items : sequence
    n_jobs : int or None
        Threads; None or a negative number takes one a core, 1 the caller's own.
    """
    n_threads = n_jobs if n_jobs and n_jobs > 0 else os.cpu_count() or 1
    if n_threads == 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(n_threads)
    begun: deque[Future[Any]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) >= _AHEAD * n_threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
