"""The model card of a detector of CIFAKE: what it was trained on and how well it does."""

import argparse
from pathlib import Path
from typing import Any

from cnnsvm.detection.model_card import CardFacts, Measured
from cnnsvm.features.saved import saved_folder
from scripting import find_command, find_commit


def saved(args: argparse.Namespace) -> list[str]:
    """List the saved detectors whose networks are taken."""
    return [place for place in (args.weights, *args.ensemble) if place]


def describe(
    args: argparse.Namespace, result: dict[str, Any], n_train: int, validation_fraction: float
) -> CardFacts:
    """Write the card of the detector to share."""
    metrics, fold = result["metrics"], result["folds"][0]
    names = ("accuracy", "precision", "recall", "f1", "roc_auc", "brier", "ece")
    numbers = {n: tuple(metrics[n][end] for end in ("value", "low", "high")) for n in names}
    judged = {"n_images": fold["n_test"], "n_sources": fold["n_sources_test"]}
    what = "test images" if args.test else "training images held out by near-duplicate groups"
    return CardFacts(
        name="cifake: photographs against images by Stable Diffusion, 32x32",
        summary="Tells photographs of 32x32 pixels (CIFAR-10) from images that Stable Diffusion "
        "1.4 made in their likeness (CIFAKE).",
        trained_on=[
            f"{n_train:,} training images of CIFAKE (Bird & Lotfi, IEEE Access 2024): photographs "
            "of CIFAR-10 and images by Stable Diffusion 1.4, 32x32, JPEG.",
            *how_trained(args, validation_fraction),
        ],
        tested_on=[Measured(data=what, numbers=numbers, **judged)],
        test_protocol="One split; 95 % intervals from resampling groups of near-duplicates.",
        limits=[
            "It knows 32x32 images of ten kinds of things, and one generator. Of larger images "
            "it sees one crop in the middle: its verdict on them is unsure, and the probabilities "
            "that it states mean nothing.",
            "Images of other generators, or recompressed or resized ones, were not tested.",
        ],
        tags=["cifake"],
        command=result["command"],
        seed=args.seed,
        commit=find_commit(Path(__file__).resolve().parent),
    )


def how_trained(args: argparse.Namespace, validation_fraction: float) -> list[str]:
    """Say on the card what the networks began with and their auxiliary labels."""
    made = {place: find_command(saved_folder(place)) for place in saved(args)}
    commands = [f"{place} was made by `{line}`" for place, line in made.items() if line]
    if args.ensemble:
        return [
            f"It holds the networks of {' and '.join(made)} as they are. The support vector "
            f"machine learnt from the {validation_fraction:.0%} of the sources that "
            "had told each network when to stop, and that no network has learnt from.",
            *commands,
        ]
    said = [f"It began with the network of {args.weights}."] if args.weights else []
    said += commands
    if args.objects:
        said.append("Auxiliary labels of the training: what each image shows.")
    return said
