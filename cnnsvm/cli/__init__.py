"""The command line ``cnnsvm``: one module a subcommand, each with ``add_flags`` and ``main``."""

import argparse
import logging
import sys
from collections.abc import Callable

from cnnsvm.cli import (
    audit,
    build,
    download,
    fit,
    localize,
    localize_test,
    localize_train,
    predict,
)

SUBCOMMANDS = {
    "audit": audit,
    "build": build,
    "download": download,
    "fit": fit,
    "localize": localize,
    "localize-test": localize_test,
    "localize-train": localize_train,
    "predict": predict,
}


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    parser = argparse.ArgumentParser(prog="cnnsvm", description="Detect inpainted images.")
    subparsers = parser.add_subparsers(dest="subcommand", required=True)
    for name, module in SUBCOMMANDS.items():
        summary = str(module.__doc__).splitlines()[0]
        module.add_flags(subparsers.add_parser(name, help=summary, description=summary))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    return guard(f"cnnsvm {args.subcommand}", lambda: SUBCOMMANDS[args.subcommand].main(args))


def guard(name: str, action: Callable[[], int]) -> int:
    """Run a command and return its exit status: 2 for wrong input, 130 for an interruption.

    Messages start with ``name``. Errors of the program itself are raised.
    """
    try:
        return action()
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command resumes.", file=sys.stderr)
        return 130
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and torch may not be loaded
        if "out of memory" not in str(error).lower():
            raise
        remedy = "Lower --batch-size or --crop-size (of a localiser --tile-size) and resume."
        print(f"{name}: {error}\n{remedy}", file=sys.stderr)
        return 2
