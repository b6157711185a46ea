"""Fit a detector on all images of a data set and save it."""

import argparse
import logging
from pathlib import Path

from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector

logger = logging.getLogger(__name__)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm fit``."""
    parser.add_argument("data", help="manifest, records, Real/Fake tree, images, or an archive")
    parser.add_argument("model", type=Path, help="folder that the detector is saved in")
    parser.add_argument("--work", type=Path, help="where files are made [MODEL.work]")
    add_data_flags(parser)
    add_detector_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Prepare the data, fit, save. An interrupted call resumes."""
    from cnnsvm.evaluation.preparation import prepare
    from cnnsvm.io.bundle import check_target

    detector = make_detector(args)
    check_target(args.model)
    work = args.work or args.model.with_name(args.model.name + ".work")
    names = ("generate", "codec", "groups", "skip_bad", "variants")
    options = {name: getattr(args, name) for name in names}
    prepared = prepare(args.data, work / "data", random_state=args.seed, **options)
    for text in prepared.warnings:
        logger.warning("%s", text)
    skipped = prepared.skipped
    if skipped:
        logger.warning("%d image(s) left out, the first: %s", len(skipped), skipped[0])
    detector.set_params(cache_dir=work / "cache")
    detector.fit(prepared.manifest)
    detector.save_pretrained(args.model)
    print(f"Saved in {args.model}. How good it is, experiments/cv.py tells on the same data.")
    return 0
