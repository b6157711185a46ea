"""A judge behind a server: loaded in the background, asked by few threads, one image at a time."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cnnsvm.report.judging import Judge
from cnnsvm.web.limits import Limits, Refusal, busy

T = TypeVar("T")
logger = logging.getLogger(__name__)


class OutOfTimeError(TimeoutError):
    """Work that no one waits for any more."""


class Service:
    """What the routes share.

    Parameters
    ----------
    load : callable
        Returns the judge; it may take a while, and runs in a thread of its own.
    limits : Limits

    Attributes
    ----------
    judge : Judge or None
        Once it is loaded.
    failure : Exception or None
        Why it could not be loaded.
    one_at_a_time : Lock
        Held by whoever asks the judge: two at once would share its device's memory.
    """

    def __init__(self, load: Callable[[], Judge], limits: Limits) -> None:
        self.limits = limits
        self.judge: Judge | None = None
        self.failure: Exception | None = None
        self.one_at_a_time = threading.Lock()
        self.n_held = 0
        self._load = load
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="judge")

    def start(self, on_failure: Callable[[], None]) -> None:
        """Begin to load the judge; ``on_failure`` is called if that fails."""

        def load() -> None:
            try:
                self.judge = self._load()
                logger.info("The model %s is loaded.", self.judge.model)
            except Exception as error:
                self.failure = error
                on_failure()

        threading.Thread(target=load, name="load", daemon=True).start()

    def close(self) -> None:
        """Let what is at work end, and nothing else begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ready(self) -> Judge:
        """Return the judge; a `Refusal` says that it is not loaded."""
        if self.judge is None:
            raise busy("the model is being loaded.", seconds=5)
        return self.judge

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[..., Any]]:
        """Take one of the places, and give what runs a function in a thread until it is late.

        The function's first argument says when that is. A thread cannot be stopped: a place is free
        again once its function has ended, whether or not someone still waits for it. A `Refusal`
        says that all places are taken (503) or the time is over (504).
        """
        if self.n_held >= self.limits.workers + self.limits.queue:
            raise busy(f"{self.n_held} requests are being worked on, and no more may wait.")
        self.n_held += 1
        jobs: list[Future[Any]] = []

        async def run(function: Callable[..., T], *arguments: Any) -> T:
            end = time.monotonic() + self.limits.timeout
            jobs.append(self._pool.submit(function, end, *arguments))
            try:
                waiting = asyncio.wrap_future(jobs[-1])
                return await asyncio.wait_for(waiting, self.limits.timeout)
            except TimeoutError:
                raise Refusal(
                    504,
                    f"not judged within {self.limits.timeout:g} s. Send fewer images or smaller "
                    "ones, or ask when less is waiting.",
                ) from None

        try:
            yield run
        finally:
            loop = asyncio.get_running_loop()
            if jobs and not jobs[-1].done():
                jobs[-1].add_done_callback(lambda _: loop.call_soon_threadsafe(self._free))
            else:
                self._free()

    def _free(self) -> None:
        self.n_held -= 1
