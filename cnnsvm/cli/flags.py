"""Flags that become parameters of `InpaintDetector`, shared by every command that fits one."""

import argparse
from typing import Any

#: What the flags say how a network is made, and how it sees images, where none is given.
_MAKE: dict[str, Any] = {
    "backbone": "resnet18",
    "weights": "none",
    "stem": "native",
    "truncate_at": None,
    "preprocessing": "auto",
    "finetune": "full",
    "pairs_per_source": None,
    "epochs": 8,
    "learning_rate": None,
    "statistics": False,
}
_SEE: dict[str, Any] = {"crop_size": 96, "crops": 6, "mirror": False, "pooling": "mean_std"}
#: What makes another network of saved weights, rather than training them on.
_SHAPE = ("backbone", "stem", "truncate_at", "preprocessing", "statistics")


def add_data_flags(parser: argparse.ArgumentParser, *, generate: bool = True) -> None:
    """Add what `cnnsvm.evaluation.preparation.prepare` takes, with or without making fakes."""
    data = parser.add_argument_group("data")
    if generate:
        data.add_argument(
            "--generate", metavar="ENGINE", help="make five inpaintings of each source"
        )
        data.add_argument(
            "--variants",
            default="spliced",
            choices=("spliced", "regenerated", "both"),
            help="what --generate makes [%(default)s]",
        )
    data.add_argument("--codec", help="rewrite all images: png, jpeg:75, webp:80, or keep")
    data.add_argument("--groups", help="what names the source: a pattern or a CSV table")
    data.add_argument("--skip-bad", action="store_true", help="leave bad images out and list them")


def add_detector_flags(parser: argparse.ArgumentParser) -> None:
    """Add what a detector is made of; the defaults fit two cores and no download."""
    _add_network_flags(parser)
    _add_svm_flags(parser)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--seed", type=int, default=0)
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    machine.add_argument("--precision", default="auto", help="float32, bfloat16 or float16")
    machine.add_argument("--gpu-memory-fraction", type=float)
    machine.add_argument("--jobs", type=int, default=0, help="processes that decode images")


def _add_network_flags(parser: argparse.ArgumentParser) -> None:
    network = parser.add_argument_group("network")

    def add(flag: str, help: str, **options: Any) -> None:
        name = flag[2:].replace("-", "_")
        usual = (_MAKE | _SEE)[name]
        shown = f"{help} [{usual}]" if usual not in (None, False) else help
        network.add_argument(flag, default=None, help=shown, **options)  # filled in later

    add("--backbone", "a torchvision name or statistics")
    add("--weights", "none, imagenet, cnnsvm or cifake (that ship), a file or a saved detector")
    add("--stem", "native, nopool or nodown: less shrinking; small: for pictures of 32 pixels")
    add("--truncate-at", "last stage that is kept, such as layer2 [all]", metavar="STAGE")
    add(
        "--preprocessing",
        "imagenet, caffe, residual, residual_bank or auto: residual without weights",
    )
    add("--finetune", "none, head or full")
    network.add_argument(
        "--augmentation",
        default="geometric",
        help="none, geometric, small, full, jpeg or robust [%(default)s]",
    )
    add("--pairs-per-source", "crops of each class in an epoch [all]", type=int, metavar="N")
    add("--epochs", "at most", type=int)
    add("--learning-rate", "[1e-4 for a whole pretrained network, else 1e-3]", type=float)
    add("--crop-size", "pixels", type=int)
    add("--crops", "crops an image", type=int)
    add("--mirror", "the mirror image of each crop too", action="store_true")
    add("--pooling", "how crops become one: mean, mean_max, mean_std, mean_top, mean_std_top")
    add("--statistics", "residual statistics behind the embedding", action="store_true")
    network.add_argument(
        "--ensemble",
        nargs="+",
        default=(),
        metavar="DETECTOR",
        help="saved detectors, or names of those that ship, whose networks embed too, frozen",
    )
    network.add_argument(
        "--fusion",
        default="embeddings",
        help="what of the networks the SVM gets: embeddings or scores [%(default)s]",
    )
    network.add_argument("--batch-size", type=int, default=16)


def _add_svm_flags(parser: argparse.ArgumentParser) -> None:
    svm = parser.add_argument_group("svm")
    add = svm.add_argument
    add("--views", type=int, metavar="N", help="N degraded views of each class and source")
    add("--kernel", default="rbf", help="linear, rbf, poly, or several: rbf,linear")
    add("--soft-vote", action="store_true", help="average the best of each kernel")
    add("--trials", type=int, default=20, help="Optuna trials a kernel [%(default)s]")
    add("--inner-folds", type=int, default=3)
    add("--nystroem", type=int, metavar="N", help="N landmarks for all rows of the SVM [exact]")
    add("--threshold", default="balanced_accuracy", help="this, or a probability")
    add("--max-error", type=float, metavar="SHARE", help="of verdicts that may be wrong [any]")


def make_detector(args: argparse.Namespace, *, shipped: bool = False) -> Any:
    """Turn the flags into an unfitted, checked `InpaintDetector`.

    Parameters
    ----------
    args : Namespace
        Of a parser with `add_detector_flags`.
    shipped : bool
        Whether the network that ships, if one does, embeds as it is where no flag says how to
        make another. It is also what ``--weights cnnsvm`` asks for.
    """
    from cnnsvm import InpaintDetector
    from cnnsvm.detection.checks import check_detector_params

    _fill_in(args, shipped)
    kernels = tuple(args.kernel.split(","))
    detector = InpaintDetector(
        args.backbone,
        weights=None if args.weights == "none" else args.weights,
        stem=args.stem,
        truncate_at=args.truncate_at,
        preprocessing=args.preprocessing,
        finetune=args.finetune,
        augmentation=args.augmentation,
        pairs_per_source=args.pairs_per_source,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        crop_size=args.crop_size,
        n_crops=args.crops,
        mirror=args.mirror,
        pooling=args.pooling,
        statistics=args.statistics,
        ensemble=tuple(args.ensemble),
        fusion=args.fusion,
        n_views=args.views,
        batch_size=args.batch_size,
        kernel=kernels if len(kernels) > 1 else kernels[0],
        voting="soft" if args.soft_vote else None,
        n_trials=args.trials,
        threshold=number_or_name(args.threshold),
        max_error=args.max_error,
        cv=args.inner_folds,
        nystroem=args.nystroem,
        device=args.device,
        precision=args.precision,
        gpu_memory_fraction=args.gpu_memory_fraction,
        n_jobs=args.jobs,
        random_state=args.seed,
    )
    check_detector_params(detector.get_params())
    return detector


def _fill_in(args: argparse.Namespace, shipped: bool) -> None:
    """Give the flags of the network that were left out their values."""
    from cnnsvm.detection.saved_networks import SHIPPED, USUAL
    from cnnsvm.io.bundle import holds_model, read_config

    usual = _MAKE | _SEE
    given = [name for name in _MAKE if getattr(args, name) is not None]
    asked = args.weights in SHIPPED and not any(name in given for name in _SHAPE)
    chosen = args.weights if asked else USUAL
    if holds_model(SHIPPED[chosen]) and (asked or (shipped and not given)):
        params = read_config(SHIPPED[chosen])["params"]
        usual |= {name: params[name] for name in (*_SHAPE, "crop_size", "pooling")}
        usual |= {"crops": params["n_crops"], "mirror": params.get("mirror", False)}
        usual["weights"] = chosen
        if not given or given == ["weights"]:
            usual["finetune"] = "none"
    for name, value in usual.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def number_or_name(text: str) -> float | str:
    """Read a threshold, which is a number or the name of a rule."""
    try:
        return float(text)
    except ValueError:
        return text
