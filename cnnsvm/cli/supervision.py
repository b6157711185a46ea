"""Work in a process of its own, where a library may end the process without a word."""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Callable

_DIE_WITH_PARENT = 1  # of prctl: PR_SET_PDEATHSIG
#: Ray ends its own process, with the status of a scan that found something, if its raylet dies.
_ENDED = (
    "the part of Ray on this machine has died, and the command with it. What is finished stays: "
    "give the same command again."
)


def supervised(action: Callable[[], int], args: argparse.Namespace) -> int:
    """Run a part of a command that uses Ray in a child process, and return its exit status.

    Call it before threads are begun. The child says what `guard` says, and dies with this process.
    A ConnectionError is raised if it ended before the action did.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(here)
        _work(action, args, there)
    os.close(there)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the child, too
    try:
        said = os.read(here, 1)
        os.waitpid(child, 0)
    finally:
        os.close(here)
        signal.signal(signal.SIGINT, before)
    if not said:
        raise ConnectionError(_ENDED)
    return said[0]


def _work(action: Callable[[], int], args: argparse.Namespace, there: int) -> None:
    from cnnsvm.cli import WRONG, guard

    status = 70  # of an error of the program itself
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        wrong = WRONG.get(args.subcommand, 2)
        status = guard(f"cnnsvm {args.subcommand}", action, wrong=wrong, flags=args.flags)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(there, bytes([status]))
        os._exit(0)
