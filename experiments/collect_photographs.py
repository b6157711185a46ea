"""Find the photographs that the shipped detector was trained on, beside paintings.

    python experiments/collect_photographs.py UNPACKED --out photographs

photographs.csv lists 198 photographs inside freely licensed packages: which package, which
version, which file. Unpack those packages anywhere in one folder; files are known by their
content, so their places do not matter. Small photographs are copied byte for byte. Large ones are
reduced and encoded anew, each in its own way, as they would be for a page on the web.
"""

import argparse
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.data.encoding import encode_image
from cnnsvm.data.images import load_image
from cnnsvm.data.scanning import SUFFIXES
from cnnsvm.io.files import write_bytes
from scripting import make_parser, run_script

LIST = Path(__file__).with_name("photographs.csv")
#: Longest side of what is copied as it is, and the range of what larger ones are reduced to.
LONGEST, SIDES = 1000, (480, 1000)
KERNELS = (
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
)
SHARPENED, LOSSLESS, WHOLE_CHROMA = 0.3, 0.15, 0.3  # probabilities
AMOUNT, SIGMA = (0.2, 0.8), (0.6, 1.2)  # of the sharpening
QUALITY = (70, 97)  # of the JPEGs, both included

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("unpacked", type=Path, help="folder of the unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="folder of the photographs")
    parser.add_argument("--list", type=Path, default=LIST, help="table of them [%(default)s]")
    parser.add_argument(
        "--allow-missing", action="store_true", help="go on without those not found"
    )
    return parser.parse_args(argv)


def find_files(folder: Path, wanted: set[str]) -> dict[str, Path]:
    """Return the images below a folder whose SHA-256 is wanted, by that."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. Unpack the packages of {LIST.name} into one.")
    found = {}
    for path in _images_below(folder):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest in wanted:
            found[digest] = path
    return found


def publish(image: np.ndarray, rng: np.random.Generator) -> tuple[bytes, str]:
    """Reduce a photograph and encode it as somebody would who puts it on a page.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3), RGB
    rng : numpy Generator

    Returns
    -------
    bytes
        A JPEG or, sometimes, a PNG, 480 to 1,000 pixels on the longer side.
    str
        Its suffix.
    """
    factor = min(1.0, np.exp(rng.uniform(*np.log(SIDES))) / max(image.shape))
    width, height = (max(1, round(side * factor)) for side in image.shape[1::-1])
    kernel = KERNELS[int(rng.integers(len(KERNELS)))]
    small = np.asarray(Image.fromarray(image).resize((width, height), kernel))
    if rng.random() < SHARPENED:
        soft = cv2.GaussianBlur(small, (0, 0), rng.uniform(*SIGMA))
        amount = rng.uniform(*AMOUNT)
        small = cv2.addWeighted(small, 1 + amount, soft, -amount, 0)
    if rng.random() < LOSSLESS:
        return encode_image(small, "PNG"), ".png"
    chroma = "4:4:4" if rng.random() < WHOLE_CHROMA else "4:2:0"
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    return encode_image(small, "JPEG", quality=quality, subsampling=chroma), ".jpg"


def collect(path: Path, name: str, folder: Path) -> Path:
    """Copy a photograph, or publish a large one; the draws follow from its content."""
    content = path.read_bytes()
    image = load_image(path)
    suffix = path.suffix.lower()
    if max(image.shape) > LONGEST:
        seed = int(hashlib.sha256(content).hexdigest()[:12], 16)
        content, suffix = publish(image, np.random.default_rng(seed))
    target = folder / f"{name}{suffix}"
    write_bytes(target, content)
    return target


def run(args: argparse.Namespace) -> int:
    """Look for the photographs and write them."""
    listed: Any = pd.read_csv(args.list)
    found = find_files(args.unpacked, set(listed["sha256"]))
    missing = listed[~listed["sha256"].isin(set(found))]
    for (source, package, version), rows in missing.groupby(["from", "package", "version"]):
        logger.warning("%s: %d missing, of %s's %s", package, len(rows), source, version)
    if len(missing) and not args.allow_missing:
        raise ValueError(
            f"{len(missing)} of {len(listed)} photographs are not below {args.unpacked}. Unpack "
            "the packages named above there, or go on without them by --allow-missing."
        )
    for row in listed[listed["sha256"].isin(set(found))].itertuples():
        name = f"{row.package}-{Path(row.file).stem}-{row.sha256[:8]}".replace(" ", "-")
        collect(found[row.sha256], name, args.out)
    print(f"{args.out}: {len(found)} of {len(listed)} photographs")
    return 0


def _images_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
                yield path


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
