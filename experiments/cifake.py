r"""CIFAKE: real against generated images of 32x32 pixels, from the archive to a report.

    python experiments/cifake.py --train cifake_train.tar.xz
    python experiments/cifake.py --train train.tar.xz --test test.tar.xz --exact
    python experiments/cifake.py --train train.tar.xz --bundle runs/cifake/weights
    python experiments/cifake.py --train train.tar.xz --weights runs/cifake/weights --epochs 8
    python experiments/cifake.py --train train.tar.xz --weights runs/cifake/weights \
        --ensemble runs/objects/weights

A part of the training images is held out by groups of near-duplicates (or --test is judged); a
network is fine-tuned on the others at their native size, an SVM tuned on its embeddings, and both
judged on images that they were not trained on. With --ensemble no network is trained: those of
--weights and --ensemble embed side by side, and an SVM is fitted on the images that had told each
when to stop, which none has learnt from. Run again with the same --out, it resumes.
"""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from scripting import RUNS, add_machine_flags, command, make_parser, publish, run_script

#: 32-pixel images: no early downsampling, no crops, mirror images, three of ResNet's four stages.
EMBEDDER: dict[str, Any] = {
    "stem": "small",
    "preprocessing": "imagenet",
    "crop_size": 32,
    "n_crops": 1,
    "mirror": True,
    "pooling": "mean",
}
TUNING: dict[str, Any] = {
    "augmentation": "small",
    "patience": 100,
    "weight_decay": 0.05,
    "validation_fraction": 0.05,
}
N_TRIALS = 10
MAX_ERROR = 0.01
#: What depends on the network: where it is cut, and images a step.
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {"truncate_at": "layer3", "batch_size": 128},
    "plain_cnn_7": {"truncate_at": "stage3", "batch_size": 64},
}
HELD_OUT = 10_000
SUBSET = 10_000  # rows that hyperparameters of the exact machine are tuned on
LOOKED_AT = 4_000  # files of each part that the explorative page and the controls read
SHUFFLED = 4_000  # images that the network is trained on with shuffled labels

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--train", required=True, help="folder or archive with train/REAL and train/FAKE")
    add("--test", help="folder or archive with test/REAL and test/FAKE, judged instead of a part")
    add("--out", type=Path, default=RUNS / "cifake", help="folder of the results [%(default)s]")
    add("--held-out", type=int, default=HELD_OUT, metavar="N", help="images [%(default)s]")
    add("--limit", type=int, metavar="N", help="train on N images only [all]")
    add("--weights", help="train on from 'cifake' or from what --bundle has written [from scratch]")
    add("--ensemble", nargs="+", default=[], metavar="DETECTOR", help="networks beside --weights")
    add("--backbone", default="resnet18", choices=tuple(NETWORKS), help="[%(default)s]")
    add("--objects", action="store_true", help="train on what images show too, as auxiliary labels")
    add("--epochs", type=int, default=24, help="[%(default)s]")
    add("--learning-rate", type=float, default=3e-3, help="[%(default)s]")
    add("--landmarks", type=int, default=1000, metavar="N", help="landmarks [%(default)s]")
    add("--exact", action="store_true", help="an exact SVM on all rows too, for comparison")
    add("--no-shuffled", action="store_true", help="no run on shuffled labels")
    add("--bundle", type=Path, help="folder that gets the detector to share, with its card")
    add_machine_flags(parser)
    return parser.parse_args(argv)


def read(args: argparse.Namespace) -> tuple[Any, np.ndarray, np.ndarray, int]:
    """Return the images, which of them train and are judged, and how many are left out."""
    from cifake_study.card import saved
    from cifake_study.groups import outside, with_near_duplicates
    from cifake_study.holdout import draw_groups, hold_out
    from cifake_study.same_split import refuse_other_split
    from cnnsvm.data.readers.cifake import read_cifake
    from cnnsvm.features.saved import is_saved_network

    if args.ensemble and not args.weights:
        raise ValueError(
            f"--ensemble {' '.join(args.ensemble)} stands beside --weights, which is missing. Name "
            "the first of the detectors there."
        )
    for place in saved(args):
        if not is_saved_network(place):
            raise ValueError(f"{place} is no saved detector. Give 'cifake' or what --bundle wrote.")
    cifake = read_cifake(args.train, "train")
    if args.test:
        cifake = cifake.join(read_cifake(args.test, "test"))
    cifake = with_near_duplicates(cifake, args.out)
    if args.test:
        train, test = (np.flatnonzero(cifake.split == name) for name in ("train", "test"))
    else:
        train, test = hold_out(cifake.labels, cifake.groups, args.held_out, args.seed)
    kept = outside(cifake, train, test)
    n_left_out = len(train) - len(kept)
    if args.limit:
        kept = kept[draw_groups(cifake.groups[kept], args.limit, args.seed)]
    kept_apart = (args.seed, TUNING["validation_fraction"])
    refuse_other_split(saved(args), cifake.images[kept], *kept_apart)
    return cifake, kept, test, n_left_out


def make_detector(args: argparse.Namespace) -> Any:
    """Return the unfitted detector; with an ensemble its networks are frozen, and rows are few."""
    from cnnsvm import InpaintDetector, TunedSVC

    landmarks = None if args.ensemble else args.landmarks
    return InpaintDetector(
        make_embedders(args),
        TunedSVC(n_trials=N_TRIALS, n_landmarks=landmarks),
        max_error=MAX_ERROR,
        random_state=args.seed,
    )


def make_embedders(args: argparse.Namespace) -> list[Any]:
    """Make one network to train, or the frozen ones of saved detectors, which give scores."""
    from cifake_study.card import saved
    from cnnsvm import CNNEmbedder
    from cnnsvm.detection.pretrained import frozen_embedders

    if args.ensemble:
        found = [e for place in saved(args) for e in frozen_embedders(place)]
        return [e.set_params(output="scores", device=args.device) for e in found]
    params = EMBEDDER | NETWORKS[args.backbone] | {"device": args.device}
    return [CNNEmbedder(args.backbone, weights=args.weights, finetune=tuning(args), **params)]


def tuning(args: argparse.Namespace) -> Any:
    """Say how the network is trained."""
    from cnnsvm import FineTuning

    return FineTuning(epochs=args.epochs, learning_rate=args.learning_rate, **TUNING)


def rows_to_fit(args: argparse.Namespace, cifake: Any, train: np.ndarray) -> np.ndarray:
    """Return what the detector is fitted on; with an ensemble what no network has learnt from."""
    from cnnsvm import CNNEmbedder
    from cnnsvm.svm.calibration import draw_seed

    if not args.ensemble:
        return train
    network = CNNEmbedder(finetune=tuning(args), random_state=draw_seed(args.seed))
    sources = cifake.manifest["source_id"].to_numpy()[train]
    return train[network.held_out(cifake.labels[train], sources)]


def look(args: argparse.Namespace, cifake: Any, train: np.ndarray, test: np.ndarray) -> Any:
    """Read some of the files as they are: the explorative page, and what headers tell."""
    from cifake_study.files import extract_files
    from cifake_study.holdout import draw_groups
    from cnnsvm.audit.exploration import explore
    from cnnsvm.evaluation.negative_controls import run_controls
    from cnnsvm.io.files import write_text
    from cnnsvm.report import render_html
    from cnnsvm.report.exploration import exploration_report

    started = time.perf_counter()
    parts = [rows[draw_groups(cifake.groups[rows], LOOKED_AT, args.seed)] for rows in (train, test)]
    manifest = cifake.manifest.iloc[np.concatenate(parts)].reset_index(drop=True)
    for split, place in (("train", args.train), ("test", args.test)):
        rows = manifest["split"] == split
        if rows.any():
            files = extract_files(place, manifest.loc[rows, "path"], args.out / "files")
            manifest.loc[rows, "path"] = [str(file) for file in files]
    page, seen = args.out / "explore.html", explore(manifest, max_images=len(manifest), n_jobs=-1)
    facts = {"title": "Data set: CIFAKE, a sample", "command": command(), "data": args.train}
    facts |= {"seconds": time.perf_counter() - started, "random_state": args.seed}
    write_text(page, render_html(exploration_report(seen, facts)))
    fold = (np.arange(len(parts[0])), np.arange(len(parts[0]), len(manifest)))
    return run_controls(manifest, [fold], args.seed), page


def shuffle(args: argparse.Namespace, cifake: Any, train: np.ndarray, test: np.ndarray) -> Any:
    """Fit all that a run fits on shuffled labels, of fewer images."""
    from cifake_study.files import auxiliary_labels
    from cifake_study.holdout import draw_groups, evaluate_held_out
    from cnnsvm.evaluation.negative_controls import SHUFFLED as MEANING
    from cnnsvm.evaluation.negative_controls import summarise_control
    from cnnsvm.evaluation.protocol import shuffled_labels

    rows = train[draw_groups(cifake.groups[train], SHUFFLED, args.seed)]
    judged = test[draw_groups(cifake.groups[test], SHUFFLED, args.seed)]
    manifest = cifake.manifest.iloc[np.concatenate([rows, judged])].reset_index(drop=True)
    manifest["label"] = shuffled_labels(manifest, args.seed)
    both = np.concatenate([rows, judged])
    labels = manifest["label"].to_numpy()[: len(rows)]
    split = (np.arange(len(rows)), np.arange(len(rows), len(manifest)))
    folder = args.out / "shuffled"
    epochs = min(args.epochs, 3)
    detector = make_detector(argparse.Namespace(**vars(args) | {"epochs": epochs}))
    found, _ = evaluate_held_out(
        *(detector, manifest, *split),
        images=cifake.images[both],
        folder=folder,
        auxiliary_labels=auxiliary_labels(cifake, rows, labels) if args.objects else None,
    )
    said = f"{MEANING}; {len(rows):,} images, {epochs} epochs"
    if args.ensemble:
        said = f"the SVM again on permuted labels, the networks as they are; {len(rows):,} images"
    return summarise_control(found.predictions, said)


def compare(args: argparse.Namespace, data: Any, model: Any, frame: Any, train: np.ndarray) -> Any:
    """Judge the same embeddings by other heads.

    ``data`` are all images and which are judged, ``train`` those that the SVM was fitted on.
    """
    from cifake_study import heads

    cifake, test = data
    judged = model.transform(cifake.images[test])
    found = heads.network_heads(model, judged, frame)
    found.append(heads.network_head(model, judged, frame))
    if args.exact:
        logger.info("embedding %d training images for the exact machines", len(train))
        fitted = (model.transform(cifake.images[train]), cifake.labels[train], cifake.groups[train])
        part, params = heads.fit_subset_head(
            fitted, judged, frame, SUBSET, n_trials=N_TRIALS, random_state=args.seed
        )
        logger.info("exact RBF machine on %d rows with %s", len(train), params)
        found += [part, heads.fit_exact_head(fitted, judged, frame, params)]
    return heads.compare_heads([*found, heads.svm_head(model, judged, frame)])


def tables(rows: Any, cifake: Any, n_left_out: int) -> list[dict[str, Any]]:
    """Put the heads and the duplicates into what a report shows."""
    from cifake_study.groups import count_duplicates
    from cifake_study.heads import peak_memory
    from cifake_study.report import duplicates_table, heads_table

    copies = duplicates_table(count_duplicates(cifake), n_left_out)
    return [heads_table(rows, peak_memory()), copies]


def run(args: argparse.Namespace) -> int:
    """Read, look, fit, judge, report, and save what may be shared."""
    from cifake_study.card import describe
    from cifake_study.files import auxiliary_labels
    from cifake_study.holdout import evaluate_held_out
    from cnnsvm.evaluation.bootstrap import bootstrap_metrics
    from cnnsvm.evaluation.protocol import describe_environment
    from cnnsvm.report.evaluation import evaluation_report

    environment = describe_environment(args.device)
    cifake, train, test, n_left_out = read(args)
    controls, page = look(args, cifake, train, test)
    detector, manifest = make_detector(args), cifake.manifest
    fitted = rows_to_fit(args, cifake, train)
    found, model = evaluate_held_out(
        *(detector, manifest, fitted, test),
        images=cifake.images,
        folder=args.out / "model",
        auxiliary_labels=auxiliary_labels(cifake, fitted) if args.objects else None,
    )
    if not args.no_shuffled:
        controls["shuffled_labels"] = shuffle(args, cifake, fitted, test)
    rows = compare(args, (cifake, test), model, manifest.iloc[test], fitted)
    result = {
        "title": "CIFAKE: real against generated images of 32x32 pixels",
        "command": command(),
        "data": " and ".join(filter(None, (args.train, args.test))),
        "metrics": bootstrap_metrics(found.predictions),
        "controls": controls,
        "tables": tables(rows, cifake, n_left_out),
        "heads": rows,
        "folds": found.folds,
        "n_images": len(train) + len(test),
        "n_sources": len(np.unique(cifake.groups[np.concatenate([train, test])])),
        "seconds": found.folds[0]["seconds"],
        "environment": environment,
        "settings": {name: str(value) for name, value in detector.get_params().items()},
    }
    pixels = dict(zip(cifake.names, cifake.images, strict=True))
    report = evaluation_report(
        result, found.predictions, found.folds, found.curves, loader=pixels.__getitem__
    )
    publish(args.out, report, [page])
    if args.bundle:
        share(args, model, describe(args, result, len(train), TUNING["validation_fraction"]))
    return 0


def share(args: argparse.Namespace, model: Any, card: Any) -> None:
    """Save the detector with its card."""
    folder = model.save_pretrained(args.bundle, card)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
