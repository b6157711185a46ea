"""Whether a detector catches engines that its training never saw.

    python experiments/leave_one_out.py                       the embedded samples, two engines
    python experiments/leave_one_out.py --data records more-records --growth
    python experiments/leave_one_out.py --data records --family 'decoder:*=decoders'
    python experiments/leave_one_out.py --data records --external repaint=repaint.zip

Each engine, or family of engines, is left out of training in turn, and the detector of the others
judges its fakes on sources that no training saw. --external names data sets that are never trained
on. Run again with the same --out, it resumes.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector
from scripting import command, data_and_out, make_parser, publish, run_script

if TYPE_CHECKING:
    from cnnsvm.evaluation.preparation import Prepared

SAMPLES_ENGINES = ("opencv-telea", "opencv-ns")
N_FOLDS = 5
N_RESAMPLES = 1000


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add: Any = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add("--data", **several, metavar="PATH", help="manifests, records or archives of them")
    add(
        "--external",
        **several,
        metavar="NAME=PATH",
        type=pair,
        help="data sets that are judged and never trained on",
    )
    add(
        "--family",
        **several,
        metavar="PATTERN=NAME",
        type=pair_from_the_right,
        help="engines that are left out together, as in 'decoder:*=decoders' [each alone]",
    )
    add("--growth", action="store_true", help="also train on the first 1, 2, 4, 8, ... families")
    add("--out", type=Path, help="folder of the results [runs/NAME OF THE DATA/leave-one-out]")
    add("--folds", type=int, default=N_FOLDS, help="parts of the sources [%(default)s]")
    add("--rounds", type=int, default=1, help="how many parts are the test in turn [%(default)s]")
    add("--target", default="variant", help="column that is fitted: variant or label [%(default)s]")
    add_data_flags(parser, generate=False)
    add_detector_flags(parser)
    return parser.parse_args(argv)


def pair(text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``, where the value may hold more of the signs."""
    name, _, value = text.partition("=")
    return checked(text, name, value)


def pair_from_the_right(text: str) -> tuple[str, str]:
    """Split ``PATTERN=NAME``; engines have options with such signs, as in ``?steps=20``."""
    pattern, _, name = text.rpartition("=")
    return checked(text, pattern, name)


def checked(text: str, first: str, second: str) -> tuple[str, str]:
    """Refuse what has nothing before or after the sign."""
    if not first.strip() or not second.strip():
        raise argparse.ArgumentTypeError(f"{text!r} must have a text on both sides of an =.")
    return first, second


def prepare_all(
    args: argparse.Namespace, out: Path
) -> tuple[dict[str, "Prepared"], dict[str, "Prepared"]]:
    """Read and check every data set, each in a folder of its own."""
    from cnnsvm.evaluation.preparation import prepare

    options = {"codec": args.codec, "groups": args.groups, "skip_bad": args.skip_bad}
    options["random_state"] = args.seed
    own, externals = {}, {}
    for number, path in enumerate(args.data):
        own[path] = prepare(path, out / "data" / str(number), **options)
    for engine in () if args.data else SAMPLES_ENGINES:
        own[engine] = prepare(None, out / "data" / engine, generate=engine, **options)
    for number, (name, path) in enumerate(args.external):
        if name in externals:
            raise ValueError(f"--external {name} is given twice; every data set needs a name.")
        externals[name] = prepare(path, out / "external" / str(number), **options)
    return own, externals


def collect_warnings(prepared: dict[str, "Prepared"], manifest: Any, externals: Any) -> list[str]:
    """List what a reader must know, with the data set that it is about."""
    warnings = [f"{name}: {text}" for name, part in prepared.items() for text in part.warnings]
    for name, table in externals.items():
        shared = int(table["source_id"].isin(manifest["source_id"]).sum())
        if shared:
            warnings.append(
                f"{shared} image(s) of {name} look like sources of the data; those whose source is "
                "trained on were not judged."
            )
    return warnings


def describe(
    args: argparse.Namespace, name: str, detector: Any, prepared: Any, manifest: Any
) -> dict[str, Any]:
    """Collect what the report says of a run besides its numbers."""
    return {
        "title": f"Unseen engines: {name}",
        "command": command(),
        "data": ", ".join(args.data) or "embedded samples",
        "n_images": len(manifest),
        "n_sources": manifest["source_id"].nunique(),
        "split": f"{args.rounds} of {args.folds} folds as test part",
        "families": dict(args.family),
        "target": args.target,
        "skipped": [entry for part in prepared.values() for entry in part.skipped],
        "settings": {key: str(value) for key, value in detector.get_params().items()},
    }


def run(args: argparse.Namespace) -> int:
    """Prepare, fit and judge, report."""
    from cnnsvm.evaluation.preparation import leave_out_seen_by
    from cnnsvm.evaluation.protocol import describe_environment
    from transfer_study.joining import join_manifests
    from transfer_study.report import transfer_report
    from transfer_study.study import measure_transfer
    from transfer_study.summary import summarise_transfer

    started = time.perf_counter()
    detector = make_detector(args)
    environment = describe_environment(args.device)
    name, out = data_and_out(args, "leave-one-out")
    own, others = (
        {
            key: leave_out_seen_by(part, detector, name=key, n_jobs=args.jobs)
            for key, part in parts.items()
        }
        for parts in prepare_all(args, out)
    )
    manifest, externals = join_manifests(
        [part.manifest for part in own.values()], {k: p.manifest for k, p in others.items()}
    )
    judged = measure_transfer(
        detector,
        manifest,
        externals,
        families=dict(args.family),
        target=args.target,
        n_splits=args.folds,
        rounds=args.rounds,
        growth=args.growth,
        folder=out / "fits",
        random_state=args.seed,
    )
    summary = summarise_transfer(judged, N_RESAMPLES, args.seed)
    facts = describe(args, name, detector, own | others, manifest)
    facts["warnings"] = collect_warnings(own | others, manifest, externals)
    facts |= {"seconds": time.perf_counter() - started, "environment": environment}
    report = transfer_report(judged, summary, facts)
    publish(out, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
