r"""Make the detector that ships with the package: many engines, one seed, every step repeatable.

    python experiments/train_decoders.py --data paintings.zip --out runs/decoders
    python experiments/collect_photographs.py UNPACKED --out photographs
    python experiments/train_bundle.py --data paintings.zip photographs --file inpainting.webp \
        --decoders runs/decoders --out runs/bundle
    cp -r runs/bundle/weights cnnsvm/

Each image is repainted by every engine, whole and spliced, half of the time as it is and half
of the time from a copy that was reduced first, whose past JPEG compression shows less. With
--network the network of a saved detector is kept as it is, and a new classifier is fitted on
windows that show every pixel: of sources that the network has not learnt from, if it is to be
calibrated. Run again with the same engines and --out, it resumes.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripting import add_machine_flags, command, find_commit, make_parser, run_script

#: Engines that need no weights; those of --decoders and the finished images of --file join them.
ENGINES = ("opencv-telea", "opencv-ns", "self-blend")
#: Engines whose whole output is no fake of its own: it is the spliced one, or a resized original.
ONLY_SPLICED = ("opencv-telea", "opencv-ns", "self-blend")
#: Generators that repaint the first data alone: twenty passes an image are seconds a megapixel.
SLOW = ("denoiser",)
#: Masks that are dealt to the engines in turn: large ones, and small ones anywhere.
SCHEMAS = (
    *("random_patches", "rectangles:0.05-0.2", "strokes:0.05-0.2", "diagonal_upper_left"),
    *("strokes:0.1-0.4", "rectangles:0.1-0.4", "diagonal_lower_right"),
)
TUNING: dict[str, Any] = {
    "augmentation": "robust",
    "pairs_per_source": 4,
    "epochs": 24,
    "patience": 24,
    "learning_rate": 1e-3,
}
EMBEDDER: dict[str, Any] = {
    "crop_size": 128,
    "n_crops": 9,
    "pooling": "mean_std_top",
    "batch_size": 48,
}
#: Of a network that is kept: windows that show every pixel.
KEPT: dict[str, Any] = {
    "finetune": "none",
    "crop_size": 128,
    "n_crops": None,
    "pooling": "mean_std_top_peak",
    "batch_size": 48,
}
CLASSIFIER: dict[str, Any] = {"kernel": "linear", "n_trials": 6}
N_VIEWS = 4
AUGMENTATION = "reshared"  # of the views
MAX_ERROR = 0.05
NAME = "cnnsvm"
#: Of the JSON; "steps" are the commands before this one, the others are `CardFacts`'s.
CARD_FIELDS = (
    *("name", "summary", "trained_on", "tested_on", "test_protocol", "limits", "tags"),
    "steps",
)

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data", nargs="+", required=True, help="originals: records, images, or archives of them"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of records and weights")
    parser.add_argument("--decoders", type=Path, help="folder that train_decoders.py wrote")
    parser.add_argument(
        "--file", help="finished repaintings beside the originals of the first data, as a pattern"
    )
    parser.add_argument("--network", help="saved detector whose network is kept, such as cnnsvm")
    parser.add_argument(
        "--card", type=Path, help="JSON of what the model card says: summary, tested_on, limits..."
    )
    parser.add_argument("--records-only", action="store_true", help="make records, train nothing")
    add_machine_flags(parser)
    return parser.parse_args(argv)


def list_engines(args: argparse.Namespace) -> list[str]:
    """Return the engines of all data, in the order in which mask schemas are dealt to them."""
    engines = []
    if args.decoders is not None:
        models = sorted(path.parent for path in args.decoders.glob("*/config.json"))
        if not models:
            raise ValueError(
                f"{args.decoders} holds no generators. Make them by experiments/train_decoders.py."
            )
        engines += [f"decoder:{model}" for model in models]
    return [*engines, *ENGINES]


def read_originals(args: argparse.Namespace) -> list[Any]:
    """Return the originals of each data set; an image that is in two has one source in both."""
    from cnnsvm.data.readers import open_dataset
    from transfer_study.joining import join_manifests

    parts = [
        open_dataset(path, args.out / "data" / str(number), skip_bad=True, only_originals=True)
        for number, path in enumerate(args.data)
    ]
    joined, _ = join_manifests(parts)
    ends = np.cumsum([len(part) for part in parts])
    return [joined.iloc[end - len(part) : end] for part, end in zip(parts, ends, strict=True)]


def make_records(args: argparse.Namespace) -> Any:
    """Repaint every original by every engine and return the manifest of all of it."""
    from cnnsvm.data.manifest import write_manifest
    from decoders.family import build_family

    engines = list_engines(args)
    quick = [engine for engine in engines if Path(engine).name not in SLOW]
    files = [] if args.file is None else [f"file:{args.file}"]
    made = []
    for number, originals in enumerate(read_originals(args)):
        logger.info("data %d of %d: %s", number + 1, len(args.data), args.data[number])
        part = build_family(
            originals,
            args.out / "records" / str(number),
            quick if number else [*files, *engines],
            only_spliced=ONLY_SPLICED,
            schemas=SCHEMAS,
            random_state=args.seed,
        )
        made.append(part.assign(data=str(number)))
    manifest = pd.concat(made, ignore_index=True)
    write_manifest(manifest, args.out / "records" / "manifest.parquet")
    logger.info("%d images from %d sources", len(manifest), manifest["source_id"].nunique())
    return manifest


def read_card(args: argparse.Namespace) -> dict[str, Any]:
    """Read the fields of a `CardFacts`; JSON has lists for (value, low, high)."""
    from cnnsvm.detection.model_card import CardFacts, Measured

    fields = {} if args.card is None else json.loads(args.card.read_text("utf-8"))
    if not isinstance(fields, dict):
        raise ValueError(f"{args.card} must hold an object of {', '.join(CARD_FIELDS)}.")
    unknown = sorted(set(fields) - set(CARD_FIELDS))
    if unknown:
        raise ValueError(f"{args.card}: unknown {unknown}; a card has {', '.join(CARD_FIELDS)}.")
    rows = fields.get("tested_on", [])
    for row in rows:
        row["numbers"] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in row["numbers"].items()
        }
    fields["tested_on"] = [Measured(**row) for row in rows]
    steps = fields.pop("steps", [])
    CardFacts(**fields)
    fields["command"] = "\n".join([*steps, command()])
    return fields


def describe(args: argparse.Namespace, manifest: Any, fields: dict[str, Any]) -> Any:
    """Write the model card."""
    from cnnsvm.detection.model_card import CardFacts

    lines = list(fields.get("trained_on", ()))
    for number, part in manifest.groupby("data"):
        engines = sorted(part["engine"].dropna().unique())
        lines.append(
            f"{part['source_id'].nunique()} sources of {name_of(args.data[int(number)])}, "
            f"repainted by {len(engines)} engines: {', '.join(engines)}."
        )
    return CardFacts(
        **{"name": NAME, **fields, "trained_on": lines},
        seed=args.seed,
        commit=find_commit(Path(__file__).resolve().parent),
    )


def name_of(data: str) -> str:
    """Name a data set, a single file by its hash too."""
    from cnnsvm.io.files import file_hash

    path = Path(data)
    return f"{path.name} (SHA-256 {file_hash(path)})" if path.is_file() else path.name


def run(args: argparse.Namespace) -> int:
    """Make records, train, save."""
    from cnnsvm import FineTuning, InpaintDetector, ResidualStatistics, TunedSVC

    fields = read_card(args)  # better now than after the training
    manifest = make_records(args)
    if args.records_only:
        return 0
    own: dict[str, Any] = {"finetune": FineTuning(**TUNING), **EMBEDDER}
    if args.network is not None:
        own = {"weights": args.network, **KEPT}
    detector = InpaintDetector(
        ResidualStatistics(device=args.device, **own),
        TunedSVC(**CLASSIFIER),
        n_views=N_VIEWS,
        augmentation=AUGMENTATION,
        max_error=MAX_ERROR,
        cache_dir=args.out / "cache",
        random_state=args.seed,
    )
    detector.fit(
        manifest["path"].tolist(), manifest["variant"].to_numpy(), groups=manifest["source_id"]
    )
    folder = detector.save_pretrained(args.out / "weights", describe(args, manifest, fields))
    print(f"{folder}: inner AUC {detector.classifier_.best_score_:.4f}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
