r"""Was an image generated as a whole? Judge kinds and generators left out, then make the detector.

    python experiments/generated.py --tower clip_encoder.int8.onnx --grids sd_art \
        --real "monet=paintings.zip::monet_*" vangogh=vangogh.zip camera=camera \
        --fake sd_art=sd_art.zip families=generated --control bsds=photos.zip \
        --out runs/generated
    cp -r runs/generated/weights/* cnnsvm/detection/weights/generated/

The embedding is the class token of layer 10 of CLIP's image tower, of the whole image; the
classifier is a linear support vector machine. Each kind of real image is left out in turn, see
generated_study/study.py. A --control is judged and never trained on. Run again with the same --out,
it resumes.
"""

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripting import add_machine_flags, command, make_parser, publish, run_script

TOWER_LAYER = 10
#: What the tower is, in the name of the backbone that is saved; it is loaded without the hub.
PUBLISHED = "hf:openai/clip-vit-base-patch16"
#: The whole image: its shorter side to 256 pixels, the middle 224 of them.
EMBEDDER: dict[str, Any] = {"resize": 256, "crop_size": 224, "n_crops": 1, "pooling": "mean"}
#: Treatments whose copies are trained on. Without WebP's, real images in WebP are called generated.
TRAINED_AFTER = ("clean", "webp-55")
#: Of a stored weight: 45 MB are what the package may carry.
BITS = 4

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    return add_flags(__doc__).parse_args(argv)


def add_flags(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser: what is compared, and where results go."""
    parser = make_parser(doc)
    parser.add_argument(
        "--tower", type=Path, required=True, help="ONNX file of the wheel, or folder of a tower"
    )
    for name, what, needed in (
        ("real", "kinds of real images", True),
        ("fake", "generators", True),
        ("control", "real images that are judged alone", False),
    ):
        help_text = f"{what}: name and data set of each"
        parser.add_argument(
            f"--{name}", nargs="+", default=[], required=needed, metavar="NAME=DATA", help=help_text
        )
    parser.add_argument("--grids", nargs="+", default=[], help="kinds with 2 x 2 images in a file")
    parser.add_argument(
        "--groups",
        nargs="+",
        default=[],
        metavar="NAME=PATTERN",
        help="what in the files' names of a kind is the source, such as families='(.+)__'",
    )
    parser.add_argument("--most", type=int, default=120, help="images of a kind [%(default)s]")
    parser.add_argument("--out", type=Path, required=True, help="run directory")
    add_machine_flags(parser)
    return parser


def collect_all(args: argparse.Namespace) -> pd.DataFrame:
    """List all images with the role that they have."""
    from generated_study.images import collect

    roles = {"real": ("train", 0), "fake": ("train", 1), "control": ("control", 0)}
    groups = dict(entry.split("=", 1) for entry in args.groups)
    parts = []
    for flag, (role, label) in roles.items():
        kinds = dict(entry.split("=", 1) for entry in getattr(args, flag))
        if kinds:
            options = {"grids": args.grids, "groups": groups, "seed": args.seed}
            options["most"] = args.most if flag == "real" else None
            parts.append(collect(kinds, label, args.out / "data", **options).assign(role=role))
    return pd.concat(parts, ignore_index=True)


def make_embedder(args: argparse.Namespace) -> Any:
    """Make the unfitted embedder; its tower has the weights that it will have once saved."""
    from cnnsvm import CNNEmbedder
    from generated_study.tower import write_tower

    folder = args.tower
    if args.tower.is_file():
        folder = args.out / f"tower_{BITS}"
        if not (folder / "preprocessor_config.json").is_file():  # the last of its files
            write_tower(args.tower, folder, TOWER_LAYER, BITS)
    return CNNEmbedder(
        f"hf:{folder}",
        truncate_at=TOWER_LAYER,
        finetune="none",
        device=args.device,
        precision="float32",
        random_state=args.seed,
        **EMBEDDER,
    )


def embed(
    embedder: Any, table: pd.DataFrame, treatments: Iterable[str], cache: Path
) -> dict[str, np.ndarray]:
    """Embed all images after each treatment, float32 (n, d); a repeated call reads them."""
    from cnnsvm.data.images import image_hash
    from cnnsvm.features.embedding_store import embed_stored
    from generated_study.images import Treated

    embedder.fit(None)
    paths = table["path"].tolist()
    hashes = [image_hash(path) for path in paths]
    found = {}
    for name in treatments:
        logger.info("%d images, %s", len(paths), name)
        keys = [f"{each} {name}" for each in hashes]
        found[name] = embed_stored(embedder, Treated(paths, name), keys, cache)
    return found


def fit_final(args: argparse.Namespace, table: pd.DataFrame) -> Any:
    """Fit the detector on all that may be trained on, after all treatments that are trained on."""
    from cnnsvm import InpaintDetector, TunedSVC
    from generated_study.images import treated
    from generated_study.study import CLASSIFIER, GENERATED, MAX_ERROR, ORIGINAL, domains

    seen = table[table["role"] == "train"]
    images = [treated(path, name) for name in TRAINED_AFTER for path in seen["path"]]
    labels = np.where(seen["label"] == 1, GENERATED, ORIGINAL)
    detector = InpaintDetector(
        make_embedder(args),
        TunedSVC(**CLASSIFIER),
        max_error=MAX_ERROR,
        cache_dir=args.out / "cache",
        random_state=args.seed,
    )
    copies = len(TRAINED_AFTER)
    detector.fit(images, np.tile(labels, copies), np.tile(domains(seen), copies))
    detector.embedder_[0].set_params(backbone=PUBLISHED)  # not a folder of this machine
    return detector


def run(args: argparse.Namespace) -> int:
    """Embed, judge what is left out, report, fit on everything, save."""
    from cnnsvm.io.files import write_text
    from generated_study.card import describe
    from generated_study.images import TREATMENTS
    from generated_study.report import generated_report
    from generated_study.study import leave_kinds_out, summarise

    table = collect_all(args)
    embeddings = embed(make_embedder(args), table, TREATMENTS, args.out / "cache")
    judged = leave_kinds_out(embeddings, table, TRAINED_AFTER, args.seed)
    write_text(args.out / "judged.csv", judged.to_csv(index=False))
    summary = summarise(judged)
    publish(args.out, generated_report(table, summary, judged, TRAINED_AFTER, command()))
    card = describe(table, summary, judged, args.seed)
    folder = fit_final(args, table).save_pretrained(args.out / "weights", card, bits=BITS)
    print(folder)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
