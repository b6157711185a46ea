"""Train a localiser on records and save it.

    cnnsvm localize-train records --model localizer --architecture iidnet
    torchrun --nproc-per-node=2 -m cnnsvm localize-train records --model localizer --distributed

A subcommand of its own, as ``cnnsvm localize train`` could not be told from a folder of that name.
Interrupted or killed and called again, it resumes after its last epoch.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli.flags import add_data_flags, number_or_name

if TYPE_CHECKING:
    import pandas as pd

    from cnnsvm import InpaintLocalizer

logger = logging.getLogger(__name__)

READINGS = {"mask": ("mask",), "whole": ("whole",), "none": ()}
#: Parameter -> flag, where they do not have one name.
_FLAG_OF = {"n_crops": "crops", "n_jobs": "jobs", "random_state": "seed"}
#: Parameters of `LocalizerTraining`: default and what --help says.
_TRAINING: dict[str, tuple[Any, str]] = {
    "loss": ("focal", "focal, bce or dice"),
    "optimizer": ("adamw", "adamw or adam"),
    "learning_rate": (1e-3, ""),
    "weight_decay": (0.01, ""),
    "epochs": (20, "at most"),
    "patience": (5, "epochs without a better IoU"),
    "max_restarts": (2, "after a collapse"),
    "validation_fraction": (0.2, "of the sources, for early stopping"),
    "augmentation": ("full", "none, geometric, full, jpeg or robust"),
    "warmup": (0.5, "share of the epochs over which blur, noise and codecs come in"),
    "crops_per_image": (1, "an epoch"),
    "n_crops": (4, "of a validation image"),
    "balance": (0.5, "share of the patches with both kinds of pixels"),
}
#: The same of `InpaintLocalizer`.
_LOCALIZER: dict[str, tuple[Any, str]] = {
    "mask_policy": ("half", "greys of a mask that count: any, half, full"),
    "crop_size": (256, "pixels of a patch"),
    "batch_size": (8, "patches, of all processes"),
    "tile_size": (512, "pixels that go through the network at once in prediction"),
    "tile_overlap": (64, "pixels"),
    "threshold": ("0.5", "a probability, or iou: the best one"),
}


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
        help="what of regenerated images counts as repainted; none leaves them out [%(default)s]",
    )
    add_data_flags(parser)
    add_localizer_flags(parser)


def add_localizer_flags(parser: argparse.ArgumentParser, *, choice: bool = True) -> None:
    """Add the parameters of a localiser, with or without the choice of architecture and size."""
    add: Any = parser.add_argument_group("network").add_argument
    if choice:
        names = "fcn_resnet50, nixnet or iidnet [%(default)s]"
        add("--architecture", default="fcn_resnet50", help=names)
        sizes = "of nixnet: 2m, 28m, 40m, 60m, 85m, 140m; of iidnet: small, light, published"
        add("--size", help=sizes)
    add("--genotype", type=Path, metavar="FILE", help="JSON with the cells of iidnet [published]")
    add("--weights", default="none", help="of fcn_resnet50: none, imagenet or a file [%(default)s]")
    add("--preprocessing", help="of fcn_resnet50: residual_bank, residual, imagenet [the first]")
    for title, table in (("training", _TRAINING), ("patches and prediction", _LOCALIZER)):
        add = parser.add_argument_group(title).add_argument
        for name, (default, text) in table.items():
            flag = f"--{_FLAG_OF.get(name, name).replace('_', '-')}"
            add(flag, type=type(default), default=default, help=f"{text} [%(default)s]".strip())
    add_machine_flags(parser)
    add = parser.add_argument
    add("--jobs", type=int, default=1, help="processes that decode images [%(default)s]")
    add("--distributed", action="store_true", help="this is one of torchrun's processes")
    add("--seed", type=int, default=0)


def add_machine_flags(parser: argparse.ArgumentParser) -> None:
    """Add where a localiser runs."""
    add = parser.add_argument_group("machine").add_argument
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--precision", default="auto", help="float32, bfloat16 or float16")
    add("--gpu-memory-fraction", type=float, metavar="SHARE")


def make_localizer(args: argparse.Namespace) -> "InpaintLocalizer":
    """Turn the flags into an unfitted, checked `InpaintLocalizer`.

    A ValueError is raised if a parameter, the network or its first weights cannot be.
    """
    from cnnsvm import InpaintLocalizer, LocalizerTraining

    def flags(names: Any) -> dict[str, Any]:
        return {name: getattr(args, _FLAG_OF.get(name, name)) for name in names}

    own = set(InpaintLocalizer().get_params(deep=False)) - {"training", "cache_dir", "max_pixels"}
    params = flags(own) | {"training": LocalizerTraining(**flags(_TRAINING))}
    params["weights"] = None if args.weights == "none" else args.weights
    params["threshold"] = number_or_name(args.threshold)
    params["genotype"] = read_genotype(args.genotype) if args.genotype else None
    localizer = InpaintLocalizer(**params)
    localizer.check_params()
    localizer.build_network()  # an error here comes before the data are read
    return localizer


def read_genotype(file: Path) -> Any:
    """Read a genotype from JSON, such as ``experiments/nas.py`` writes it.

    A ValueError is raised if the file is no JSON.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"--genotype {file}: not JSON ({error}). Give a file that experiments/nas.py wrote, "
            "or a list of 10 lists of 3 operations."
        ) from error
    return found["genotype"] if isinstance(found, dict) and "genotype" in found else found


def main(args: argparse.Namespace) -> int:
    """Prepare the data, train, save."""
    from cnnsvm.evaluation.localization_records import masks_of
    from cnnsvm.features.devices import first_alone
    from cnnsvm.io.bundle import check_target

    localizer = make_localizer(args)
    check_target(args.model)
    work = args.work or args.model.with_name(args.model.name + ".work")
    with first_alone(localizer) as is_first:
        table, warnings = read_images(args, work / "data", READINGS[args.regenerated])
    if not is_first:  # the first one logs for all
        logging.getLogger("cnnsvm").setLevel(logging.ERROR)
    for text in warnings:
        logger.warning("%s", text)
    localizer.set_params(cache_dir=work / "cache")
    groups = table["source_id"].to_numpy()
    localizer.fit(table["path"].tolist(), masks_of(table), groups=groups)
    localizer.save_pretrained(args.model)
    if is_first:
        n_fakes = int((table["variant"] != "original").sum())
        print(
            f"Trained on {n_fakes} repainted and {len(table) - n_fakes} untouched images, saved in "
            f"{args.model}. cnnsvm localize-test measures it on other sources."
        )
    return 0


def read_images(
    args: argparse.Namespace, work: Path, readings: tuple[str, ...], trained: Path | None = None
) -> tuple["pd.DataFrame", list[str]]:
    """Prepare the data and list images with their truth, and warnings.

    Sources that ``trained``, the folder of a localiser, was trained on are left out.
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
