"""The command line ``cnnsvm``: one module a subcommand, each with ``add_flags`` and ``main``."""

import argparse
import logging

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
from cnnsvm.cli.errors import guard

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
