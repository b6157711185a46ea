"""What is left of a detector's skill after JPEG, WebP, resizing, blur, noise, crops, screenshots.

    python experiments/robustness.py                          the embedded samples
    python experiments/robustness.py --data records --folds 5
    python experiments/robustness.py --data others --model model --corruptions jpeg-75 crop

Each fold's detector, its threshold frozen, judges its held-out sources clean and corrupted; all
folds together make the table. With --model a saved detector judges all the data but what it was
trained on. Run again with the same --out, it resumes.
"""

import argparse
import time
from pathlib import Path
from typing import Any

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

N_FOLDS = 3
N_RESAMPLES = 1000


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_data_and_out(parser, "robustness")
    parser.add_argument(
        "--model",
        type=Path,
        help="saved detector; sources that it was trained on are left out. --seed draws the "
        "corruptions, and of the other flags of a detector those of the machine alone have a "
        "meaning then",
    )
    parser.add_argument("--folds", type=int, default=N_FOLDS, help="outer folds [%(default)s]")
    parser.add_argument(
        "--target",
        default="label",
        help="column that is fitted; variant makes a class of each kind of fake [%(default)s]",
    )
    parser.add_argument("--corruptions", nargs="+", metavar="NAME", help="such as jpeg-75 [all]")
    add_data_flags(parser)
    add_detector_flags(parser)
    return parser.parse_args(argv)


def choose_corruptions(names: list[str] | None) -> list[str]:
    """List what is asked for in the usual order, clean first since all is set against it."""
    from cnnsvm.evaluation.corruptions import CLEAN, CORRUPTIONS, check_corruptions

    check_corruptions(names or [CLEAN])
    return [name for name in CORRUPTIONS if names is None or name in (CLEAN, *names)]


def load_detector(args: argparse.Namespace) -> Any:
    """Read a saved detector and set it up for this machine."""
    from cnnsvm import InpaintDetector

    detector = InpaintDetector.from_pretrained(args.model, device=args.device)
    machine = ("precision", "gpu_memory_fraction", "batch_size")
    values = {name: getattr(args, name) for name in machine} | {"n_jobs": args.jobs}
    values = {name: value for name, value in values.items() if value is not None}
    for embedder in detector.embedder_:
        known = embedder.get_params(deep=False)
        embedder.set_params(**{name: value for name, value in values.items() if name in known})
    return detector


def judge(args: argparse.Namespace, detector: Any, manifest: Any, out: Path) -> Any:
    """Judge all data by a saved detector, or each fold by one that was fitted on the others."""
    from robustness_study.study import measure_by_folds, measure_robustness

    names = choose_corruptions(args.corruptions)
    options: dict[str, Any] = {"random_state": args.seed}
    if args.model:
        return measure_robustness(detector, manifest, names, folder=out / "judged", **options)
    options |= {"n_splits": args.folds, "target": args.target, "folder": out / "folds"}
    return measure_by_folds(detector, manifest, names, **options)


def describe(args: argparse.Namespace, name: str, detector: Any, prepared: Any) -> dict[str, Any]:
    """Collect what the report says of a run besides its numbers."""
    return {
        "title": f"Robustness: {name}",
        "command": command(),
        "data": args.data or "embedded samples",
        "model": args.model,
        "n_images": len(prepared.manifest),
        "n_sources": prepared.manifest["source_id"].nunique(),
        "n_folds": None if args.model else args.folds,
        "skipped": prepared.skipped,
        "warnings": prepared.warnings,
        "settings": {key: str(value) for key, value in detector.get_params().items()},
    }


def run(args: argparse.Namespace) -> int:
    """Prepare, judge, report."""
    from cnnsvm.evaluation.preparation import leave_out_seen, leave_out_seen_by
    from cnnsvm.evaluation.protocol import describe_environment
    from robustness_study.report import robustness_report
    from robustness_study.study import summarise_robustness

    started = time.perf_counter()
    choose_corruptions(args.corruptions)  # a misspelt one is told before anything is made
    detector = load_detector(args) if args.model else make_detector(args)
    environment = describe_environment(args.device)
    name, out = data_and_out(args, "robustness")
    prepared = prepare_data(args, out, args.codec)
    if args.model:
        prepared = leave_out_seen(prepared, args.model, n_jobs=args.jobs)
    else:
        prepared = leave_out_seen_by(prepared, detector, n_jobs=args.jobs)
    predictions = judge(args, detector, prepared.manifest, out)
    summary = summarise_robustness(predictions, N_RESAMPLES, args.seed)
    facts = describe(args, name, detector, prepared)
    facts |= {"seconds": time.perf_counter() - started, "environment": environment}
    report = robustness_report(predictions, summary, facts)
    publish(out, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
