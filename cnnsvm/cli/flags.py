"""Flags that become parameters of `InpaintDetector`, shared by every command that fits one."""

import argparse
from typing import Any


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `cnnsvm.evaluation.preparation.prepare` takes."""
    data = parser.add_argument_group("data")
    data.add_argument("--generate", metavar="ENGINE", help="make five inpaintings of each source")
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
    network = parser.add_argument_group("network")
    network.add_argument("--backbone", default="resnet18", help="a torchvision name [%(default)s]")
    network.add_argument("--weights", default="none", help="none, imagenet or a file [%(default)s]")
    network.add_argument(
        "--preprocessing",
        default="auto",
        help="imagenet, caffe, residual or auto: residual without weights [%(default)s]",
    )
    network.add_argument("--finetune", default="full", help="none, head or full [%(default)s]")
    network.add_argument("--augmentation", default="geometric", help="none, geometric or full")
    network.add_argument("--epochs", type=int, default=8, help="at most [%(default)s]")
    network.add_argument("--learning-rate", type=float)
    network.add_argument("--crop-size", type=int, default=96, help="pixels [%(default)s]")
    network.add_argument("--crops", type=int, default=6, help="crops an image [%(default)s]")
    network.add_argument("--batch-size", type=int, default=16)
    svm = parser.add_argument_group("svm")
    svm.add_argument("--kernel", default="rbf", help="linear, rbf, poly, or several: rbf,linear")
    svm.add_argument("--soft-vote", action="store_true", help="average the best of each kernel")
    svm.add_argument("--trials", type=int, default=20, help="Optuna trials a kernel [%(default)s]")
    svm.add_argument("--inner-folds", type=int, default=3)
    svm.add_argument("--threshold", default="balanced_accuracy", help="this, or a probability")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--seed", type=int, default=0)
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    machine.add_argument("--precision", default="auto", help="float32, bfloat16 or float16")
    machine.add_argument("--gpu-memory-fraction", type=float)
    machine.add_argument("--jobs", type=int, default=0, help="processes that decode images")


def make_detector(args: argparse.Namespace) -> Any:
    """Turn the flags into an unfitted, checked `InpaintDetector`."""
    from cnnsvm import InpaintDetector
    from cnnsvm.checks import check_detector_params

    kernels = tuple(args.kernel.split(","))
    detector = InpaintDetector(
        args.backbone,
        weights=None if args.weights == "none" else args.weights,
        preprocessing=args.preprocessing,
        finetune=args.finetune,
        augmentation=args.augmentation,
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        crop_size=args.crop_size,
        n_crops=args.crops,
        batch_size=args.batch_size,
        kernel=kernels if len(kernels) > 1 else kernels[0],
        voting="soft" if args.soft_vote else None,
        n_trials=args.trials,
        threshold=_number_or_name(args.threshold),
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
