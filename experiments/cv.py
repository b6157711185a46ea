"""The main job: from images to a report that can be believed.

    python experiments/cv.py                                  the embedded samples
    python experiments/cv.py --data records.zip               records with originals and fakes
    python experiments/cv.py --data photos --generate opencv-telea

Grouped nested cross-validation of the CNN+SVM detector, with intervals and negative controls.
Run again with the same --out, it goes on where it was.
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector

SAMPLES_ENGINE = "opencv-telea"
RUNS = Path(__file__).resolve().parent.parent / "runs"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="manifest, records, Real/Fake tree, images, or a zip of one")
    parser.add_argument("--out", type=Path, help="folder of the results [runs/NAME OF THE DATA]")
    parser.add_argument("--folds", type=int, default=3, help="outer folds [%(default)s]")
    parser.add_argument("--no-shuffled", action="store_true", help="no run on shuffled labels")
    add_data_flags(parser)
    add_detector_flags(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> str:
    """Prepare, evaluate, report; return the text for standard output."""
    from cnnsvm.evaluation.preparation import prepare
    from cnnsvm.evaluation.study import describe_environment, run_study
    from cnnsvm.report import format_report, write_report

    detector = make_detector(args)
    describe_environment(args.device)
    out = args.out or RUNS / (Path(args.data).stem if args.data else "samples")
    engine = args.generate or (None if args.data else SAMPLES_ENGINE)
    prepared = prepare(
        args.data,
        out / "data",
        generate=engine,
        codec=args.codec,
        groups=args.groups,
        skip_bad=args.skip_bad,
        random_state=args.seed,
    )
    result, found = run_study(
        detector,
        prepared.manifest,
        n_splits=args.folds,
        random_state=args.seed,
        folder=out,
        shuffled=not args.no_shuffled,
    )
    result |= {
        "title": f"Inpainting detection: {Path(args.data).name if args.data else 'samples'}",
        "command": shlex.join(["python", *sys.argv]),
        "data": args.data or "embedded samples",
        "skipped": prepared.skipped,
        "warnings": prepared.warnings,
    }
    files = write_report(out, result, found.predictions, found.folds, found.curves)
    return format_report(result, files.values())


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; errors a user can mend are one message, not a traceback."""
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("cnnsvm.features.finetuning").setLevel(logging.WARNING)
    try:
        print(run(args))
    except (ValueError, OSError) as error:
        print(f"cv.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cv.py: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
