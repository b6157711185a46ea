"""What commands that write a run directory share: the data, the directory, the report."""

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnsvm.evaluation.preparation import Prepared
    from cnnsvm.report.model import Report

RUNS = Path("runs")
SAMPLES_ENGINE = "opencv-telea"


def data_and_out(args: argparse.Namespace, default: str) -> tuple[str, Path]:
    """Return the name of the data and the run directory."""
    from cnnsvm.data.readers.archives import data_name

    first = args.data[0] if isinstance(args.data, list) and args.data else args.data
    name = data_name(first) if first else "samples"
    return name, args.out or RUNS / name / default


def prepare_data(args: argparse.Namespace, out: Path, codec: str | None) -> "Prepared":
    """Prepare the data, or the samples with fakes, by the flags of `add_data_flags`."""
    from cnnsvm.evaluation.preparation import prepare

    return prepare(
        args.data,
        out / "data",
        generate=args.generate or (None if args.data else SAMPLES_ENGINE),
        codec=codec,
        groups=args.groups,
        skip_bad=args.skip_bad,
        variants=args.variants,
        random_state=args.seed,
    )


def command() -> str:
    """Return how the program was called."""
    is_ours = Path(sys.argv[0]).stem in ("cnnsvm", "__main__")
    own = ["cnnsvm"] if is_ours else ["python", sys.argv[0]]
    return shlex.join([*own, *sys.argv[1:]])


def publish(out: Path, report: "Report", also: Iterable[Path] = ()) -> None:
    """Write a report to the run directory and print it, with the files that were written."""
    from cnnsvm.report import render_text, write_report

    files = write_report(out, report)
    print(render_text(report, [*files.values(), *also]), end="")
