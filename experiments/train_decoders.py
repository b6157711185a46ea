"""Train a family of small generators on one's own originals: many decoders, many fingerprints.

    python experiments/train_decoders.py --data records.zip --out decoders
    cnnsvm build photos fakes --engine decoder:decoders/nearest-8-kl-pyramid

Eight autoencoders that differ in how they enlarge, in bottleneck and loss, and a denoiser, each
saved in a folder of its own when it is done. Run again with the same --out, it resumes.
The ratios at the end are of images that the generators were trained on.
"""

import argparse
import functools
import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripting import add_machine_flags, make_parser, run_script

N_STEPS = 2200
N_MEASURED = 16
MOST_MEASURED = 512  # pixels a side
#: upsampling, factor, bottleneck, loss; each has the seed of the run plus its place in the list.
SPECS: tuple[tuple[Any, ...], ...] = (
    ("nearest", 8, "kl", "pyramid"),
    ("transposed", 4, "vq", "l1"),
    ("pixelshuffle", 8, "kl", "adversarial"),
    ("bilinear", 4, "kl", "pyramid"),
    ("nearest", 4, "vq", "adversarial"),
    ("transposed", 8, "kl", "l1"),
    ("pixelshuffle", 4, "kl", "l1"),
    ("bilinear", 8, "vq", "pyramid"),
)
DENOISER_SEED = 9  # plus the seed of the run

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data",
        required=True,
        help="manifest, records, images, or an archive of one; the originals alone are used",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the generators")
    parser.add_argument(
        "--steps", type=int, default=N_STEPS, help="batches of 16 crops [%(default)s]"
    )
    add_machine_flags(parser)
    parser.add_argument("--precision", default="auto", help="of the training [%(default)s]")
    return parser.parse_args(argv)


def read_originals(data: str, out: Path, seed: int) -> tuple[list[Any], str]:
    """Return the images of a data set's originals, and a digest of what they are."""
    from cnnsvm.data.readers import open_dataset
    from cnnsvm.generation.sources import find_sources
    from decoders.training import read_images

    with tempfile.TemporaryDirectory(prefix="train-decoders-") as work:
        manifest = open_dataset(data, work, skip_bad=True, only_originals=True)
        sources, _ = find_sources(manifest, out.absolute())
        images = read_images([source.path for source in sources], random_state=seed)
    digest = hashlib.sha256("".join(sorted(source.sha256 for source in sources)).encode())
    return images, digest.hexdigest()[:16]


def plan(args: argparse.Namespace, images: list[Any]) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Return for each generator's name its seed and what trains it."""
    from cnnsvm.features.devices import choose_device, choose_precision
    from cnnsvm.generation.engines.decoder_networks import DecoderSpec, Denoiser
    from decoders.training import train_autoencoder, train_denoiser

    device = choose_device(args.device)
    dtype = choose_precision(args.precision, device)
    logger.info("%d images, on %s, %s", len(images), device, dtype)
    options: dict[str, Any] = {"n_steps": args.steps, "device": device, "dtype": dtype}
    made: dict[str, tuple[int, Callable[[], Any]]] = {}
    for seed, values in enumerate(SPECS, start=args.seed):
        spec = DecoderSpec(*values)
        train = functools.partial(train_autoencoder, spec, images, random_state=seed, **options)
        made[spec.name] = seed, train
    seed = args.seed + DENOISER_SEED
    train_last = functools.partial(train_denoiser, images, random_state=seed, **options)
    return made | {Denoiser.name: (seed, train_last)}


def is_there(folder: Path, settings: dict[str, Any]) -> bool:
    """Tell whether a generator was trained before, and refuse one of other settings."""
    from cnnsvm.generation.engines.decoder import load_decoder, read_training

    if not folder.exists():
        return False
    load_decoder(folder)  # a damaged one is told before hours go by
    found = read_training(folder)
    differ = [key for key, value in settings.items() if found.get(key) != value]
    if differ:
        listed = ", ".join(f"{key} {found.get(key)!r}, not {settings[key]!r}" for key in differ)
        raise ValueError(
            f"{folder} was trained with other settings ({listed}). Choose another output folder."
        )
    return True


def measure(folder: Path, images: Sequence[Any], device: str) -> float:
    """Return the mean PSNR in decibels of some of the images, cut to 512 pixels a side."""
    from cnnsvm.generation.engines.decoder import decoder_engine

    some = images[:: max(len(images) // N_MEASURED, 1)][:N_MEASURED]
    cut = [image[:MOST_MEASURED, :MOST_MEASURED] for image in some]
    return mean_psnr(decoder_engine(folder, device=device), cut)


def mean_psnr(engine: Any, images: Sequence[Any]) -> float:
    """Return the mean PSNR of an engine's outputs; the positions of the images are the seeds."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    found = []
    for seed, image in enumerate(images):
        output = engine(image, np.ones(image.shape[:2], dtype=bool), seed)
        found.append(peak_signal_noise_ratio(image, output, data_range=255))
    return float(np.mean(found))


def run(args: argparse.Namespace) -> int:
    """Read, train what is missing, measure, tell."""
    from cnnsvm.generation.engines.decoder import read_training, save_decoder

    images, data = read_originals(args.data, args.out, args.seed)
    planned = plan(args, images)
    settings: dict[str, dict[str, Any]] = {
        name: {"n_steps": args.steps, "random_state": seed, "data": data}
        for name, (seed, _) in planned.items()
    }
    ready = {name for name in planned if is_there(args.out / name, settings[name])}
    table = [f"{'generator':30} {'seed':>5} {'seconds':>8} {'PSNR, dB':>9}"]
    for name, (seed, train) in planned.items():
        folder = args.out / name
        if name not in ready:
            started = time.perf_counter()
            model = train()
            seconds = round(time.perf_counter() - started, 1)
            save_decoder(model, folder, settings[name] | {"seconds": seconds})
        seconds, psnr = read_training(folder)["seconds"], measure(folder, images, args.device)
        how = "was there" if name in ready else f"{seconds:.0f} s"
        logger.info("%s: %s, PSNR %.2f dB", name, how, psnr)
        table.append(f"{name:30} {seed:5} {seconds:8.1f} {psnr:9.2f}")
    print("\n".join(table))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
