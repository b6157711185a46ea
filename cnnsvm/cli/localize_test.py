"""Compare what a localiser marks with the masks of records that it was not trained on.

    cnnsvm localize-test records --model localizer --out results

Sources that it was trained on are found by their looks and left out. Nothing is kept but what
--out asks for: a second call judges all again.
"""

import argparse
import logging
from pathlib import Path

from cnnsvm.cli.flags import add_data_flags
from cnnsvm.cli.localize import add_prediction_flags, load_localizer
from cnnsvm.cli.localize_train import read_pictures

logger = logging.getLogger(__name__)

READINGS = {"both": ("mask", "whole"), "mask": ("mask",), "whole": ("whole",), "none": ()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm localize-test``."""
    parser.add_argument("data", help="manifest, records, images with --generate, or an archive")
    parser.add_argument("--out", type=Path, help="folder for localize-test.csv and .json")
    parser.add_argument("--work", type=Path, help="where files are made [MODEL.test]")
    parser.add_argument(
        "--regenerated",
        default="both",
        choices=READINGS,
        help="how regenerated pictures are read; none leaves them out [%(default)s]",
    )
    parser.add_argument(
        "--mask-policy", help="greys of a mask that count: any, half, full [the model's]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --generate and the intervals")
    add_data_flags(parser)
    add_prediction_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Judge every kind of picture apart, print a table, write what is asked for."""
    from cnnsvm.evaluation.localization_judging import judge_kinds
    from cnnsvm.io.files import write_text
    from cnnsvm.localization.masks import check_policy
    from cnnsvm.report.files import to_json
    from cnnsvm.report.localization_scores import false_alarm_sentence, kind_table
    from cnnsvm.report.text import format_table

    localizer = load_localizer(args)
    args.mask_policy = args.mask_policy or localizer.mask_policy
    check_policy(args.mask_policy)
    localizer.set_params(mask_policy=args.mask_policy)
    work = args.work or args.model.with_name(args.model.name + ".test")
    table, warnings = read_pictures(args, work, READINGS[args.regenerated], args.model)
    rows, summaries = judge_kinds(localizer, table, random_state=args.seed)
    print(format_table(*kind_table(summaries)))
    for text in (false_alarm_sentence(summaries.get("original")), *warnings):
        print(f"\n{text}" if text else "")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        facts = {"data": args.data, "model": args.model, "warnings": warnings}
        write_text(args.out / "localize-test.json", to_json({**facts, "kinds": summaries}))
        csv = rows.to_csv(index=False, lineterminator="\n")
        write_text(args.out / "localize-test.csv", csv)
        print(f"\nWritten to {args.out}")
    return 0
