"""Judge images with a saved detector."""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm predict``."""
    parser.add_argument("model", type=Path, help="folder of a saved detector")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")


def main(args: argparse.Namespace) -> int:
    """Write one CSV row an image to standard output; status 1 if an image cannot be read."""
    from cnnsvm import InpaintDetector

    detector = InpaintDetector.load(args.model).set_params(device=args.device)
    names = class_names(detector)
    fields = ["path", "prediction", *(f"probability_{name}" for name in names), "error"]
    writer = csv.DictWriter(sys.stdout, fields, restval="")
    writer.writeheader()
    n_bad = 0
    for path in _list(args.images):
        row = _judge(detector, path, names)
        n_bad += "error" in row
        writer.writerow(row)
    return 1 if n_bad else 0


def class_names(detector: Any) -> list[str]:
    """Name the classes; the labels 0 and 1 of a manifest are real and fake."""
    classes = detector.classes_.tolist()
    return ["real", "fake"] if classes == [0, 1] else [str(label) for label in classes]


def _list(places: list[Path]) -> Iterator[Path]:
    from cnnsvm.images import list_images

    for place in places:
        yield from list_images(place) if place.is_dir() else [place]


def _judge(detector: Any, path: Path, names: list[str]) -> dict[str, Any]:
    from cnnsvm.images import ImageError, load_image

    try:
        pixels = load_image(path)
    except ImageError as error:
        return {"path": path, "error": str(error)}
    probabilities = detector.predict_proba([pixels])[0]
    two = len(names) == 2
    best = int(probabilities[1] > detector.threshold_) if two else int(probabilities.argmax())
    stated = {f"probability_{n}": f"{p:.4f}" for n, p in zip(names, probabilities, strict=True)}
    return {"path": path, "prediction": names[best]} | stated
