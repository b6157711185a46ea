"""Judge images with a saved detector."""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FIELDS = ("path", "prediction", "probability", "error")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm predict``."""
    parser.add_argument("model", type=Path, help="folder of a saved detector")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")


def main(args: argparse.Namespace) -> int:
    """Write one CSV row an image to standard output; status 1 if an image cannot be read."""
    from cnnsvm import InpaintDetector

    detector = InpaintDetector.load(args.model).set_params(device=args.device)
    writer = csv.DictWriter(sys.stdout, FIELDS)
    writer.writeheader()
    n_bad = 0
    for path in _list(args.images):
        row = _judge(detector, path)
        n_bad += bool(row["error"])
        writer.writerow(row)
    return 1 if n_bad else 0


def _list(places: list[Path]) -> Iterator[Path]:
    from cnnsvm.images import list_images

    for place in places:
        yield from list_images(place) if place.is_dir() else [place]


def _judge(detector: Any, path: Path) -> dict[str, Any]:
    from cnnsvm.images import ImageError, load_image

    try:
        pixels = load_image(path)
    except ImageError as error:
        return {"path": path, "prediction": "", "probability": "", "error": str(error)}
    probabilities = detector.predict_proba([pixels])[0]
    predicted = detector.predict([pixels])[0]
    values = dict(zip(detector.classes_.tolist(), probabilities, strict=True))
    stated = f"{values[predicted.item() if hasattr(predicted, 'item') else predicted]:.4f}"
    return {"path": path, "prediction": predicted, "probability": stated, "error": ""}
