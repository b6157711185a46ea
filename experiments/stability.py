"""Whether verdicts hold when an image is delivered again: recompressed, resized, cut, captured.

    python experiments/stability.py untouched=photos fakes=generated --out runs/stability

Each image is judged by the detectors that ship, as it is and after twelve re-deliveries. A sure
verdict may turn to unsure; the share that turns to its opposite, from a fake of any kind to
no_trace or back, is what counts.
"""

import argparse
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.data.encoding import encode_image
from scripting import command, make_parser, publish, run_script

#: Of `cnnsvm.evaluation.corruptions`; the others are made here.
CORRUPTIONS = (
    *("jpeg-95", "jpeg-90", "jpeg-75", "jpeg-60", "webp-80", "resize-0.75", "resize-0.5"),
    *("screenshot", "crop"),
)
SMALLEST, MESSENGER_SIDE = 64, 1280  # pixels
UNSURE, NO_TRACE = "unsure", "no_trace"
OUTCOMES = ("same", "another fake", "unsure", "opposite")

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("images", nargs="+", metavar="NAME=FOLDER", help="images of a kind")
    parser.add_argument("--out", type=Path, required=True, help="run directory")
    parser.add_argument("--most", type=int, default=24, help="images of a kind [%(default)s]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def redeliver(pixels: np.ndarray, seed: int) -> Iterator[tuple[str, Any]]:
    """Yield the name of each re-delivery and what arrives: pixels, or the bytes of a file."""
    from cnnsvm.evaluation.corruptions import corrupt

    for name in CORRUPTIONS:
        yield name, corrupt(pixels, name, seed)
    image = Image.fromarray(pixels)
    small = image.copy()
    small.thumbnail((MESSENGER_SIDE, MESSENGER_SIDE))
    yield "messenger", _jpeg(Image.open(io.BytesIO(_jpeg(small, 80))), 70)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    yield (
        "turned by EXIF",
        encode_image(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif),
    )
    yield "png", encode_image(image, "PNG")


def _jpeg(image: Image.Image, quality: int) -> bytes:
    return encode_image(image, "JPEG", quality=quality)


def outcome(before: str, after: str) -> str:
    """Say what became of a sure verdict, one of `OUTCOMES`."""
    if after == before:
        return "same"
    if after == UNSURE:
        return "unsure"
    return "opposite" if NO_TRACE in (before, after) else "another fake"


def judge_all(detector: Any, args: argparse.Namespace) -> pd.DataFrame:
    """Judge every image and its re-deliveries: kind, path, treatment, before, after."""
    from cnnsvm.data.images import load_image
    from cnnsvm.data.scanning import list_images
    from cnnsvm.io.progress import show_progress

    listed = []
    for entry in args.images:
        kind, _, folder = entry.partition("=")
        paths = list_images(folder)
        order = np.random.default_rng(args.seed).permutation(len(paths))[: args.most]
        listed += [(kind, paths[i]) for i in np.sort(order)]
    rows = []
    for kind, path in show_progress(listed, len(listed), "images"):
        pixels = load_image(path)
        if min(pixels.shape[:2]) < SMALLEST:
            raise ValueError(f"{path}: a side is below {SMALLEST} pixels. Leave it out.")
        (before,) = detector.verdict([path])
        for name, copy in redeliver(pixels, args.seed):
            (after,) = detector.verdict([copy])
            rows.append([kind, str(path), name, before, after])
    return pd.DataFrame(rows, columns=["kind", "path", "treatment", "before", "after"])


def make_report(table: pd.DataFrame) -> Any:
    """Count what became of sure verdicts, by treatment and by kind."""
    from cnnsvm.io.tables import to_csv
    from cnnsvm.report.model import Report, Section, Table

    sure = table[table["before"] != UNSURE].copy()
    sure["outcome"] = [outcome(*pair) for pair in zip(sure["before"], sure["after"], strict=True)]

    def shares(by: str) -> Any:
        rows = [
            [name, len(part), *(float((part["outcome"] == each).mean()) for each in OUTCOMES)]
            for name, part in sure.groupby(by, sort=False)
        ]
        return Table([by, "sure verdicts", *OUTCOMES], rows)

    n_images = table["path"].nunique()
    opposite = int((sure["outcome"] == "opposite").sum())
    return Report(
        {"command": command(), "images": n_images},
        "Stability",
        findings=[
            f"Of {len(sure)} re-deliveries of images with a sure verdict, {opposite} turned "
            "it to its opposite."
        ],
        sections=[
            Section("By treatment", [shares("treatment")]),
            Section("By kind", [shares("kind")]),
        ],
        files={"stability.csv": to_csv(table)},
        name="stability",
    )


def run(args: argparse.Namespace) -> int:
    """Judge and report."""
    from cnnsvm import CombinedDetector

    table = judge_all(CombinedDetector.from_pretrained(args.device), args)
    publish(args.out, make_report(table))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
