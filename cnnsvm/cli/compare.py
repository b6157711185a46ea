"""Say whether one evaluation is better than another on the same images."""

import argparse
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm compare``."""
    parser.epilog = "Exit status: 0 compared, 2 runs that judged other images."
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="--out folders of `cnnsvm cv`")
    add("--format", choices=("text", "json"), default="text", help="[%(default)s]")
    add("--out", type=Path, metavar="HTML", help="write a page here too")
    resamples = "of sources, and permutations of the test [%(default)s]"
    add("--resamples", type=int, default=2000, metavar="N", help=resamples)
    add("--confidence", type=float, default=0.95, help="of the intervals [%(default)s]")
    add("--seed", type=int, default=0, help="of the resamples [%(default)s]")


def main(args: argparse.Namespace) -> int:
    """Read the runs, compare them in pairs, print."""
    from cnnsvm.evaluation.comparison import compare_runs, read_runs
    from cnnsvm.io.files import write_text
    from cnnsvm.report import render_html, render_text
    from cnnsvm.report.comparison import comparison_report
    from cnnsvm.report.render import to_json

    options = {"n_resamples": args.resamples, "confidence": args.confidence}
    result = compare_runs(read_runs(args.runs), random_state=args.seed, **options)
    report = comparison_report(result)
    if args.out:
        write_text(args.out, render_html(report))
    if args.format == "json":
        print(to_json({"conclusions": report.findings, **result}), end="")
    else:
        print(render_text(report, [args.out] if args.out else []), end="")
    return 0
