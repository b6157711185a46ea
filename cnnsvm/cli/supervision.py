"""Work in a process of its own, where a library may end the process without a word."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_DIE_WITH_PARENT = 1  # of prctl: PR_SET_PDEATHSIG


def supervised(action: Callable[[], int], ended: str) -> int:
    """Run a part of a command in a child process, and return its exit status.

    Call it before threads are begun. The child says what `guard` says, and dies with this process.
    A ConnectionError that says ``ended`` is raised if it ended before the action did.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        _work(action, there)
    os.close(there)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the child, too
    try:
        said = os.read(here, 1)
        os.waitpid(child, 0)
    finally:
        os.close(here)
        signal.signal(signal.SIGINT, before)
    if not said:
        raise ConnectionError(ended)
    return said[0]


def _work(action: Callable[[], int], there: int) -> None:
    from cnnsvm.cli import WRONG, guard

    status = 70  # of an error of the program itself
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        status = guard("cnnsvm predict", action, wrong=WRONG["predict"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(there, bytes([status]))
        os._exit(0)
