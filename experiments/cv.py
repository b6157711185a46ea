"""The main job: from images to a report that can be believed.

    python experiments/cv.py                                  the embedded samples
    python experiments/cv.py --data records.zip               records with originals and fakes
    python experiments/cv.py --data photos --generate opencv-telea

Grouped nested cross-validation of the CNN+SVM detector, with intervals, negative controls and an
audit of the files that are judged.
Images are embedded by the network of the detector that ships, whose training images are left
out; --backbone trains a network of one's own in each fold, from random or other --weights.
Run again with the same --out, it resumes.
"""

import argparse

from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector
from scripting import (
    add_data_and_out,
    command,
    data_and_out,
    make_parser,
    prepare_data,
    publish,
    run_script,
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_data_and_out(parser, "")
    parser.add_argument("--folds", type=int, default=3, help="outer folds [%(default)s]")
    parser.add_argument("--no-shuffled", action="store_true", help="no run on shuffled labels")
    add_data_flags(parser)
    add_detector_flags(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Prepare, evaluate, report."""
    from cnnsvm.audit.audit import audit
    from cnnsvm.evaluation.preparation import leave_out_seen_by
    from cnnsvm.evaluation.protocol import describe_environment, run_study
    from cnnsvm.report.evaluation import evaluation_report

    detector = make_detector(args, shipped=True)
    describe_environment(args.device)
    name, out = data_and_out(args, "")
    prepared = prepare_data(args, out, args.codec)
    prepared = leave_out_seen_by(prepared, detector, n_jobs=args.jobs)
    result, found = run_study(
        detector,
        prepared.manifest,
        n_splits=args.folds,
        random_state=args.seed,
        folder=out,
        shuffled=not args.no_shuffled,
    )
    result |= {
        "title": f"Inpainting detection: {name}",
        "command": command(),
        "data": args.data or "embedded samples",
        "audit": audit(prepared.manifest, random_state=args.seed, n_jobs=args.jobs),
        "skipped": prepared.skipped,
        "warnings": prepared.warnings,
    }
    report = evaluation_report(result, found.predictions, found.folds, found.curves)
    publish(out, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
