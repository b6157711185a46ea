"""A parser of the command line that says what may have been meant by a wrong word."""

import argparse
import importlib.util
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
#: Commands that decode no images, and one whose own cap is another.
WITHOUT_IMAGES = ("cache", "compare", "download", "info", "models", "serve", "tune-worker")


def parse(commands: dict[str, ModuleType], version: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of a program of subcommands; wrong usage exits with status 2."""
    parser = argparse.ArgumentParser(prog="cnnsvm", description="Detect inpainted images.")
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    for name, module in commands.items():
        summary = str(module.__doc__).splitlines()[0]
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        module.add_flags(subparser)
        if name not in WITHOUT_IMAGES:
            subparser.add_argument(
                "--max-pixels", type=int, metavar="N", help="of an image [200,000,000]"
            )
    parser.add_argument("--version", action="version", version=f"cnnsvm {version}")
    completing = 'print what completes commands in a shell, such as eval "$(cnnsvm ...)"'
    parser.add_argument(
        "--print-completion", action=_Completion, choices=SHELLS, help=completing, metavar="SHELL"
    )
    first = argv[0] if argv else ""
    if first and not first.startswith("-") and first not in commands:
        known = ", ".join(commands)
        parser.error(f"there is no command {first!r}{_meant(first, commands)} Known are {known}.")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = subparsers.choices[args.subcommand]
        flags = [flag for action in chosen._actions for flag in action.option_strings]
        wrong = unknown[0].partition("=")[0]
        chosen.error(f"{args.subcommand} takes no {wrong!r}{_meant(wrong, flags)}")
    return args


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, [*known], n=1)
    return f". Did you mean {close[0]}?" if close else "."


class _Completion(argparse.Action):
    """Prints the completion of a shell and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, *values: Any) -> None:
        if not importlib.util.find_spec("shtab"):
            parser.error("completion needs shtab. Install it: pip install 'cnnsvm[completion]'.")
        import shtab

        print(shtab.complete(parser, shell=values[1]))
        parser.exit()
