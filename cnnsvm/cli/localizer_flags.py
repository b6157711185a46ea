"""Flags that become parameters of `InpaintLocalizer`, shared by every command that fits one."""

import argparse
import json
from pathlib import Path
from typing import Any

from cnnsvm.cli.flags import number_or_name

#: Parameter -> flag, where they do not have one name.
_FLAG_OF = {"n_crops": "crops", "n_jobs": "jobs", "random_state": "seed"}


def add_localizer_flags(parser: argparse.ArgumentParser, *, choice: bool = True) -> None:
    """Add what a localiser is made of, with or without the choice of architecture and size.

    The defaults are those of the estimator.
    """
    _add_network_flags(parser, choice)
    _add_training_flags(parser)
    _add_patch_flags(parser)
    _add_prediction_flags(parser)
    add_machine_flags(parser, training=True)


def add_machine_flags(parser: argparse.ArgumentParser, *, training: bool) -> None:
    """Add where a localiser runs; what only a training asks for can be left out."""
    add = parser.add_argument_group("machine").add_argument
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--precision", default="auto", help="float32, bfloat16 or float16")
    add("--gpu-memory-fraction", type=float, metavar="SHARE")
    if training:
        add("--seed", type=int, default=0)
        add("--jobs", type=int, default=0, help="processes that decode images")
        add(
            "--distributed",
            action="store_true",
            help="this is one of the processes that torchrun started; they train together",
        )


def make_localizer(args: argparse.Namespace) -> Any:
    """Turn the flags into an unfitted, checked `InpaintLocalizer`.

    Raises
    ------
    ValueError
        If a parameter, the network or its first weights cannot be.
    """
    from cnnsvm import InpaintLocalizer
    from cnnsvm.localization.bundle import build_network
    from cnnsvm.localization.checks import check_localizer_params

    names = [name for name in InpaintLocalizer().get_params() if name != "cache_dir"]
    params = {name: getattr(args, _FLAG_OF.get(name, name)) for name in names}
    params["weights"] = None if args.weights == "none" else args.weights
    params["threshold"] = number_or_name(args.threshold)
    params["genotype"] = read_genotype(args.genotype) if args.genotype else None
    localizer = InpaintLocalizer(**params)
    check_localizer_params(localizer.get_params())
    build_network(localizer.get_params(), seed=0)  # what cannot be built is told before data
    return localizer


def read_genotype(file: Path) -> Any:
    """Read a genotype from JSON, such as ``experiments/nas.py`` writes it.

    Raises
    ------
    ValueError
        If the file is no JSON.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"--genotype {file}: not JSON ({error}). Give a file that experiments/nas.py wrote, "
            "or a list of 10 lists of 3 operations."
        ) from error
    return found["genotype"] if isinstance(found, dict) and "genotype" in found else found


def _add_network_flags(parser: argparse.ArgumentParser, choice: bool) -> None:
    add = parser.add_argument_group("network").add_argument
    if choice:
        names = "fcn_resnet50, nixnet or iidnet [%(default)s]"
        add("--architecture", default="fcn_resnet50", help=names)
        sizes = "of nixnet: 2m, 28m, 40m, 60m, 85m, 140m; of iidnet: small, light, published"
        add("--size", help=sizes)
    add("--genotype", type=Path, metavar="FILE", help="JSON with the cells of iidnet [published]")
    add("--weights", default="none", help="of fcn_resnet50: none, imagenet or a file [%(default)s]")
    add("--preprocessing", help="of fcn_resnet50: residual_bank, residual, imagenet [the first]")


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--loss", default="focal", help="focal, bce or dice [%(default)s]")
    add("--optimizer", default="adamw", help="adamw or adam [%(default)s]")
    add("--learning-rate", type=float, default=1e-3, help="[%(default)s]")
    add("--weight-decay", type=float, default=0.01, help="[%(default)s]")
    add("--epochs", type=int, default=20, help="at most [%(default)s]")
    add("--patience", type=int, default=5, help="epochs without a better IoU [%(default)s]")
    add("--max-restarts", type=int, default=2, help="after a collapse [%(default)s]")
    add(
        "--validation-fraction",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the sources, to stop by [%(default)s]",
    )
    add("--batch-size", type=int, default=8, help="patches, of all processes [%(default)s]")


def _add_patch_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("patches and masks").add_argument
    add("--mask-policy", default="half", help="greys that count: any, half, full [%(default)s]")
    add(
        "--augmentation", default="full", help="none, geometric, full, jpeg or robust [%(default)s]"
    )
    add(
        "--warmup",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the epochs, over which blur, noise and codecs come in [%(default)s]",
    )
    add("--crop-size", type=int, default=256, help="pixels [%(default)s]")
    add("--crops-per-image", type=int, default=1, metavar="N", help="an epoch [%(default)s]")
    add("--crops", type=int, default=4, metavar="N", help="of a validation image [%(default)s]")
    add(
        "--balance",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the patches with both kinds of pixels [%(default)s]",
    )


def _add_prediction_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("prediction").add_argument
    add("--tile-size", type=int, default=512, help="pixels seen at once [%(default)s]")
    add("--tile-overlap", type=int, default=64, help="pixels [%(default)s]")
    add("--threshold", default="0.5", help="a probability, or iou: the best one [%(default)s]")
