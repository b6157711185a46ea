"""Say whether a classifier could cheat on a data set."""

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm audit``."""
    parser.epilog = "Exit status: 0 no leak, 1 a leak, 2 data that cannot be read."
    parser.add_argument("data", help="manifest, records, Real/Fake tree, images, or a zip of one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here too")
    parser.add_argument("--folds", type=int, default=5, help="of the probes [%(default)s]")
    parser.add_argument("--groups", help="what names the source: a pattern or a CSV table")
    most = "most images that the probes look at, drawn by source [%(default)s]"
    parser.add_argument("--max-images", type=int, default=2000, metavar="N", help=most)
    parser.add_argument("--seed", type=int, default=0, help="of sample and folds [%(default)s]")
    parser.add_argument("--jobs", type=int, default=-1, metavar="N", help="threads [one a core]")
    parser.add_argument("--work", type=Path, help="where a zip is unpacked [a temporary folder]")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad rows and images out")


def main(args: argparse.Namespace) -> int:
    """Read the data as they are, check, print; status 1 if there is a leak."""
    from cnnsvm.audit.audit import audit, read_for_audit
    from cnnsvm.audit.check import Verdict
    from cnnsvm.io.files import write_json
    from cnnsvm.report import render_text
    from cnnsvm.report.audit import audit_report

    with nullcontext(args.work) if args.work else tempfile.TemporaryDirectory() as work:
        manifest, left_out = read_for_audit(
            args.data, work, groups=args.groups, skip_bad=args.skip_bad, n_jobs=args.jobs
        )
        result = audit(
            manifest,
            n_splits=args.folds,
            random_state=args.seed,
            max_images=args.max_images,
            n_jobs=args.jobs,
        )
    result = {"data": str(args.data), **result, "left_out": left_out}
    print(render_text(audit_report(result)), end="")
    if args.json:
        write_json(args.json, result)
        print(f"\nWritten to {args.json}")
    return 1 if result["verdict"] == Verdict.LEAK else 0
