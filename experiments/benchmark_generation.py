"""Measure masks and OpenCV generation against a straightforward loop.

    python experiments/benchmark_generation.py
    python experiments/benchmark_generation.py --data photos --images 40

The loop is what one writes first, and what the study behind this project did: rectangles are drawn
with Pillow until enough pixels are white, which are counted in pure Python after each; one image
at a time, on one core. Both sides draw the same kinds of masks, repaint with the same OpenCV
method, and write the same files. Rounds alternate, and the medians and their ratio are told:
on a shared machine the ratio says more than either number.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from cnnsvm.data.images import load_image
from cnnsvm.data.readers import write_samples
from cnnsvm.data.scanning import list_images
from cnnsvm.generation import MASK_SCHEMAS, MISSION_SCHEMAS, build
from cnnsvm.generation.record import draw_panel

SIDE = 512  # pixels of the masks, the working size of Stable Diffusion 2
N_MASKS = 10
N_IMAGES = 24
N_ROUNDS = 5


def loop_mask(schema: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a mask the straightforward way."""
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    corners = {
        "diagonal_upper_right": [(0, 0), (width, 0), (width, height)],
        "diagonal_lower_left": [(0, 0), (0, height), (width, height)],
        "diagonal_upper_left": [(0, 0), (width, 0), (0, height)],
        "diagonal_lower_right": [(width, 0), (width, height), (0, height)],
    }
    if schema in corners:
        draw.polygon(corners[schema], fill=255)
        return np.asarray(image) > 0
    wanted = rng.uniform(0.4, 0.6) * width * height
    while sum(1 for value in image.tobytes() if value == 255) < wanted:
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = (int(rng.integers(max(s // 16, 1), max(s // 4, 1) + 1)) for s in (width, height))
        draw.rectangle((x, y, x + w, y + h), fill=255)
    return np.asarray(image) > 0


def loop_build(paths: list[Path], folder: Path) -> None:
    """Make records the straightforward way: everything in turn."""
    rng = np.random.default_rng(0)
    for number, path in enumerate(paths):
        record = folder / str(number)
        record.mkdir(parents=True)
        image = load_image(path)
        Image.fromarray(image).save(record / "original.png", compress_level=1)
        height, width, _ = image.shape
        for schema in MISSION_SCHEMAS:
            mask = loop_mask(schema, height, width, rng)
            fake = cv2.inpaint(image, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)
            fake = np.where(mask[:, :, None], fake, image)
            panel = draw_panel([("original", image), ("mask", mask), ("inpainting", fake)])
            grey = np.where(mask, 255, 0).astype(np.uint8)
            for name, pixels in (("inpainting", fake), ("mask", grey), ("group", panel)):
                Image.fromarray(pixels).save(record / f"{name}_{schema}.png", compress_level=1)


def time_masks(draw: Callable[..., np.ndarray], schemas: tuple[str, ...]) -> float:
    """Return masks a second."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for number in range(N_MASKS):
        draw(schemas[number % len(schemas)], SIDE, SIDE, rng)
    return N_MASKS / (time.perf_counter() - start)


def our_mask(schema: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a mask as `cnnsvm.generation.build` does."""
    return MASK_SCHEMAS[schema](height, width, rng)


def time_builds(paths: list[Path], work: Path, number: int) -> tuple[float, float]:
    """Return inpaintings a second of the loop and of the library, each into a new folder."""
    n_fakes = len(paths) * len(MISSION_SCHEMAS)
    start = time.perf_counter()
    loop_build(paths, work / f"loop{number}")
    middle = time.perf_counter()
    build(paths, work / f"ours{number}", n_jobs=-1, progress=False)
    return n_fakes / (middle - start), n_fakes / (time.perf_counter() - middle)


def report(what: str, rounds: list[tuple[float, float]]) -> None:
    """Print medians and the median of the rounds' ratios."""
    loop, ours = (statistics.median(side) for side in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    print(f"{what:44} {loop:10.1f} {ours:10.1f} {ratio:8.1f}x")


def main(argv: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of images [the embedded samples]")
    parser.add_argument("--images", type=int, default=N_IMAGES)
    parser.add_argument("--rounds", type=int, default=N_ROUNDS)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    print(
        f"{'a second, medians of ' + str(args.rounds) + ' rounds':44} {'loop':>10} {'cnnsvm':>10}"
    )
    for what, schemas in (
        (f"random_patches masks, {SIDE}x{SIDE}", ("random_patches",)),
        (f"the five masks in turn, {SIDE}x{SIDE}", MISSION_SCHEMAS),
    ):
        pairs = [
            (time_masks(loop_mask, schemas), time_masks(our_mask, schemas))
            for _ in range(args.rounds)
        ]
        report(what, pairs)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = args.data or Path(write_samples(work / "samples")["path"].iloc[0]).parent
        paths = [Path(path) for path in list_images(data)][: args.images]
        pairs = [time_builds(paths, work, number) for number in range(args.rounds)]
    report(f"inpaintings of {len(paths)} images, files written", pairs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
