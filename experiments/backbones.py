"""Which backbone: VGG, ResNet, DenseNet and a plain CNN on CIFAKE, side by side.

    python experiments/backbones.py --train cifake_train.tar.xz
    python experiments/backbones.py --train train.tar.xz --limit 10000 --epochs 4
    python experiments/backbones.py --train train.tar.xz --weights squeezenet1_0=weights.pth,caffe

Each backbone is trained in the same way on the same images and judged on the same others, by its
own last layer and by the SVM; once more without augmentation, from the weights that --weights
names, and with --objects trained on auxiliary labels (what an image shows) too. Run again with the
same --out, it resumes.
"""

import argparse
from pathlib import Path
from typing import Any

from scripting import RUNS, add_machine_flags, command, make_parser, publish, run_script

BACKBONES = ("plain_cnn", "vgg11_bn", "resnet18", "densenet121")
#: The backbone that is also trained without augmentation.
ABLATED = "resnet18"
AUXILIARY = ", taught objects"  # names rows and run directories: stays
#: As in experiments/cifake.py, but for the whole network.
EMBEDDER: dict[str, Any] = {
    "stem": "small",
    "preprocessing": "imagenet",
    "crop_size": 32,
    "n_crops": 1,
    "mirror": True,
    "pooling": "mean",
    "batch_size": 128,
}
TUNING: dict[str, Any] = {
    "augmentation": "small",
    "patience": 100,
    "weight_decay": 0.05,
    "validation_fraction": 0.05,
}
N_TRIALS = 5
RATES = {False: 3e-3, True: 1e-3}  # peak learning rate from random and from given weights
#: Families without batch normalisation: SqueezeNet fell to chance at the rates above.
UNNORMALISED = ("alexnet", "squeezenet", "vgg")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--train", required=True, help="folder or archive with train/REAL and train/FAKE")
    add("--out", type=Path, default=RUNS / "backbones", help="folder of the results [%(default)s]")
    add("--backbones", nargs="+", default=list(BACKBONES), metavar="NAME", help="[%(default)s]")
    add(
        "--weights",
        nargs="*",
        default=[],
        metavar="NAME=FILE[,PREPROCESSING]",
        help="pretrained weights, and what they expect to see [imagenet]: a row more for each",
    )
    add("--objects", nargs="*", default=[], metavar="NAME", help="auxiliary labels: a row more")
    add("--held-out", type=int, default=10_000, metavar="N", help="images [%(default)s]")
    add("--limit", type=int, metavar="N", help="train on N images only [all]")
    add("--epochs", type=int, default=16, help="[%(default)s]")
    add("--landmarks", type=int, default=1000, metavar="N", help="landmarks [%(default)s]")
    add_machine_flags(parser)
    return parser.parse_args(argv)


def list_variants(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the parameters of each row of the table by its name."""
    from cnnsvm.features.preprocessing import PREPROCESSING

    variants: dict[str, dict[str, Any]] = {
        name: {"backbone": name, "weights": None} for name in args.backbones
    }
    if ABLATED in variants:
        without = {"backbone": ABLATED, "weights": None, "augmentation": "none"}
        variants[f"{ABLATED}, no augmentation"] = without
    for name in args.objects:
        variants.setdefault(name, {"backbone": name, "weights": None})
        variants[name + AUXILIARY] = variants[name]
    for given in args.weights:
        name, equals, rest = given.partition("=")
        file, comma, preprocessing = rest.rpartition(",")
        if not comma or preprocessing not in PREPROCESSING:
            file, preprocessing = rest, EMBEDDER["preprocessing"]
        if not equals or not Path(file).is_file():
            raise ValueError(
                f"--weights takes NAME=FILE[,PREPROCESSING] with a file that exists, got {given!r}."
                f" PREPROCESSING is one of {', '.join(PREPROCESSING)}."
            )
        variants.setdefault(name, {"backbone": name, "weights": None})
        seen = {"preprocessing": preprocessing}
        variants[f"{name}, pretrained"] = {"backbone": name, "weights": file} | seen
    return variants


def learning_rate(backbone: str, *, pretrained: bool) -> float:
    """Return the peak rate: a tenth where there is no batch normalisation."""
    unnormalised = backbone.startswith(UNNORMALISED) and not backbone.endswith("_bn")
    return RATES[pretrained] * (0.1 if unnormalised else 1.0)


def make_detector(args: argparse.Namespace, params: dict[str, Any]) -> Any:
    """Return the unfitted detector of one row of the table."""
    from cnnsvm import CNNEmbedder, FineTuning, InpaintDetector, TunedSVC

    rate = learning_rate(params["backbone"], pretrained=bool(params["weights"]))
    own = {k: v for k, v in params.items() if k != "augmentation"}
    changed = {k: v for k, v in params.items() if k == "augmentation"}
    tuning = FineTuning(epochs=args.epochs, learning_rate=rate, **TUNING | changed)
    embedder = CNNEmbedder(finetune=tuning, device=args.device, **EMBEDDER | own)
    classifier = TunedSVC(n_trials=N_TRIALS, n_landmarks=args.landmarks)
    return InpaintDetector(embedder, classifier, random_state=args.seed)


def run(args: argparse.Namespace) -> int:
    """Train and judge each, and write the table."""
    from cifake_study.backbones import judge_variants
    from cifake_study.files import auxiliary_labels
    from cifake_study.groups import with_near_duplicates
    from cifake_study.holdout import draw_groups, hold_out
    from cifake_study.report import backbones_report
    from cnnsvm.data.readers.cifake import read_cifake
    from cnnsvm.evaluation.protocol import describe_environment

    variants = list_variants(args)
    environment = describe_environment(args.device)
    cifake = with_near_duplicates(read_cifake(args.train, "train"), args.out)
    train, test = hold_out(cifake.labels, cifake.groups, args.held_out, args.seed)
    if args.limit:
        train = train[draw_groups(cifake.groups[train], args.limit, args.seed)]
    detectors = {name: make_detector(args, params) for name, params in variants.items()}
    finer = {row: auxiliary_labels(cifake, train) for row in detectors if row.endswith(AUXILIARY)}
    rows = judge_variants(
        *(detectors, cifake.manifest, train, test),
        images=cifake.images,
        folder=args.out,
        auxiliary_labels=finer,
    )
    facts = {
        "title": f"Backbones on CIFAKE: {len(train):,} images, {args.epochs} epochs",
        "command": command(),
        "environment": environment,
        "n_train": len(train),
        "n_test": len(test),
    }
    publish(args.out, backbones_report(rows, facts))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
