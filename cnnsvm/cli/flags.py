"""Flags that become parameters of `InpaintDetector`, shared by every command that fits one."""

import argparse
from collections.abc import Sequence
from typing import Any

#: Flags that say how a network is made, and how a network sees images.
_MAKE_A_NETWORK = (
    *("backbone", "weights", "stem", "truncate_at", "preprocessing", "finetune", "epochs"),
    *("pairs_per_source", "learning_rate", "statistics"),
)
_SEE = ("crop_size", "crops", "pooling")
_NOT_GIVEN = object()


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
    add = network.add_argument
    add("--backbone", default="resnet18", help="a torchvision name or statistics [%(default)s]")
    add(
        "--weights",
        default="none",
        help="none, imagenet, cnnsvm, a file, a model [%(default)s]",
    )
    add("--stem", default="native", help="native, nopool or nodown: less shrinking [%(default)s]")
    add("--truncate-at", metavar="STAGE", help="last stage that is kept, such as layer2 [all]")
    add(
        "--preprocessing",
        default="auto",
        help="imagenet, caffe, residual, residual_bank or auto: residual without weights "
        "[%(default)s]",
    )
    add("--finetune", default="full", help="none, head or full [%(default)s]")
    add("--augmentation", default="geometric", help="none, geometric, full or robust [%(default)s]")
    add("--pairs-per-source", type=int, metavar="N", help="crops of each class in an epoch [all]")
    add("--epochs", type=int, default=8, help="at most [%(default)s]")
    add("--learning-rate", type=float)
    add("--crop-size", type=int, default=96, help="pixels [%(default)s]")
    add("--crops", type=int, default=6, help="crops an image [%(default)s]")
    add(
        "--pooling",
        default="mean_std",
        help="how crops become one: mean, mean_max, mean_std, mean_top, mean_std_top [%(default)s]",
    )
    add("--statistics", action="store_true", help="residual statistics behind the embedding")
    add("--batch-size", type=int, default=16)


def _add_svm_flags(parser: argparse.ArgumentParser) -> None:
    svm = parser.add_argument_group("svm")
    add = svm.add_argument
    add("--views", type=int, metavar="N", help="N degraded views of each class and source")
    add("--kernel", default="rbf", help="linear, rbf, poly, or several: rbf,linear")
    add("--soft-vote", action="store_true", help="average the best of each kernel")
    add("--trials", type=int, default=20, help="Optuna trials a kernel [%(default)s]")
    add("--inner-folds", type=int, default=3)
    add("--threshold", default="balanced_accuracy", help="this, or a probability")
    add("--max-error", type=float, metavar="SHARE", help="of verdicts that may be wrong [any]")


def parse_detector_flags(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, *, shipped: bool = False
) -> argparse.Namespace:
    """Parse; ``--weights cnnsvm`` alone asks for the network that ships as it is, frozen.

    Parameters
    ----------
    parser : ArgumentParser
        With `add_detector_flags`.
    argv : sequence of str or None
    shipped : bool
        Whether that network, if there is one, is also what is used where no flag says how to
        make another.

    Returns
    -------
    Namespace
        Flags that are given always hold.
    """
    from cnnsvm.persistence import BundleError, holds_model, read_config
    from cnnsvm.reuse import SHIPPED, SHIPPED_NAME

    usual = {name: parser.get_default(name) for name in (*_MAKE_A_NETWORK, *_SEE)}
    parser.set_defaults(**dict.fromkeys(usual, _NOT_GIVEN))
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not _NOT_GIVEN}
    made = [name for name in _MAKE_A_NETWORK if name in given]
    wanted = made == ["weights"] and given["weights"] == SHIPPED_NAME
    if holds_model(SHIPPED) and (wanted or (shipped and not made)):
        try:
            params = read_config(SHIPPED)["params"]
        except BundleError as error:
            parser.error(str(error))
        usual |= {name: params[name] for name in usual if name in params}
        usual |= {"crops": params["n_crops"], "weights": SHIPPED_NAME, "finetune": "none"}
    parser.set_defaults(**usual)
    return parser.parse_args(argv)


def make_detector(args: argparse.Namespace) -> Any:
    """Turn the flags into an unfitted, checked `InpaintDetector`."""
    from cnnsvm import InpaintDetector
    from cnnsvm.checks import check_detector_params

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
        pooling=args.pooling,
        statistics=args.statistics,
        n_views=args.views,
        batch_size=args.batch_size,
        kernel=kernels if len(kernels) > 1 else kernels[0],
        voting="soft" if args.soft_vote else None,
        n_trials=args.trials,
        threshold=_number_or_name(args.threshold),
        max_error=args.max_error,
        cv=args.inner_folds,
        device=args.device,
        precision=args.precision,
        gpu_memory_fraction=args.gpu_memory_fraction,
        n_jobs=args.jobs,
        random_state=args.seed,
    )
    check_detector_params(detector.get_params())
    return detector


def _number_or_name(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
