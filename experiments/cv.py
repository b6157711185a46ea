"""The main job: from images to a report that can be believed.

    python experiments/cv.py                                  the embedded samples
    python experiments/cv.py --data records.zip               records with originals and fakes
    python experiments/cv.py --data photos --generate opencv-telea

Grouped nested cross-validation of the CNN+SVM detector, with intervals and negative controls.
Images are embedded by the network of the detector that ships, whose training pictures are left
out; --backbone trains a network of one's own in each fold, from random or other --weights.
Run again with the same --out, it goes on where it was.
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from cnnsvm.cli.errors import guard
from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector

SAMPLES_ENGINE = "opencv-telea"
RUNS = Path(__file__).resolve().parent.parent / "runs"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", help="manifest, records, Real/Fake tree, images, or an archive of one"
    )
    parser.add_argument("--out", type=Path, help="folder of the results [runs/NAME OF THE DATA]")
    parser.add_argument("--folds", type=int, default=3, help="outer folds [%(default)s]")
    parser.add_argument("--no-shuffled", action="store_true", help="no run on shuffled labels")
    add_data_flags(parser)
    add_detector_flags(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Prepare, evaluate, report."""
    from cnnsvm.data.readers.archives import data_name
    from cnnsvm.evaluation.preparation import leave_out_seen_by, prepare
    from cnnsvm.evaluation.protocol import describe_environment, run_study
    from cnnsvm.report import render_text, write_report
    from cnnsvm.report.evaluation import evaluation_report

    detector = make_detector(args, shipped=True)
    describe_environment(args.device)
    name = data_name(args.data) if args.data else "samples"
    out = args.out or RUNS / name
    engine = args.generate or (None if args.data else SAMPLES_ENGINE)
    prepared = prepare(
        args.data,
        out / "data",
        generate=engine,
        codec=args.codec,
        groups=args.groups,
        skip_bad=args.skip_bad,
        variants=args.variants,
        random_state=args.seed,
    )
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
        "command": shlex.join(["python", *sys.argv]),
        "data": args.data or "embedded samples",
        "skipped": prepared.skipped,
        "warnings": prepared.warnings,
    }
    report = evaluation_report(result, found.predictions, found.folds, found.curves)
    files = write_report(out, report)
    print(render_text(report, files.values()), end="")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("cnnsvm.features.trainer").setLevel(logging.WARNING)
    return guard("cv.py", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
