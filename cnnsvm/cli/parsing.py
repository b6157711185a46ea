"""A parser of the command line that says what may have been meant by a wrong word."""

import argparse
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")
#: Commands that decode no images, and one whose own cap is another.
WITHOUT_IMAGES = ("cache", "compare", "download", "info", "models", "serve", "tune-worker")
#: How an error about a parameter begins: scikit-learn's, and those of this library.
_PARAMETER = re.compile(r"(?:The '(\w+)' parameter of \w+|(\w+)) must ")
#: Flags with another name than the parameter's; `n_jobs` is --jobs, and so on, without being here.
_RENAMED = {"n_splits": "folds", "cv": "inner_folds", "random_state": "seed"}


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
    chosen = subparsers.choices[args.subcommand]
    if unknown:
        flags = [flag for action in chosen._actions for flag in action.option_strings]
        wrong = unknown[0].partition("=")[0]
        meant = f". Put ./ before it: ./{wrong}" if Path(wrong).exists() else _meant(wrong, flags)
        chosen.error(f"{args.subcommand} takes no {wrong!r}{meant}")
    args.flags = {
        each.dest: each.option_strings[0] for each in chosen._actions if each.option_strings
    }
    return args


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Name the flag in an error that names the parameter which it sets.

    ``flags`` are those of a subcommand, by where their values are stored.
    """
    found = _PARAMETER.match(message)
    name = (found[1] or found[2]) if found else ""
    for known in (name, name.removeprefix("n_"), _RENAMED.get(name, "")):
        if found and known in flags:
            return f"{flags[known]} must {message[found.end() :]}"
    return message


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
