"""Flags that become an `InpaintDetector`, shared by every command that fits one."""

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsvm import FineTuning, InpaintDetector

#: Flags of the embedder, and their values for a new network where none is given.
_ARCHITECTURE: dict[str, Any] = {"backbone": "resnet18", "stem": "native", "truncate_at": None}
_ARCHITECTURE |= {"preprocessing": "auto", "statistics": False}
_TRAINING: dict[str, Any] = {"weights": "none", "finetune": "full", "pairs_per_source": None}
_TRAINING |= {"epochs": 8, "learning_rate": None, "augmentation": "geometric"}
_CROPS: dict[str, Any] = {"crop_size": 96, "n_crops": 6, "mirror": False, "pooling": "mean_std"}
_CROPS |= {"output": "embedding", "resize": None}
_USUAL = _ARCHITECTURE | _TRAINING | _CROPS
STATISTICS = "statistics"
_BACKENDS = "what embeds on a processor: torch, openvino (an extra), or auto, the faster one"


def add_data_flags(parser: argparse.ArgumentParser, *, generate: bool = True) -> None:
    """Add what `cnnsvm.evaluation.preparation.prepare` takes, with or without making fakes."""
    data = parser.add_argument_group("data")
    add: Any = data.add_argument
    if generate:
        add("--generate", metavar="ENGINE", help="make five inpaintings of each source")
        variants = {"default": "spliced", "choices": ("spliced", "regenerated", "both")}
        add("--variants", **variants, help="what --generate makes [%(default)s]")
    add("--codec", help="rewrite all images: png, jpeg:75, webp:80, or keep")
    add("--groups", help="what names the source: a pattern or a CSV table")
    add("--skip-bad", action="store_true", help="leave bad images out and list them")


def add_detector_flags(parser: argparse.ArgumentParser) -> None:
    """Add what a detector consists of; the defaults fit two cores and no download."""
    _add_embedder_flags(parser)
    _add_classifier_flags(parser)
    add = parser.add_argument_group("machine").add_argument
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--precision", default="auto", help="float32, bfloat16 or float16")
    add("--backend", default="torch", help=f"{_BACKENDS} [%(default)s]")
    add("--gpu-memory-fraction", type=float)
    add("--batch-size", type=int, default=16, help="crops a step [%(default)s]")
    shares = "of a batch, one for each process of torchrun, by rank: 3,1 [equal]"
    add("--batch-shares", type=_numbers, metavar="N,N", help=shares)
    add("--jobs", type=int, default=1, help="that decode ahead of the network [%(default)s]")


def add_backend_flags(add: Any) -> None:
    """Add what runs the networks of a fitted detector."""
    checked = "the first images are judged by both"
    add("--backend", help=f"{_BACKENDS}; {checked} [as fitted]")
    add("--precision", help=f"float32, bfloat16 or float16; {checked} [as fitted]")


def machine_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the flags that say where and how networks run."""
    return {name: getattr(args, name) for name in ("device", "backend", "precision")}


def _add_embedder_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("embedder")

    def add(flag: str, help: str, **options: Any) -> None:
        usual = _USUAL[flag[2:].replace("-", "_")]
        shown = f"{help} [{usual}]" if usual not in (None, False) else help
        group.add_argument(flag, default=None, help=shown, **options)  # filled in later

    add("--backbone", "a torchvision name, timm:NAME, hf:ID, onnx:FILE, or statistics for none")
    add(
        "--weights",
        "none, imagenet, cnnsvm, generated or cifake (that ship), a file or a saved detector",
    )
    add("--stem", "native, nopool or nodown: less shrinking; small: for images of 32 pixels")
    add("--truncate-at", "last stage that is kept, such as layer2 [all]", metavar="STAGE")
    add("--preprocessing", "imagenet, caffe, residual, residual_bank, auto: residual if untrained")
    add("--finetune", "none, head or full")
    add("--augmentation", "none, geometric, small, full, jpeg or robust")
    add("--pairs-per-source", "crops of each class in an epoch [all]", type=int, metavar="N")
    add("--epochs", "at most", type=int)
    add("--learning-rate", "[1e-4 for a whole pretrained network, else 1e-3]", type=float)
    add("--crop-size", "pixels", type=int)
    add("--n-crops", "crops an image, at most; all of them: all", type=number_or_name)
    add("--mirror", "the mirror image of each crop too", action="store_true")
    add("--pooling", "how crops become one, such as mean_std or mean_std_top_peak")
    add("--output", "what an embedder gives: embedding or scores")
    add("--resize", "short side of the resized image; removes traces [no resize]", type=int)
    add("--statistics", "residual statistics beside the network", action="store_true")
    group.add_argument(
        "--beside",
        nargs="+",
        default=(),
        metavar="DETECTOR",
        help="saved detectors, or names of those that ship, whose embedders stand beside, frozen",
    )


def _add_classifier_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("classifier").add_argument
    add("--views", type=int, metavar="N", help="N degraded views of each class and source")
    add("--kernel", default="rbf", help="linear, rbf, poly, or several: rbf,linear")
    add("--soft-vote", action="store_true", help="average the best of each kernel")
    add("--trials", type=int, default=20, help="Optuna trials a kernel [%(default)s]")
    add("--inner-folds", type=int, default=3)
    add("--landmarks", type=int, metavar="N", help="N Nystroem landmarks for all rows [exact]")
    add("--threshold", default="balanced_accuracy", help="this, or a probability")
    wrong = "of verdicts that may be wrong, else unsure; or none [%(default)s]"
    add("--max-error", type=number_or_name, default=0.05, metavar="SHARE", help=wrong)


def make_detector(args: argparse.Namespace, *, shipped: bool = False) -> "InpaintDetector":
    """Turn the flags of `add_detector_flags` into an unfitted, checked `InpaintDetector`.

    With ``shipped``, as with ``--weights cnnsvm``, the embedder is that of the detector that ships,
    frozen, unless a flag says how to make another.
    """
    from cnnsvm import InpaintDetector, TunedSVC

    kernels = tuple(args.kernel.split(","))
    robust = args.augmentation if args.augmentation in ("full", "jpeg", "robust") else "robust"
    detector = InpaintDetector(
        make_embedders(args, shipped),
        TunedSVC(
            kernels if len(kernels) > 1 else kernels[0],
            voting="soft" if args.soft_vote else None,
            n_trials=args.trials,
            cv=args.inner_folds,
            n_landmarks=args.landmarks,
        ),
        n_views=args.views,
        augmentation=robust,
        threshold=number_or_name(args.threshold),
        max_error=None if args.max_error == "none" else args.max_error,
        random_state=args.seed,
    )
    detector.check_params()
    return detector


def make_embedders(args: argparse.Namespace, shipped: bool) -> list[Any]:
    """Make the unfitted embedders that the flags describe."""
    from cnnsvm.detection.pretrained import USUAL, frozen_embedders
    from cnnsvm.io.bundle import SHIPPED, holds_model

    given = {name for name in _ARCHITECTURE | _TRAINING if getattr(args, name) is not None}
    asked = args.weights in SHIPPED and not given & _ARCHITECTURE.keys()
    chosen = args.weights if asked else USUAL
    if holds_model(SHIPPED[chosen]) and (asked or (shipped and not given)):
        embedders: list[Any] = frozen_embedders(chosen)
        if given - {"weights"} and args.finetune != "none":
            embedders = [e.set_params(finetune=_finetuning(args)) for e in embedders]
        asked_crops = {k: getattr(args, k) for k in _CROPS if getattr(args, k) is not None}
    else:
        embedders = _new_embedders(args)
        asked_crops = {k: _value(args, k) for k in _CROPS}
    for place in args.beside:
        embedders += [e.set_params(output=_value(args, "output")) for e in frozen_embedders(place)]
    machine = {**machine_of(args), "n_jobs": args.jobs}
    machine |= {"gpu_memory_fraction": args.gpu_memory_fraction, "batch_size": args.batch_size}
    for embedder in embedders:
        known = embedder.get_params(deep=False)
        wanted = {k: None if v == "all" else v for k, v in asked_crops.items()}
        embedder.set_params(**{k: v for k, v in (wanted | machine).items() if k in known})
    return embedders


def _new_embedders(args: argparse.Namespace) -> list[Any]:
    from cnnsvm import CNNEmbedder, ResidualStatistics

    weights = None if _value(args, "weights") == "none" else _value(args, "weights")
    tuning = "none" if _value(args, "finetune") == "none" else _finetuning(args)
    backbone = _value(args, "backbone")
    found: list[Any] = []
    names = ("stem", "truncate_at", "preprocessing")
    unused = [name.replace("_", "-") for name in names if getattr(args, name)]
    if backbone == STATISTICS and unused:
        raise ValueError(
            f"--{unused[0]} is for networks, and --backbone statistics has none. "
            "Leave it out, or name a network and use --statistics."
        )
    if backbone != STATISTICS:
        shape = {name: _value(args, name) for name in names}
        number = shape["truncate_at"]
        if ":" in backbone and number is not None and number.lstrip("-").isdecimal():
            shape["truncate_at"] = int(number)
        found.append(CNNEmbedder(backbone, weights=weights, finetune=tuning, **shape))
    if backbone == STATISTICS or args.statistics:
        own = weights if backbone == STATISTICS else None
        found.append(ResidualStatistics(weights=own, finetune=tuning))
    return found


def _finetuning(args: argparse.Namespace) -> "FineTuning":
    from cnnsvm import FineTuning

    names = ("epochs", "learning_rate", "augmentation", "pairs_per_source")
    mode = _value(args, "finetune")
    return FineTuning(mode, **{name: _value(args, name) for name in names})


def _value(args: argparse.Namespace, name: str) -> Any:
    found = getattr(args, name)
    return _USUAL[name] if found is None else found


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def number_or_name(text: str) -> int | float | str:
    """Read what is a number or the name of a rule, such as a threshold."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
