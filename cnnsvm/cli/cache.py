"""Show what interrupted or repeated work keeps on disk, and clear it."""

import argparse
import shutil
import time
from pathlib import Path

from cnnsvm.cli.running import RUNS
from cnnsvm.io.machine import user_cache


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm cache``."""
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help="run directories, folders of them, or MODEL.work of a fit [runs, and what was "
        "measured on this machine]",
    )
    parser.add_argument("--clear", action="store_true", help="delete the caches that are listed")
    parser.add_argument(
        "--days", type=float, default=0.0, metavar="N", help="unchanged for N days [%(default)s]"
    )


def main(args: argparse.Namespace) -> int:
    """List caches below folders, each with its size and age; delete them if that is asked."""
    if not args.days >= 0:
        raise ValueError(f"--days must be 0 or more, got {args.days}.")
    usual = [folder for folder in (RUNS, user_cache()) if not args.folders and folder.is_dir()]
    if not args.folders and RUNS not in usual:
        print(
            f"no folder {RUNS} here, so nothing is kept below it. Name folders that runs went to."
        )
    total = 0
    for folder in find_caches(args.folders or usual):
        size, changed = _measure(folder)
        days = (time.time() - changed) / 86400
        if days < args.days:
            continue
        total += size
        print(f"{size / 1e6:10.1f} MB  {days:6.1f} days  {folder}")
        if args.clear:
            shutil.rmtree(folder)
    print(f"{total / 1e6:10.1f} MB  {'cleared' if args.clear else 'in all'}")
    return 0


def find_caches(folders: list[Path]) -> list[Path]:
    """Find the folders of intermediate state below folders; results are never among them.

    That of the user is one itself.
    """
    from cnnsvm.evaluation.runs import CACHE

    own = {user_cache()} & set(folders)
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder. Name one that runs were written to.")
    below = {path for root in folders for path in root.rglob(CACHE) if path.is_dir()}
    found = sorted(below | own)
    return [path for path in found if not any(other in path.parents for other in found)]


def _measure(folder: Path) -> tuple[int, float]:
    """Return the bytes of a folder and when it was last changed, in seconds since 1970."""
    known = [path.stat() for path in (folder, *folder.rglob("*"))]
    return sum(each.st_size for each in known), max(each.st_mtime for each in known)
