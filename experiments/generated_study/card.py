"""The model card of the detector of generated images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.detection.model_card import CardFacts, Measured
from generated_study.report import kinds_of_fakes, mean
from generated_study.study import GENERATED, ORIGINAL, UNSURE, share
from scripting import find_commit

SUMMARY = (
    "Names an image generated (made by a generator as a whole) or original, or says that it is "
    "unsure. A linear support vector machine classifies the class token of layer 10 of CLIP's "
    "image tower (ViT-B/16, OpenAI, MIT licence), of the whole image at 224 pixels. It judges "
    "what an image shows and how: style, light, texture. It is blind to repainting of a part."
)
PROTOCOL = (
    "Each kind of real image in the training was left out in turn, and with it a third of the "
    "generated images by style or family of generators; classifier, calibration and threshold saw "
    "neither. A row is the mean over the kinds; docs/results/generated.md has them one by one, "
    "with intervals. Controls were in no training and were judged by all of these classifiers."
)
LIMITS = (
    "The generated images that it learnt from are paintings by Stable Diffusion 1.5 in the style "
    "of 228 artists, and 16 images of nine newer families, all of cats or a dog, 13 of them with "
    "a sign. What it makes of photograph-like images by other generators is hardly known: when "
    "the family was left out, one in nine of those 16 was found, one in twelve said to be "
    "original, the others unsure.",
    "It judges style: images of a kind that it has not seen are often unsure, up to 30 % of a "
    "kind of painting that was left out, and 47 % of it after WebP.",
    "Halved and saved as JPEG 50, three in ten of the generated paintings are still found, and "
    "one in nine is said to be original.",
    "Inpainting, and images that an autoencoder regenerated, are no business of this detector.",
)
SOURCES = (
    "monet, scroll: paintings of paintings.zip; vangogh: paintings of vangogh.zip, all in the "
    "public domain; camera, kodak: photographs of 20 makers' cameras and Kodak's scans, free to "
    "use; wallpapers, backgrounds, web_themes, web_dashboards: experiments/photographs.csv; "
    "webmuseum: 25 paintings and prints of the Debian package gcompris-qt-data 3.1-2 (WebMuseum, "
    "GPL-3+), put together from the pieces of its puzzles.",
    "sd_art: two of the four paintings of each file (SupaGruen/StableDiffusion-CheatSheet, MIT); "
    "families: examples of leejet/stable-diffusion.cpp (MIT).",
    "Each as it is, and as WebP of quality 55, the codec of sd_art.",
)
COMMAND = r"""
python experiments/collect_photographs.py UNPACKED --out photographs
python experiments/collect_paintings.py UNPACKED/usr/share/gcompris-qt/rcc --out webmuseum
python experiments/generated.py --tower clip_encoder.int8.onnx --out runs/generated \
    --grids sd_art --groups 'families=(.+?)__' \
    --real 'monet=paintings.zip::monet_*' 'scroll=paintings.zip::scroll_*' vangogh=vangogh.zip \
    webmuseum=webmuseum camera=unseen/camera kodak=unseen/kodak \
    'wallpapers=photographs::*-wallpapers*' 'backgrounds=photographs::*-backgrounds*' \
    'web_themes=photographs::[ans]*' 'web_dashboards=photographs::material*' \
    --fake sd_art=sd_art.zip families=unseen/generated --control bsds=photos.zip repaint=repaint.zip
""".strip()


def describe(
    table: pd.DataFrame, summary: pd.DataFrame, judged: pd.DataFrame, seed: int
) -> CardFacts:
    """Write the card; every number of the table of results comes from the study."""
    trained = table[table["role"] == "train"]
    counted: dict[Any, Any] = trained.groupby(["label", "kind"], sort=False).size().to_dict()
    reals, fakes = (
        ", ".join(f"{kind} {n}" for (own, kind), n in counted.items() if own == label)
        for label in (0, 1)
    )
    return CardFacts(
        name="generated: images that a generator made as a whole",
        summary=SUMMARY,
        trained_on=[f"Real images: {reals}.", f"Generated images: {fakes}.", *SOURCES],
        tested_on=list(_rows(summary, judged)),
        test_protocol=PROTOCOL,
        limits=LIMITS,
        command=COMMAND,
        seed=seed,
        commit=find_commit(Path(__file__).resolve().parent),
        tags=("generated-image-detection", "clip"),
    )


def _rows(summary: pd.DataFrame, judged: pd.DataFrame) -> Iterator[Measured]:
    fakes = kinds_of_fakes(summary)
    for name, part in summary.groupby("treatment", sort=False):
        numbers: dict[str, Any] = {f"ROC AUC, {kind}": mean(part, f"{kind} auc") for kind in fakes}
        for said in (GENERATED, UNSURE):
            numbers[f"real said {said}"] = mean(part, f"real {said}")
        for kind in fakes:
            numbers[f"{kind} said {GENERATED}"] = mean(part, f"{kind} {GENERATED}")
            numbers[f"{kind} said {ORIGINAL}"] = mean(part, f"{kind} {ORIGINAL}")
        seen = judged[(judged["treatment"] == name) & (judged["role"] == "train")]
        sizes = {"n_images": seen["path"].nunique(), "n_sources": seen["group"].nunique()}
        yield Measured(f"kinds and sources left out, {name}", numbers, **sizes)
    controls = judged[judged["role"] == "control"]
    for control, part in controls.groupby(["kind", "treatment"], sort=False):
        numbers = {}
        for said in (GENERATED, UNSURE):
            found = share(part, said)
            numbers[f"real said {said}"] = (found["value"], found["low"], found["high"])
        sizes = {"n_images": part["path"].nunique(), "n_sources": part["group"].nunique()}
        yield Measured(f"control {', '.join(map(str, control))}", numbers, **sizes)
