r"""How much faster two workers of one search are than one, on a database that is there already.

    python experiments/tune_workers.py --storage postgresql://user@127.0.0.1/studies

In each round one and two ``cnnsvm tune-worker``, a core and a thread each, run a search of its own
on the same drawn rows. The time is that from the first trial's begin to the last one's end, as the
database has it: without the start of Python. Status 1 if the best scores differ.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from scripting import make_parser, run_script


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--storage", required=True, metavar="URL", help="of a database")
    add("--rows", type=int, default=3000, help="[%(default)s]")
    add("--columns", type=int, default=128, help="[%(default)s]")
    add("--trials", type=int, default=60, help="[%(default)s]")
    add("--rounds", type=int, default=3, help="[%(default)s]")
    return parser.parse_args(argv)


def begin(args: argparse.Namespace, study: str, rows: Path) -> None:
    """Store a search of which no trial is finished, and its rows."""
    from sklearn.datasets import make_classification

    from cnnsvm.svm import TunedSVC
    from cnnsvm.svm.inner_cv import InnerCV
    from cnnsvm.svm.workers import save_rows

    X, y = make_classification(args.rows, args.columns, n_informative=10, random_state=0)
    model = TunedSVC(storage=args.storage, study=study, n_trials=args.trials, random_state=0)
    with patch.object(InnerCV, "fold_aucs", side_effect=MemoryError):
        try:
            model.search(X, y)
        except MemoryError:
            save_rows(rows, X, y)


def work(args: argparse.Namespace, study: str, rows: Path, n_workers: int) -> tuple[float, float]:
    """Let workers run a search; return its seconds and its best score."""
    import optuna

    program = [sys.executable, "-m", "cnnsvm", "tune-worker", "--storage", args.storage]
    program += ["--study", study, "--rows", str(rows)]
    one = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    cores = sorted(os.sched_getaffinity(0))
    workers = [
        subprocess.Popen(
            ["taskset", "-c", str(cores[i % len(cores)]), *program],
            env=one,
            stdout=subprocess.DEVNULL,
        )
        for i in range(n_workers)
    ]
    statuses = [worker.wait() for worker in workers]
    if any(statuses):
        raise RuntimeError(f"a worker of {study} failed; see above.")
    from cnnsvm.svm.search import StudyStore

    storage = StudyStore(args.storage)._storage
    assert storage is not None  # it is a URL
    found = optuna.load_study(study_name=f"{study} rbf", storage=storage)
    done = found.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    began = min(t.datetime_start.timestamp() for t in done if t.datetime_start)
    ended = max(t.datetime_complete.timestamp() for t in done if t.datetime_complete)
    return ended - began, found.best_value


def run(args: argparse.Namespace) -> int:
    """Take turns, print the ratios and their median."""
    scores, gains = set(), []
    for number in range(args.rounds):
        seconds = {}
        for n_workers in (1, 2) if number % 2 == 0 else (2, 1):
            study = f"speed-{time.time_ns()}"
            with tempfile.TemporaryDirectory() as folder:
                rows = Path(folder, "search-rows.npz")
                begin(args, study, rows)
                seconds[n_workers], score = work(args, study, rows, n_workers)
            scores.add(score)
        gains.append(seconds[1] / seconds[2])
        print(f"one {seconds[1]:.1f} s, two {seconds[2]:.1f} s: {gains[-1]:.2f} times", flush=True)
    print(f"median {statistics.median(gains):.2f} times; best scores {sorted(scores)}")
    return int(len(scores) > 1)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
