"""What the scripts share: the command line, the data, the run directory, the report."""

import argparse
import logging
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnsvm.cli import guard
from cnnsvm.cli.running import RUNS, command, data_and_out, prepare_data, publish

__all__ = ["RUNS", "command", "data_and_out", "prepare_data", "publish"]  # from here as well

#: Loggers that tell of every epoch.
CHATTY = ("cnnsvm.features.trainer", "baselines.small_cnn")


def make_parser(doc: str | None, **options: Any) -> argparse.ArgumentParser:
    """Make a parser that shows the docstring of the script."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **options
    )


def add_data_and_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Add ``--data`` and ``--out``, whose default is below the folder of all runs."""
    what = "manifest, records, Real/Fake tree, images, or an archive of one [embedded samples]"
    parser.add_argument("--data", help=what)
    parser.add_argument(
        "--out", type=Path, help=f"run directory [{Path('runs', 'NAME OF THE DATA', default)}]"
    )


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the seed and the device."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")


def add_records_flags(parser: argparse.ArgumentParser, what: str, most: int) -> None:
    """Add the manifests that are learnt from, and those that are judged."""
    add = parser.add_argument
    add("--records", type=Path, nargs="+", required=True, help=what)
    add("--most", type=int, default=most, help="sources of each manifest [%(default)s]")
    tests = "other images, judged apart"
    add("--test", nargs="+", default=[], metavar="NAME=MANIFEST", help=tests)
    add("--out", type=Path, required=True, help="run directory")


def find_command(folder: Path) -> str:
    """Return the command that made a saved detector, as its card has it, "" if it has none."""
    from cnnsvm.io.bundle import CARD

    card = folder / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    pattern = r"^## How to make it again\n+```\n(.*?)\n```$"
    found = re.search(pattern, text, re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


def find_commit(folder: Path) -> str:
    """Return the commit that a folder is at, "" outside a repository or with git missing."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def run_script(
    file: str,
    run: Callable[[argparse.Namespace], int],
    args: argparse.Namespace,
    *,
    epochs: bool = False,
) -> int:
    """Run a script with a log of its progress, of every epoch too or not; return its status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in () if epochs else CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return guard(Path(file).name, lambda: run(args))
