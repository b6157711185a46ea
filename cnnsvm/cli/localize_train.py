"""Train a localiser on records and save it.

    cnnsvm localize-train records --model localizer --architecture iidnet
    torchrun --nproc-per-node=2 -m cnnsvm localize-train records --model localizer --distributed

A subcommand of its own, as ``cnnsvm localize train`` could not be told from a folder of that name.
Interrupted or killed and called again, it goes on after its last epoch.
"""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from cnnsvm.cli.flags import add_data_flags
from cnnsvm.cli.localizer_flags import add_localizer_flags, make_localizer

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

READINGS = {"mask": ("mask",), "whole": ("whole",), "none": ()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm localize-train``."""
    parser.add_argument("data", help="manifest, records, images with --generate, or an archive")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="where the localiser is saved"
    )
    parser.add_argument("--work", type=Path, help="where files are made [MODEL.work]")
    parser.add_argument(
        "--regenerated",
        default="mask",
        choices=READINGS,
        help="what of regenerated pictures counts as repainted; none leaves them out [%(default)s]",
    )
    add_data_flags(parser)
    add_localizer_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Prepare the data, train, save."""
    from cnnsvm.data.near_duplicates import pick_paths
    from cnnsvm.detection.training_overlap import hash_images
    from cnnsvm.evaluation.localization_records import masks_of
    from cnnsvm.features.processes import first_alone
    from cnnsvm.io.bundle import check_target

    localizer = make_localizer(args)
    check_target(args.model)
    work = args.work or args.model.with_name(args.model.name + ".work")
    with first_alone(localizer) as is_first:
        table, warnings = read_pictures(args, work / "data", READINGS[args.regenerated])
    if not is_first:
        logging.getLogger("cnnsvm").setLevel(logging.ERROR)  # the first one says it for all
    for text in warnings:
        logger.warning("%s", text)
    localizer.set_params(cache_dir=work / "cache")
    groups = table["source_id"].to_numpy()
    localizer.fit(table["path"].tolist(), masks_of(table), groups=groups)
    if is_first:
        localizer.trained_on_ = hash_images(pick_paths(table))  # of one image a source
    localizer.save(args.model)
    if is_first:
        n_fakes = int((table["variant"] != "original").sum())
        print(
            f"Trained on {n_fakes} repainted and {len(table) - n_fakes} untouched pictures, saved "
            f"in {args.model}. How good it is, localize-test tells on other sources."
        )
    return 0


def read_pictures(
    args: argparse.Namespace, work: Path, readings: tuple[str, ...], trained: Path | None = None
) -> tuple["pd.DataFrame", list[str]]:
    """Prepare the data and list pictures with their truth, and what a reader must know.

    Sources that ``trained``, the folder of a localiser, has learnt from are left out.
    """
    from cnnsvm.evaluation.localization_records import with_truth, without_bad_pairs
    from cnnsvm.evaluation.preparation import leave_out_seen, prepare

    prepared = prepare(
        args.data,
        work,
        generate=args.generate,
        codec=args.codec,
        groups=args.groups,
        skip_bad=args.skip_bad,
        variants=args.variants,
        random_state=args.seed,
    )
    prepared = leave_out_seen(prepared, trained)
    table, warnings = with_truth(prepared.manifest, readings)
    checked = without_bad_pairs(table, args.mask_policy, skip_bad=args.skip_bad)
    skipped = [*prepared.skipped, *checked.skipped]
    if skipped:
        warnings.append(f"{len(skipped)} image(s) left out, the first: {skipped[0]}")
    return checked.manifest, [*prepared.warnings, *warnings]
