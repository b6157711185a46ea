"""How well FCN, NIX-Net and IID-Net find what was repainted, and on what they fail.

    python experiments/localize.py                      the embedded samples, two engines
    python experiments/localize.py --data vae opencv repaint
    python experiments/localize.py --data vae --tables matrix jpeg --augmentation robust --out jpeg
    python experiments/localize.py --data vae --architectures nixnet:2m --crop-size 128 --limit 60
    python experiments/localize.py --data vae opencv --train-on "opencv-telea spliced"
    torchrun --nproc-per-node=8 experiments/localize.py --data vae --distributed

Each architecture is trained on each kind of image (engine and variant) and judged on all, on
sources that no training saw. Masks of blurred edges (cnnsvm build --edge blur:R) are what the table
of mask policies is about. Run again with the same --out, it resumes.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cnnsvm.cli.flags import add_data_flags
from cnnsvm.cli.localize_train import add_localizer_flags, make_localizer
from scripting import command, data_and_out, make_parser, publish, run_script

SAMPLES_ENGINES = ("opencv-telea", "opencv-ns")
ARCHITECTURES = ("fcn_resnet50", "nixnet", "iidnet")
SIZES = tuple(f"nixnet:{size}" for size in ("2m", "28m", "40m", "60m", "85m", "140m"))
TABLES = ("matrix", "cross", "masks", "sizes", "jpeg", "cost")
N_FOLDS = 5
N_RESAMPLES = 1000
N_STEPS = 5  # of a network that is timed


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add: Any = parser.add_argument
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    add("--data", nargs="+", default=[], metavar="PATH", help="manifests, records or archives")
    add("--out", type=Path, help="folder of the results [runs/NAME OF THE DATA/localize]")
    add("--tables", **several, default=TABLES, help=f"of {', '.join(TABLES)} [all]")
    add(
        "--architectures",
        **several,
        default=ARCHITECTURES,
        help=f"with a size if wanted, as in nixnet:2m [{' '.join(ARCHITECTURES)}]",
    )
    add("--sizes", **several, default=SIZES, help=f"of the table of sizes [{' '.join(SIZES)}]")
    add("--main", metavar="KIND", help="images of the tables about one kind [the first spliced]")
    add(
        "--train-on",
        nargs="+",
        default=[],
        metavar="KIND",
        help="images that the tables matrix and cross train on [every kind there is]",
    )
    add(
        "--rename",
        nargs="+",
        default=[],
        metavar="PATTERN=NAME",
        help="what tables call an engine, as in 'file:inpainting_*.webp=RePaint'",
    )
    add("--limit", type=int, metavar="N", help="take N sources only [all]")
    add("--folds", type=int, default=N_FOLDS, help="parts of the sources [%(default)s]")
    add_data_flags(parser, generate=False)
    add_localizer_flags(parser, choice=False)
    return parser.parse_args(argv)


def make_designs(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Make an unfitted localiser of each name; flags that are not for it are left out."""
    designs = {}
    for name in dict.fromkeys(names):
        architecture, _, size = name.partition(":")
        own: dict[str, Any] = {"architecture": architecture, "size": size or None}
        if architecture != "fcn_resnet50":
            own |= {"weights": "none", "preprocessing": None}
        if architecture != "iidnet":
            own["genotype"] = None
        designs[name] = make_localizer(argparse.Namespace(**(vars(args) | own)))
    return designs


def read(args: argparse.Namespace, out: Path) -> Any:
    """Read every data set, join them, and list the images with their truth."""
    from cnnsvm.evaluation.localization_records import with_truth, without_bad_pairs
    from cnnsvm.evaluation.preparation import prepare
    from localization_study.records import limit_sources, rename_engines
    from transfer_study.joining import join_manifests

    options = {"codec": args.codec, "groups": args.groups, "skip_bad": args.skip_bad}
    options["random_state"] = args.seed
    parts = [
        prepare(path, out / "data" / str(number), **options)
        for number, path in enumerate(args.data)
    ]
    for engine in () if args.data else SAMPLES_ENGINES:
        parts.append(prepare(None, out / "data" / engine, generate=engine, **options))
    manifest, _ = join_manifests([part.manifest for part in parts])
    if args.limit:
        manifest = limit_sources(manifest, args.limit, args.seed)
    table, warnings = with_truth(rename_engines(manifest, args.rename))
    checked = without_bad_pairs(table, args.mask_policy, skip_bad=args.skip_bad)
    checked.warnings = list(dict.fromkeys([w for p in parts for w in p.warnings] + warnings))
    checked.skipped = [entry for part in (*parts, checked) for entry in part.skipped]
    return checked


def measure(args: argparse.Namespace, designs: dict[str, Any], table: Any, out: Path) -> Any:
    """Plan, train and judge, and time the networks that a table of costs names."""
    from cnnsvm.evaluation.localization_records import kinds_of
    from localization_study.cost import stored_cost
    from localization_study.plan import Wanted, plan_study
    from localization_study.records import has_greys
    from localization_study.study import measure_localization

    kinds = tuple(kinds_of(table))
    wanted = Wanted(
        tables=tuple(args.tables),
        kinds=kinds,
        main=args.main or kinds[0],
        designs=tuple(args.architectures),
        sizes=tuple(args.sizes),
        policy=args.mask_policy,
        trained_on=tuple(args.train_on),
        has_greys="masks" in args.tables and has_greys(table),
    )
    options = {"n_splits": args.folds, "n_resamples": N_RESAMPLES, "random_state": args.seed}
    found = measure_localization(designs, table, plan_study(wanted), out / "fits", **options)
    timed = [*args.sizes, *(args.architectures if "cost" in args.tables else ())]
    if found is None:
        return wanted, None, {}
    return (
        wanted,
        found,
        {name: stored_cost(designs[name], out / "costs", N_STEPS) for name in timed},
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, train and judge, report; processes that only help to train report nothing."""
    from cnnsvm.evaluation.protocol import describe_environment
    from cnnsvm.features.devices import first_alone
    from localization_study.report import localization_report

    started = time.perf_counter()
    args.sizes = args.sizes if "sizes" in args.tables else ()
    designs = make_designs(args, [*args.architectures, *args.sizes])
    name, out = data_and_out(args, "localize")
    with first_alone(next(iter(designs.values()))) as is_first:
        prepared = read(args, out)
    if not is_first:
        logging.getLogger("cnnsvm").setLevel(logging.ERROR)  # the first one says it for all
    table = prepared.manifest
    wanted, study, costs = measure(args, designs, table, out)
    if study is None:
        return 0
    first = designs[args.architectures[0]]
    facts = asdict(wanted) | {
        "title": f"Localisation: {name}",
        "command": command(),
        "data": ", ".join(args.data) or "embedded samples",
        "n_images": table["path"].nunique(),
        "n_sources": table["source_id"].nunique(),
        "split": f"1 of {args.folds} parts of the sources held out",
        "settings": {key: str(value) for key, value in first.get_params().items()},
        "environment": describe_environment(args.device),
        "warnings": prepared.warnings,
        "skipped": prepared.skipped,
        "seconds": time.perf_counter() - started,
    }
    publish(out, localization_report(study, costs, facts))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    # on a terminal a bar shows the epochs
    return run_script(__file__, run, parse_arguments(argv), epochs=not sys.stderr.isatty())


if __name__ == "__main__":
    raise SystemExit(main())
