"""Take part in a search for hyperparameters that `cnnsvm fit --storage` has begun, on any host."""

import argparse
import logging
from pathlib import Path

logger = logging.getLogger(__name__)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm tune-worker``."""
    parser.epilog = (
        "Exit status: 0 all trials are finished, 2 wrong usage, or the database is gone. The same "
        "command goes on. It takes every core that it may use; `taskset` gives it fewer."
    )
    add = parser.add_argument
    add(
        "--storage", required=True, metavar="URL", help="of the database: postgresql://USER@HOST/DB"
    )
    add("--study", required=True, metavar="NAME", help="of the search")
    what = "search-rows.npz that fit wrote, or a folder that holds it"
    add("--rows", required=True, type=Path, metavar="FILE", help=what)


def main(args: argparse.Namespace) -> int:
    """Run trials until all are finished. An interrupted call resumes."""
    from cnnsvm.svm.workers import join_search

    try:
        results = join_search(args.storage, args.study, args.rows)
    except ImportError as error:  # of a driver: wrong usage, no error of the program
        raise ValueError(str(error)) from error
    for result in results:
        n_trials = len(result["trials"])
        print(f"{result['kernel']}: {n_trials} trials, best AUC {result['score']:.4f}")
    return 0
