r"""Make the detector that ships with the package: many engines, one seed, every step repeatable.

    python experiments/train_decoders.py --data paintings.zip --out runs/decoders
    python experiments/train_bundle.py --data paintings.zip --file inpainting.webp \
        --decoders runs/decoders --out runs/bundle
    cp -r runs/bundle/weights cnnsvm/

Each painting is repainted by every engine, whole and spliced, half of the time as it is and half
of the time from a copy that was reduced first, whose past JPEG compression shows less. Run again
with the same engines and --out, it goes on where it was.
"""

import argparse
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from cnnsvm.cli.errors import guard

#: Engines that need no weights; those of --decoders and the finished pictures of --file join them.
ENGINES = ("opencv-telea", "opencv-ns", "self-blend")
#: Engines whose whole output is no fake of its own: it is the spliced one, or a resized original.
ONLY_SPLICED = ("opencv-telea", "opencv-ns", "self-blend")
DETECTOR: dict[str, Any] = {
    "backbone": "statistics",
    "weights": None,
    "finetune": "full",
    "augmentation": "robust",
    "crop_size": 128,
    "n_crops": 9,
    "pooling": "mean_std_top",
    "n_views": 4,
    "pairs_per_source": 4,
    "epochs": 24,
    "patience": 24,
    "learning_rate": 1e-3,
    "batch_size": 48,
    "kernel": "linear",
    "n_trials": 6,
    "max_error": 0.05,
}
NAME = "cnnsvm-paintings"

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="originals: records, images or an archive")
    parser.add_argument("--out", type=Path, required=True, help="folder of records and weights")
    parser.add_argument("--decoders", type=Path, help="folder that train_decoders.py wrote")
    parser.add_argument("--file", help="finished repaintings beside the originals, as a pattern")
    parser.add_argument("--tested-on", type=Path, help="JSON of measured numbers for the card")
    parser.add_argument("--records-only", action="store_true", help="make records, train nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    return parser.parse_args(argv)


def list_engines(args: argparse.Namespace) -> list[str]:
    """Return every engine, in the order in which mask schemas are dealt to them."""
    engines = [] if args.file is None else [f"file:{args.file}"]
    if args.decoders is not None:
        models = sorted(path.parent for path in args.decoders.glob("*/config.json"))
        if not models:
            raise ValueError(
                f"{args.decoders} holds no generators. Make them by experiments/train_decoders.py."
            )
        engines += [f"decoder:{model}" for model in models]
    return [*engines, *ENGINES]


def make_records(args: argparse.Namespace) -> Any:
    """Repaint every original by every engine and return the manifest of all of it."""
    from cnnsvm.datasets import merge_near_duplicates, open_dataset
    from cnnsvm.generation.family import build_family
    from cnnsvm.records import write_manifest

    engines = list_engines(args)
    originals = merge_near_duplicates(
        open_dataset(args.data, args.out / "data", skip_bad=True, only_originals=True)
    )
    manifest = build_family(
        originals,
        args.out / "records",
        engines,
        only_spliced=ONLY_SPLICED,
        random_state=args.seed,
    )
    write_manifest(manifest, args.out / "records" / "manifest.parquet")
    logger.info("%d images from %d sources", len(manifest), manifest["source_id"].nunique())
    return manifest


def read_measured(args: argparse.Namespace) -> list[Any]:
    """Read the rows of the card's table of results; JSON has lists for (value, low, high)."""
    from cnnsvm.model_card import Measured

    rows = [] if args.tested_on is None else json.loads(args.tested_on.read_text("utf-8"))
    for row in rows:
        row["numbers"] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in row["numbers"].items()
        }
    return [Measured(**row) for row in rows]


def describe(args: argparse.Namespace, manifest: Any, measured: list[Any]) -> Any:
    """Write the model card."""
    from cnnsvm.model_card import ModelCard

    engines = sorted(manifest["engine"].dropna().unique())
    return ModelCard(
        name=NAME,
        trained_on=[
            f"{manifest['source_id'].nunique()} paintings in the public domain, repainted by "
            f"{len(engines)} engines: {', '.join(engines)}."
        ],
        tested_on=measured,
        command=shlex.join(["python", *sys.argv]),
        seed=args.seed,
    )


def run(args: argparse.Namespace) -> int:
    """Make records, train, save."""
    from cnnsvm import InpaintDetector
    from cnnsvm.pretrained import hash_images

    measured = read_measured(args)  # better now than after the training
    manifest = make_records(args)
    if args.records_only:
        return 0
    detector = InpaintDetector(
        **DETECTOR, device=args.device, cache_dir=args.out / "cache", random_state=args.seed
    )
    detector.fit(
        manifest["path"].tolist(), manifest["variant"].to_numpy(), groups=manifest["source_id"]
    )
    originals = manifest[manifest["label"] == 0].drop_duplicates("sha256")
    detector.trained_on_ = hash_images(originals["path"].tolist())
    folder = detector.save_pretrained(args.out / "weights", describe(args, manifest, measured))
    print(f"{folder}: inner AUC {detector.svm_.best_score_:.4f}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    args = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    return guard("train_bundle.py", lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
