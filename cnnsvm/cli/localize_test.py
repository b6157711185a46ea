"""Compare the masks of a localiser with those of records that it was not trained on.

    cnnsvm localize-test records --out results

Sources that it was trained on are found by perceptual hashes and left out. A second call judges
everything again.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnsvm.cli.flags import add_data_flags
from cnnsvm.cli.localize import add_prediction_flags, load_localizer
from cnnsvm.cli.localize_train import read_images

logger = logging.getLogger(__name__)

READINGS = {"both": ("mask", "whole"), "mask": ("mask",), "whole": ("whole",), "none": ()}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm localize-test``."""
    parser.add_argument("data", help="manifest, records, images with --generate, or an archive")
    parser.add_argument("--out", type=Path, help="folder for localize-test.html, .json and .csv")
    parser.add_argument("--work", type=Path, help="where files are made [MODEL.test]")
    parser.add_argument(
        "--regenerated",
        default="both",
        choices=READINGS,
        help="how regenerated images are read; none leaves them out [%(default)s]",
    )
    parser.add_argument(
        "--mask-policy", help="greys of a mask that count: any, half, full [the model's]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of --generate and the intervals")
    add_data_flags(parser)
    add_prediction_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Judge every kind of image apart, print the report, write what is asked for."""
    from cnnsvm.evaluation.localization_judging import judge_kinds
    from cnnsvm.localization.masks import check_policy
    from cnnsvm.report import render_text, write_report

    work = args.work or Path(f"{args.model or 'localizer'}.test")
    localizer = load_localizer(args)
    args.mask_policy = args.mask_policy or localizer.mask_policy
    check_policy(args.mask_policy)
    localizer.set_params(mask_policy=args.mask_policy)
    table, warnings = read_images(args, work, READINGS[args.regenerated], args.model)
    rows, summaries = judge_kinds(localizer, table, random_state=args.seed)
    facts = {"data": args.data, "model": args.model, "warnings": warnings}
    report = make_report(rows, summaries, facts)
    files = write_report(args.out, report) if args.out else {}
    print(render_text(report, files.values()), end="")
    return 0


def make_report(rows: Any, summaries: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    """Make the report, with ``localize-test.json`` and ``localize-test.csv``."""
    from cnnsvm.io.tables import to_csv
    from cnnsvm.report.model import Report, Section, Table
    from cnnsvm.report.render import to_json
    from cnnsvm.report.wording import LOCALIZATION_SCORES, false_alarm_sentence, localization_cells

    cells = [
        [kind, summary["n_images"], *localization_cells(summary)]
        for kind, summary in summaries.items()
        if summary["n_images"] > summary["n_untouched"]
    ]
    untouched = false_alarm_sentence(summaries.get("original"))
    return Report(
        facts,
        "Localisation",
        findings=[untouched] if untouched else [],
        sections=[
            Section("Scores", [Table(["images", "n", *LOCALIZATION_SCORES.values()], cells)])
        ],
        files={
            "localize-test.json": to_json({**facts, "kinds": summaries}),
            "localize-test.csv": to_csv(rows),
        },
        name="localize-test",
    )
