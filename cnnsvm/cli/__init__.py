"""The command line ``cnnsvm``: one module a subcommand, each with ``add_flags`` and ``main``."""

import argparse
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import cnnsvm
from cnnsvm.cli import (
    audit,
    build,
    cache,
    compare,
    cv,
    download,
    embed,
    explore,
    fit,
    info,
    localize,
    localize_test,
    localize_train,
    models,
    predict,
    serve,
    tune_worker,
)
from cnnsvm.cli.parsing import WITHOUT_IMAGES, in_flags, parse
from cnnsvm.io.files import FULL
from cnnsvm.io.memory import is_short_of_memory

SUBCOMMANDS = {
    "audit": audit,
    "build": build,
    "cache": cache,
    "compare": compare,
    "cv": cv,
    "download": download,
    "embed": embed,
    "explore": explore,
    "fit": fit,
    "info": info,
    "localize": localize,
    "localize-test": localize_test,
    "localize-train": localize_train,
    "models": models,
    "predict": predict,
    "serve": serve,
    "tune-worker": tune_worker,
}
#: Those that go on where they were interrupted; ``predict`` does with --out.
RESUMING = ("build", "cv", "download", "embed", "fit", "localize", "localize-train", "tune-worker")

#: Those that read data sets.
WITH_TABLES = (
    "audit",
    "build",
    "cv",
    "explore",
    "fit",
    "localize-test",
    "localize-train",
)
#: Exit status of wrong usage, where it is not 2.
WRONG = {"predict": 3}
_WITH_PLACE = warnings.formatwarning


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand and return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parse(SUBCOMMANDS, cnnsvm.__version__, argv)
    except SystemExit as end:
        wrong = WRONG.get(next(iter(argv), ""), 2)
        raise SystemExit(wrong if end.code == 2 else end.code) from None
    if sys.stdout is None:  # it was closed: >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    warnings.formatwarning = _format_warning
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be any bytes
            stream.reconfigure(errors="surrogateescape")
    return guard(
        f"cnnsvm {args.subcommand}",
        lambda: _run(args),
        resumes=args.subcommand in RESUMING or (args.subcommand == "predict" and bool(args.out)),
        wrong=WRONG.get(args.subcommand, 2),
        flags=args.flags,
    )


def _run(args: argparse.Namespace) -> int:
    """Run a subcommand with the settings that are of the whole process."""
    with ExitStack() as settings:
        if args.subcommand not in WITHOUT_IMAGES and args.max_pixels is not None:
            from cnnsvm.data.decoding import usually

            settings.enter_context(usually(args.max_pixels))
        if args.subcommand in WITH_TABLES:
            import pandas as pd

            # names of files may be any bytes, which PyArrow's strings refuse
            settings.enter_context(pd.option_context("mode.string_storage", "python"))
        return SUBCOMMANDS[args.subcommand].main(args)


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Say what is about a user's files without the place in the code."""
    if category is UserWarning:
        return f"{message}\n"
    return _WITH_PLACE(message, category, filename, lineno, line)


def guard(
    name: str,
    action: Callable[[], int],
    *,
    resumes: bool = True,
    wrong: int = 2,
    flags: Mapping[str, str] | None = None,
) -> int:
    """Run a command and return its exit status: ``wrong`` for input, 130 for an interruption.

    Messages start with ``name``. Errors of the program itself are raised. ``resumes`` is whether
    the same command goes on where it was interrupted; ``flags`` are those of `in_flags`.
    """
    what = "resumes" if resumes else "starts over"
    try:
        return action()
    except BrokenPipeError:  # who reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"{name}: {in_flags(str(error), flags or {})}", file=sys.stderr)
        if getattr(error, "errno", None) in FULL:
            print(f"Free some space; the same command {what}.", file=sys.stderr)
        return wrong
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command {what}.", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        if not is_short_of_memory(error):
            raise
        remedy = "Lower --batch-size or --crop-size (of a localiser --tile-size) and resume."
        print(f"{name}: {str(error) or 'memory is short'}\n{remedy}", file=sys.stderr)
        return wrong
