"""Fit a detector on all images of a data set and save it."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli.flags import add_data_flags, add_detector_flags, make_detector

if TYPE_CHECKING:
    from cnnsvm import InpaintDetector

logger = logging.getLogger(__name__)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm fit``."""
    parser.epilog = (
        "Exit status: 0 saved, 1 not saved because the detector does not beat chance on sources it "
        "was not fitted on, 2 nothing could be fitted."
    )
    what = "manifest, records, Real/Fake tree, images, or an archive [that of --like]"
    parser.add_argument("data", nargs="?", help=what)
    parser.add_argument("model", type=Path, help="folder that the detector is saved in")
    parser.add_argument("--work", type=Path, help="where files are made [MODEL.work]")
    parser.add_argument("--force", action="store_true", help="save it even if it is at chance")
    parser.add_argument(
        "--like",
        action=_Like,
        type=Path,
        metavar="RUN",
        help="the detector and data of this run directory of cv; flags that follow it change them",
    )
    add_data_flags(parser)
    add_detector_flags(parser)
    hosts = parser.add_argument_group("several hosts")
    what = "search hyperparameters in this database, together with `cnnsvm tune-worker`"
    hosts.add_argument("--storage", metavar="URL", help=what)
    hosts.add_argument("--study", default="TunedSVC", help="name of the search [%(default)s]")


def main(args: argparse.Namespace) -> int:
    """Prepare the data, fit, save. An interrupted call resumes. Torchrun's processes help."""
    from cnnsvm.features.launching import launched

    with launched(args.device, args.gpu_memory_fraction, args.batch_shares) as is_first:
        return _run(args) if is_first else 0


def _run(args: argparse.Namespace) -> int:
    from cnnsvm.evaluation.preparation import leave_out_seen_by, prepare
    from cnnsvm.io.bundle import check_target

    if args.data is None:
        raise ValueError("no data. Name them before the model: cnnsvm fit DATA MODEL.")
    detector = make_detector(args, shipped=True)
    check_target(args.model)
    work = args.work or args.model.with_name(args.model.name + ".work")
    names = ("generate", "codec", "groups", "skip_bad", "variants")
    options = {name: getattr(args, name) for name in names}
    prepared = prepare(args.data, work / "data", random_state=args.seed, **options)
    prepared = leave_out_seen_by(prepared, detector, n_jobs=args.jobs)
    for text in prepared.warnings:
        logger.warning("%s", text)
    skipped = prepared.skipped
    if skipped:
        logger.warning("%d image(s) left out, the first: %s", len(skipped), skipped[0])
    detector.set_params(cache_dir=work / "cache")
    if args.storage is not None:
        detector.set_params(classifier__storage=args.storage, classifier__study=args.study)
    detector.fit(prepared.manifest)
    if not _beats_chance(detector) and not args.force:
        print(f"Not saved in {args.model}. Give more sources or other data, or add --force.")
        return 1
    detector.save_pretrained(args.model)
    print(f"Saved in {args.model}. How good it is, `cnnsvm cv` tells on the same data.")
    return 0


def _beats_chance(detector: "InpaintDetector") -> bool:
    """Print the AUC of out-of-fold scores, and tell whether it is surely above one half."""
    from cnnsvm.evaluation.detectors import out_of_fold_auc

    held_out = detector.out_of_fold_
    if held_out is None:
        return True
    auc = out_of_fold_auc(detector)
    seen = "its hyperparameters were chosen on these scores"
    if not held_out.is_unseen:
        seen += ", and its network has learnt from these images"
    print(
        f"ROC AUC {auc['value']:.3f} (95 % {auc['low']:.3f} to {auc['high']:.3f}) on "
        f"{len(set(held_out.groups.tolist()))} sources that the classifier was not fitted on; "
        f"{seen}, so it is less on others."
    )
    return auc["low"] > 0.5


class _Like(argparse.Action):
    """Takes the flags of data and detector from the command of a finished run."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *values: Any
    ) -> None:
        from cnnsvm.cli.cv import parse_run

        try:
            found = parse_run(values[0])
        except ValueError as error:
            parser.error(str(error))
        for name, value in vars(found).items():
            if hasattr(namespace, name) and not (name == "data" and namespace.data):
                setattr(namespace, name, value)
