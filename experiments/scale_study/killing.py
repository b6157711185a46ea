"""A job on Ray runs to its end, or to a limit of time, while its parts are killed."""

import logging
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scale_study.processes import alive, family, megabytes

logger = logging.getLogger(__name__)

KINDS = ("worker", "driver", "raylet")
_STEP, _SAMPLED, _LOGGED, _STUCK = 1.0, 5.0, 60.0, 300.0  # seconds


@dataclass
class Course:
    """What happened so far, also of a scan that ends early: times are seconds from its begin."""

    seconds: float = 0.0
    n_parts: int = 0
    is_whole: bool = False
    memory: list[dict[str, float]] = field(default_factory=list)
    kills: list[dict[str, Any]] = field(default_factory=list)
    n_starts: int = 0

    def killed(self) -> dict[str, int]:
        """Count what was killed."""
        return dict(Counter(kill["kind"] for kill in self.kills))


class Scan:
    """Gives a command again until all partitions are there, and kills parts of it meanwhile.

    Each kind of process is killed ``n_kills`` times, at moments that are drawn evenly over the run:
    from the partitions, and the time that is allowed, if it is.
    """

    def __init__(
        self, out: Path, n_wanted: int, n_kills: int, seed: int, limit: float | None
    ) -> None:
        self.out, self.n_wanted, self.limit = out, n_wanted, limit
        self.chance = random.Random(seed)
        kinds = [*KINDS] * n_kills
        self.chance.shuffle(kinds)
        moments = sorted(self.chance.uniform(0.01, 0.97) for _ in kinds)
        self.plan = list(zip(moments, kinds, strict=True))
        self.course = Course()
        self.began = time.monotonic()

    def run(self, command: Sequence[str]) -> None:
        """Run the command; RuntimeError says that it is stuck, or ended before any kill."""
        self.began = time.monotonic()
        while not self.course.is_whole:
            process = subprocess.Popen(command)
            self.course.n_starts += 1
            known = {process.pid: "driver"}
            try:
                known = self._watch(process)
            finally:
                process.kill()
                process.wait()
                settle(known)
                self._look()
            if self._is_late():
                return
            # status 1: something was found
            self.course.is_whole = (
                process.returncode in (0, 1) and self.course.n_parts >= self.n_wanted
            )
            if not (self.course.is_whole or self.course.kills):
                raise RuntimeError(f"the scan ended with {process.returncode} before any kill.")

    def _watch(self, process: subprocess.Popen[bytes]) -> dict[int, str]:
        """Kill and measure until a command ends, or time is over; return its processes."""
        n_before = n_last = count(self.out)
        moved, known = time.monotonic(), {process.pid: "driver"}
        sampled = logged = 0.0
        while process.poll() is None and not self._is_late():
            time.sleep(self.chance.uniform(0.5, 1.5) * _STEP)  # at no moment of a partition's own
            now, known = time.monotonic(), family(process.pid)
            has_moved = self._look() > n_before
            is_due = has_moved and self.plan and self._share() >= self.plan[0][0]
            if is_due and self._kill(self.plan[0][1], known):
                del self.plan[0]
                n_before = self.course.n_parts
            if now - sampled > _SAMPLED:
                sampled = now
                self.course.memory.append(sample(known) | {"seconds": self.course.seconds})
            if now - logged > _LOGGED:
                logged = now
                self._tell()
            if self.course.n_parts > n_last:
                n_last, moved = self.course.n_parts, now
            if now - moved > _STUCK:
                raise RuntimeError(f"no partition for {_STUCK:.0f} s: the scan is stuck.")
        return known

    def _look(self) -> int:
        self.course.seconds = time.monotonic() - self.began
        self.course.n_parts = count(self.out)
        return self.course.n_parts

    def _is_late(self) -> bool:
        return self.limit is not None and time.monotonic() - self.began > self.limit

    def _share(self) -> float:
        """Return how much of the run is over, 0 to 1."""
        passed = self.course.seconds / self.limit if self.limit else 0.0
        return max(passed, self.course.n_parts / self.n_wanted)

    def _kill(self, kind: str, known: dict[int, str]) -> bool:
        found = [process for process, each in known.items() if each == kind]
        if not found:  # one is about to begin
            return False
        os.kill(self.chance.choice(found), signal.SIGKILL)
        n_begun = len(list(self.out.glob("_begun-*")))
        said = {"kind": kind, "seconds": round(self.course.seconds, 1)}
        self.course.kills.append(said | {"partitions": self.course.n_parts, "begun": n_begun})
        logger.info("killed a %s at %d partitions", kind, self.course.n_parts)
        return True

    def _tell(self) -> None:
        done, seconds = self.course.n_parts, self.course.seconds
        logger.info("%d of %d partitions in %.0f s", done, self.n_wanted, seconds)


def count(out: Path) -> int:
    """Count the partitions of a folder."""
    return len(list(out.glob("part-*.parquet")))


def sample(known: dict[int, str]) -> dict[str, float]:
    """Return MB of private memory: the largest of each kind of process, and of all together."""
    sizes: dict[str, list[float]] = {}
    for process, kind in known.items():
        sizes.setdefault(kind, []).append(megabytes(process))
    return {kind: max(found) for kind, found in sizes.items()} | {
        "all": sum(map(sum, sizes.values()))
    }


def settle(known: dict[int, str]) -> None:
    """Wait for what a dead driver began to end."""
    for _ in range(60):
        if not alive(list(known)):
            return
        time.sleep(0.5)
    logger.warning("30 s later there are still %s", {p: known[p] for p in alive(list(known))})
