"""Judge a detector by grouped nested cross-validation: metrics, controls, an audit, a report."""

import argparse
import shlex
from pathlib import Path

from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm cv``."""
    parser.epilog = (
        "Images are embedded by the network of the detector that ships, whose training images are "
        "left out; --backbone trains a network of one's own in each fold, from random or other "
        "--weights. Run again with the same --out, it resumes."
    )
    what = "manifest, records, Real/Fake tree, images, or an archive of one [embedded samples]"
    parser.add_argument("--data", help=what)
    parser.add_argument("--out", type=Path, help="run directory [runs/NAME OF THE DATA]")
    parser.add_argument("--folds", type=int, default=3, help="outer folds [%(default)s]")
    parser.add_argument("--no-shuffled", action="store_true", help="no run on shuffled labels")
    add_data_flags(parser)
    add_detector_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Prepare, evaluate, report. An interrupted call resumes. Torchrun's processes help."""
    from cnnsvm.features.launching import launched

    with launched(args.device, args.gpu_memory_fraction, args.batch_shares) as is_first:
        return _run(args) if is_first else 0


def _run(args: argparse.Namespace) -> int:
    from cnnsvm.audit.audit import audit
    from cnnsvm.cli.running import command, data_and_out, prepare_data, publish
    from cnnsvm.evaluation.preparation import leave_out_seen_by
    from cnnsvm.evaluation.protocol import describe_environment, run_study
    from cnnsvm.report.evaluation import evaluation_report
    from cnnsvm.report.mistakes import frozen_explainer

    if args.folds < 2:
        raise ValueError(f"--folds must be at least 2, got {args.folds}.")
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
    explain = frozen_explainer(detector) or found.heatmaps.get
    told = found.predictions.assign(sha256=prepared.manifest["sha256"].to_numpy())
    also = (found.folds, found.curves)
    publish(out, evaluation_report(result, told, *also, explain=explain, folder=out))
    return 0


def parse_run(folder: Path) -> argparse.Namespace:
    """Parse the command of a finished run anew; a ValueError says that there is none."""
    from cnnsvm.io.files import read_json

    words = shlex.split(str(read_json(folder / "report.json").get("command", "")))
    calls = [k for k, word in enumerate(words) if word == "cv" or Path(word).name == "cv.py"]
    if not calls:
        raise ValueError(
            f"{folder} holds no report.json of `cnnsvm cv`. Name the run directory of one."
        )
    parser = argparse.ArgumentParser(prog=f"the command of {folder}")
    add_flags(parser)
    return parser.parse_args(words[calls[0] + 1 :])
