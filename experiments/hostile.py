r"""Nothing hostile gets through: every file of a folder, read and judged under limits.

    python experiments/hostile.py CORPUS... --out runs/hostile
    python experiments/hostile.py CORPUS --actions load predict --seconds 20 --megabytes 2048

Each file is given to each action in a process of its own kind, which may take so many seconds and
so much memory beyond what it had after its imports. An audit has it as the fake of one source of
three. What is counted: judged, refused with an
`ImageError`, anything else that was raised, ended by a crash, ended by the clock. Status 1 if there
is any of the last three. ``--out`` holds a table of each action, and the same call goes on.
"""

import argparse
import itertools
import logging
import multiprocessing as mp
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.cli.rows import Rows
from scripting import command, make_parser, publish, run_script

ACTIONS = ("load", "header", "audit", "predict", "localize")
JUDGED, REFUSED, OTHER, CRASH, CLOCK = "judged", "refused", "anything else", "crash", "out of time"
FIELDS = ["path", "action", "outcome", "message", "seconds", "megabytes"]
START_SECONDS = 300  # to import and load a model

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("corpus", nargs="+", type=Path, help="folders of files of any kind")
    parser.add_argument("--actions", nargs="+", default=ACTIONS, choices=ACTIONS)
    parser.add_argument("--seconds", type=float, default=20.0, help="for a file [%(default)s]")
    parser.add_argument("--megabytes", type=int, default=2048, help="for a file [%(default)s]")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="file of N [%(default)s]")
    parser.add_argument("--out", type=Path, required=True, help="run directory")
    return parser.parse_args(argv)


def find_action(name: str) -> Callable[[str], Any]:
    """Load what an action needs, and return the function of a path."""
    from cnnsvm.data.images import load_image, read_header

    if name == "load":
        return load_image
    if name == "header":
        return read_header
    if name == "audit":
        return audit_with
    from cnnsvm import CombinedDetector, InpaintLocalizer  # torch, which the others do not need

    if name == "predict":
        detector = CombinedDetector.from_pretrained(device="cpu")
        return lambda path: detector.verdict([path])
    localizer = InpaintLocalizer.from_pretrained().set_params(device="cpu")
    return lambda path: localizer.predict([path])


def audit_with(path: str) -> None:
    """Audit a data set of noise, drawn anew, in which a file is one fake."""
    from cnnsvm.audit.audit import audit

    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for source, label in itertools.product(range(3), range(2)):
            noise = Path(folder, f"{source}-{label}.png")
            pixels = np.random.default_rng([source, label]).integers(0, 256, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(noise)
            rows.append({"path": str(noise), "label": label, "source_id": str(source)})
        rows[-1]["path"] = path
        audit(pd.DataFrame(rows), n_splits=2, progress=False)


def work(name: str, megabytes: int, pipe: Connection) -> None:
    """Answer each path with its outcome, its message and the peak of memory in MB."""
    from cnnsvm.data.images import ImageError

    action = find_action(name)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(None)
    while (path := pipe.recv()) is not None:
        virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = virtual + megabytes * 2**20  # anew: threads of earlier files hold address space
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            action(path)
            outcome, message = JUDGED, ""
        except ImageError as error:
            outcome, message = REFUSED, str(error)
        except Exception as error:
            outcome, message = OTHER, f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send((outcome, message, (peak - used) / 1024))


class Worker:
    """A process that acts on files, and is started anew where one ended it."""

    def __init__(self, action: str, seconds: float, megabytes: int) -> None:
        self.action, self.seconds, self.megabytes = action, seconds, megabytes
        self.process: Any = None

    def __call__(self, path: str) -> dict[str, Any]:
        """Act on a file and say what came of it."""
        if self.process is None:
            self.start()
        started = time.perf_counter()
        outcome: tuple[str, str, float]
        try:
            self.pipe.send(path)
            outcome = self.pipe.recv() if self.pipe.poll(self.seconds) else (CLOCK, "", 0.0)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join()
            outcome = (CRASH, f"exit status {self.process.exitcode}", 0.0)
        if outcome[0] in (CLOCK, CRASH):
            self.stop()
        row = dict(zip(("outcome", "message", "megabytes"), outcome, strict=True))
        return {"path": path, "action": self.action, "seconds": time.perf_counter() - started} | row

    def start(self) -> None:
        """Start a process and wait until it is ready."""
        context = mp.get_context("spawn")
        self.pipe, other = context.Pipe()
        arguments = (self.action, self.megabytes, other)
        self.process = context.Process(target=work, args=arguments, daemon=True)
        self.process.start()
        other.close()
        if not self.pipe.poll(START_SECONDS):
            raise RuntimeError(f"{self.action} was not ready after {START_SECONDS} seconds.")
        self.pipe.recv()

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = None


def list_files(places: list[Path]) -> Iterator[str]:
    """List every file below folders, whatever it is."""
    for place in places:
        if not place.is_dir():
            raise ValueError(f"{place}: no such folder. Name folders of files.")
        yield from (str(path) for path in sorted(place.rglob("*")) if not path.is_dir())


def judge_all(args: argparse.Namespace) -> pd.DataFrame:
    """Give every file to every action."""
    files = list(list_files(args.corpus))[:: args.every]
    return pd.concat([_judge(action, files, args) for action in args.actions])


def _judge(action: str, files: list[str], args: argparse.Namespace) -> pd.DataFrame:
    """Give files to an action, but those that an earlier call has given it."""
    from cnnsvm.io.progress import show_progress

    args.out.mkdir(parents=True, exist_ok=True)
    place = args.out / f"{action}.csv"
    rows = Rows(FIELDS, "csv", place, str)
    rest = [path for path in files if path not in rows.known]
    rows.start(rows.known.values())
    worker = Worker(action, args.seconds, args.megabytes)
    with closing(rows):
        for path in show_progress(rest, len(rest), action):
            rows.add(worker(path))
    worker.stop()
    return pd.read_csv(place, keep_default_na=False)


def make_report(table: pd.DataFrame, args: argparse.Namespace) -> Any:
    """Count outcomes, and list what should not be, the slowest and the largest."""
    from cnnsvm.report.model import Report, Section, Table

    outcomes = (JUDGED, REFUSED, OTHER, CRASH, CLOCK)
    counts = []
    for action, part in table.groupby("action", sort=False):
        found = [int((part["outcome"] == name).sum()) for name in outcomes]
        most = [float(part[name].max()) for name in ("seconds", "megabytes")]
        counts.append([action, len(part), *found, *most])
    bad = table[table["outcome"].isin((OTHER, CRASH, CLOCK))]
    columns = ["path", "action", "outcome", "message"]
    header = ["action", "files", *outcomes, "slowest, s", "largest, MB"]
    return Report(
        {"command": command(), "limits": f"{args.seconds:g} s and {args.megabytes} MB a file"},
        "Hostile files",
        sections=[
            Section("Outcomes", [Table(header, counts)]),
            Section("Neither judged nor refused", [Table(columns, bad[columns].values.tolist())]),
        ],
        name="hostile",
    )


def run(args: argparse.Namespace) -> int:
    """Judge everything and report."""
    table = judge_all(args)
    if table.empty:
        raise ValueError("there are no files in these folders.")
    publish(args.out, make_report(table, args))
    return int(table["outcome"].isin((OTHER, CRASH, CLOCK)).any())


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
