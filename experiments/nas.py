"""Whether other operations suit the cells of IID-Net better than the published ones.

    python experiments/nas.py --data records
    python experiments/nas.py --data records --size published --trials 200 --limit 100 --epochs 10

Candidates are trained for a few epochs on small patches of the spliced images. The best one and
the published one are then trained alike, several times, and judged on sources that the search never
saw. genotype.json is what `cnnsvm localize-train --genotype` takes. Run again with the same --out,
it resumes.
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli.flags import add_data_flags
from scripting import (
    add_data_and_out,
    add_machine_flags,
    command,
    data_and_out,
    make_parser,
    publish,
    run_script,
)

if TYPE_CHECKING:
    from cnnsvm import InpaintLocalizer

SAMPLES_ENGINE = "opencv-telea"
#: The proxy task: what a candidate is trained like.
PROXY: dict[str, Any] = {
    "augmentation": "geometric",
    "n_crops": 2,
    "balance": 1.0,
    "validation_fraction": 0.25,
}
N_REPEATS = 3  # trainings of each of the two that are compared

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add: Any = parser.add_argument
    add_data_and_out(parser, "nas")
    add("--trials", type=int, default=40, metavar="N", help="candidates [%(default)s]")
    add("--epochs", type=int, default=6, help="of a candidate [%(default)s]")
    add("--limit", type=int, metavar="N", help="take N sources only [all]")
    add("--size", default="small", help="of IID-Net: small, light or published [%(default)s]")
    add("--crop-size", type=int, default=64, help="pixels [%(default)s]")
    add("--crops-per-image", type=int, default=1, metavar="N", help="an epoch [%(default)s]")
    add("--batch-size", type=int, default=16, help="patches [%(default)s]")
    add("--learning-rate", type=float, default=3e-3, help="[%(default)s]")
    add_machine_flags(parser)
    add("--precision", default="auto", help="float32, bfloat16 or float16")
    add("--jobs", type=int, default=1, help="processes that decode images")
    add_data_flags(parser, generate=False)
    return parser.parse_args(argv)


def read(args: argparse.Namespace, out: Path) -> Any:
    """Return the spliced and untouched images."""
    from cnnsvm.evaluation.localization_records import with_truth, without_bad_pairs
    from cnnsvm.evaluation.preparation import prepare
    from localization_study.records import limit_sources

    prepared = prepare(
        args.data,
        out / "data",
        generate=None if args.data else SAMPLES_ENGINE,
        codec=args.codec,
        groups=args.groups,
        skip_bad=args.skip_bad,
        random_state=args.seed,
    )
    manifest = prepared.manifest
    if args.limit:
        manifest = limit_sources(manifest, args.limit, args.seed)
    table, warnings = with_truth(manifest, readings=())
    for text in (*prepared.warnings, *warnings):
        logger.warning("%s", text)
    return without_bad_pairs(table, skip_bad=args.skip_bad).manifest


def make_localizer(args: argparse.Namespace) -> "InpaintLocalizer":
    """Return what the candidates are, but for their cells."""
    from cnnsvm import InpaintLocalizer, LocalizerTraining

    return InpaintLocalizer(
        "iidnet",
        size=args.size,
        training=LocalizerTraining(
            epochs=args.epochs,
            crops_per_image=args.crops_per_image,
            learning_rate=args.learning_rate,
            **PROXY,
        ),
        crop_size=args.crop_size,
        batch_size=args.batch_size,
        device=args.device,
        precision=args.precision,
        n_jobs=args.jobs,
        random_state=args.seed,
    )


def compare(args: argparse.Namespace, proxy: Any, found: Any, out: Path) -> dict[str, list[Any]]:
    """Train the published and the found genotype alike; what is finished is read."""
    from architecture_search.search import train_candidate
    from cnnsvm.io.files import read_json, text_hash, write_json
    from cnnsvm.localization.architectures.iidnet import PUBLISHED

    scores: dict[str, list[Any]] = {"published": [], "found": []}
    for repeat in range(N_REPEATS):
        for name, genotype in (("published", PUBLISHED), ("found", found)):
            file = out / "compared" / f"{text_hash(repr(genotype))[:16]}-{args.seed + repeat}.json"
            if not read_json(file):
                write_json(file, train_candidate(genotype, proxy, args.seed + repeat))
            scores[name].append(read_json(file))
            logger.info("%s, repeat %d of %d: %s", name, repeat + 1, N_REPEATS, scores[name][-1])
    return scores


def run(args: argparse.Namespace) -> int:
    """Search, compare, write."""
    from architecture_search.report import describe_search, search_report
    from architecture_search.search import best_genotype, make_proxy, search_genotype
    from cnnsvm.evaluation.protocol import describe_environment
    from cnnsvm.io.files import write_json
    from cnnsvm.localization.architectures.iidnet import PUBLISHED

    _, out = data_and_out(args, "nas")
    environment = describe_environment(args.device)
    table = read(args, out)
    proxy = make_proxy(make_localizer(args), table)
    study = search_genotype(proxy, args.trials, out / "study.log")
    found = best_genotype(study)
    result = describe_search(study, proxy, compare(args, proxy, found, out))
    result |= {"genotype": found, "published": PUBLISHED, "environment": environment}
    result["command"] = command()
    write_json(out / "genotype.json", result)
    publish(out, search_report(result), [out / "genotype.json"])
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
