"""One run, one table, the same folds: the naive design, the seed project's, ours and its parts.

    python experiments/benchmark.py                                  the embedded samples
    python experiments/benchmark.py --data records.zip --codec png jpeg:75
    python experiments/benchmark.py --data records.zip --ablation    what each part brings
    python experiments/benchmark.py --data records.zip --only seed detector

Each design is fitted in each training fold and judged on the held-out sources; the differences
are tested by resampling sources. Run again with the same --out, it resumes, and a
design that both tables have is fitted once.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from cnnsvm.cli.flags import add_data_flags
from scripting import (
    add_data_and_out,
    add_machine_flags,
    command,
    data_and_out,
    make_parser,
    prepare_data,
    publish,
    run_script,
)

N_FOLDS = 5
N_RESAMPLES = 1000

#: What is no part of a design: the same search, inner folds and rule for the threshold for all.
SEARCH: dict[str, Any] = {"n_trials": 4, "cv": 3}
THRESHOLD = "balanced_accuracy"
CNN: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": None,
    "stem": "nopool",
    "truncate_at": "layer2",
    "preprocessing": "residual_bank",
}
CROPS: dict[str, Any] = {"crop_size": 96, "n_crops": 9, "pooling": "mean_std_top"}
TUNING: dict[str, Any] = {
    "augmentation": "robust",
    "pairs_per_source": 2,
    "epochs": 14,
    "patience": 14,
    "learning_rate": 2e-3,
}
N_VIEWS = 6
#: Layers on residual statistics learn at the rate that they have beside a network.
STATISTICS_RATE = {"learning_rate": 1e-3}

#: Name -> what it is.
DESIGNS = {
    "naive": "resized to 224 pixels, frozen backbone, RBF SVM",
    "seed": "resized to 256 pixels, small CNN trained in the fold, RBF SVM",
    "statistics": "residual statistics of crops, RBF SVM",
    "detector": "fine-tuned CNN and statistics of crops, RBF SVM",
}
#: The full detector comes last, and what each other one lacks is its name.
ABLATION = {
    "no-cnn": "statistics and what two layers learn from them, no CNN",
    "nothing-learnt": "statistics alone, as they are",
    "no-statistics": "CNN alone",
    "no-filter-bank": "one high-pass filter, not six",
    "no-residuals": "images rather than residuals",
    "native-stem": "first max pool kept",
    "whole-network": "all four stages of the network",
    "mean-pooling": "crops averaged, no deviation, no top quarter",
    "no-views": "SVM fitted on undegraded images only",
    "no-degradations": "turned and flipped images only",
    "detector": DESIGNS["detector"],
}
#: What an ablation changes in the network, its crops, its training.
CNN_CHANGES: dict[str, dict[str, Any]] = {
    "no-filter-bank": {"preprocessing": "residual"},
    "no-residuals": {"preprocessing": "imagenet"},
    "native-stem": {"stem": "native"},
    "whole-network": {"truncate_at": None},
}
VIEWS = {"no-views": None, "no-degradations": 1}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    # --codec takes several here
    parser = make_parser(__doc__, conflict_handler="resolve")
    add_data_and_out(parser, "benchmark")
    parser.add_argument("--folds", type=int, default=N_FOLDS, help="outer folds [%(default)s]")
    parser.add_argument("--ablation", action="store_true", help="compare the detector's parts")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the designs [all]")
    add_data_flags(parser)
    parser.add_argument(
        "--codec",
        nargs="+",
        help="rewrite all images, one table each: png, jpeg:75, webp:80, or keep",
    )
    naive = parser.add_argument_group("naive design")
    naive.add_argument("--weights-naive", metavar="FILE", help="of its backbone; or none, imagenet")
    naive.add_argument("--backbone-naive", metavar="NAME", help="such as squeezenet1_0")
    naive.add_argument("--preprocessing-naive", metavar="NAME", help="imagenet or caffe")
    add_machine_flags(parser)
    parser.add_argument("--precision", default="auto", help="float32, bfloat16 or float16")
    parser.add_argument("--jobs", type=int, default=1, help="processes that decode images")
    return parser.parse_args(argv)


def choose_designs(args: argparse.Namespace) -> dict[str, str]:
    """List the designs that are asked for, in the table's order."""
    table = ABLATION if args.ablation else DESIGNS
    unknown = [name for name in args.only or [] if name not in table]
    if unknown:
        raise ValueError(f"no design {unknown[0]!r}. There is: {', '.join(table)}.")
    return {name: entry for name, entry in table.items() if name in (args.only or table)}


def make_designs(args: argparse.Namespace) -> dict[str, Any]:
    """Turn the chosen designs into unfitted detectors."""
    from cnnsvm import InpaintDetector, TunedSVC

    return {
        name: InpaintDetector(
            make_embedders(name, args),
            TunedSVC(**SEARCH),
            n_views=None if name in ("naive", "seed") else VIEWS.get(name, N_VIEWS),
            threshold=THRESHOLD,
            random_state=args.seed,
        )
        for name in choose_designs(args)
    }


def make_embedders(name: str, args: argparse.Namespace) -> list[Any]:
    """Make the embedders of a design."""
    from baselines.designs import SeedEmbedder, SquareEmbedder
    from cnnsvm import CNNEmbedder, FineTuning, ResidualStatistics

    machine = {"device": args.device, "n_jobs": args.jobs}
    if name == "naive":
        given = {
            key: getattr(args, f"{key}_naive")
            for key in ("backbone", "weights", "preprocessing")
            if getattr(args, f"{key}_naive") is not None
        }
        given |= {"weights": None} if given.get("weights") == "none" else {}
        return [SquareEmbedder(**machine | {"precision": args.precision} | given)]
    if name == "seed":
        return [SeedEmbedder(**machine | {"precision": args.precision})]
    crops = CROPS | ({"pooling": "mean"} if name == "mean-pooling" else {})
    if name in ("statistics", "nothing-learnt"):  # nothing is trained that "top" could rank by
        return [ResidualStatistics(finetune="none", **crops | {"pooling": "mean_std"}, **machine)]
    tuning = TUNING | ({"augmentation": "geometric"} if name == "no-degradations" else {})
    layers = FineTuning(**tuning | STATISTICS_RATE)
    found: list[Any] = []
    if name != "no-cnn":
        network = CNN | CNN_CHANGES.get(name, {}) | {"precision": args.precision}
        found.append(CNNEmbedder(**network, finetune=FineTuning(**tuning), **crops, **machine))
    if name != "no-statistics":
        found.append(ResidualStatistics(finetune=layers, **crops, **machine))
    return found


def compare(
    args: argparse.Namespace, designs: dict[str, Any], out: Path
) -> tuple[dict[str, Any], list[Any]]:
    """Prepare the data and compare the designs, once for each codec."""
    from baselines.comparison import compare_designs

    found: dict[str, Any] = {}
    every = []
    for codec in args.codec or [None]:
        name = codec or "as given"
        prepared = prepare_data(args, out, codec)
        every.append(prepared)
        found[name] = compare_designs(
            designs,
            prepared.manifest,
            n_splits=args.folds,
            random_state=args.seed,
            folder=out / "folds" / name.replace(" ", "-").replace(":", "-").replace(",", "-"),
            reference="detector" if args.ablation and "detector" in designs else None,
            n_resamples=N_RESAMPLES,
        )
    return found, every


def run(args: argparse.Namespace) -> int:
    """Compare and report."""
    from baselines.report import comparison_report
    from cnnsvm.evaluation.protocol import describe_environment

    started = time.perf_counter()
    designs = make_designs(args)
    environment = describe_environment(args.device)
    name, out = data_and_out(args, "benchmark")
    found, every = compare(args, designs, out)
    facts = {
        "title": f"{'Ablation' if args.ablation else 'Benchmark'}: {name}",
        "command": command(),
        "data": args.data or "embedded samples",
        "n_images": len(every[0].manifest),
        "n_sources": every[0].manifest["source_id"].nunique(),
        "n_folds": args.folds,
        "designs": choose_designs(args),
        "settings": {name: " ".join(repr(design).split()) for name, design in designs.items()},
        "skipped": every[0].skipped,
        "warnings": list(dict.fromkeys(text for one in every for text in one.warnings)),
        "environment": environment,
        "seconds": time.perf_counter() - started,
    }
    report = comparison_report(found, facts, "ablation" if args.ablation else "benchmark")
    publish(out, report)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
