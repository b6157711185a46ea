r"""Make the localiser that ships: many engines and codecs, judged on engines and images left out.

    python experiments/train_bundle.py --data camera kodak --decoders runs/decoders \
        --out runs/made --records-only
    python experiments/localizer.py --records runs/made/records/manifest.parquet \
        --test migan=unseen/migan.csv --out runs/localizer
    cp runs/localizer/weights/* cnnsvm/localization/weights/

Of each source some untouched, spliced and regenerated images are learnt from, cut to 512 pixels. A
--test is a manifest of other images with masks, judged as they are and after JPEG, and never learnt
from. Run again with the same --out, it resumes.
"""

import argparse
import logging
from typing import Any

import numpy as np
import pandas as pd

from scripting import (
    add_machine_flags,
    add_records_flags,
    command,
    make_parser,
    publish,
    run_script,
)

ARCHITECTURE, SIZE = "nixnet", "2m"
CROP_SIZE, BATCH_SIZE = 128, 16
TRAINING: dict[str, Any] = {
    "augmentation": "robust",
    "learning_rate": 2e-3,
    "warmup": 0.3,
    "validation_fraction": 0.1,
    "n_crops": 2,
}
#: Images of each source that are learnt from, at most.
MOST_OF = {"original": 1, "spliced": 3, "regenerated": 1}
MOST_SIDE = 512  # pixels of what is cut out of a larger image
BITS = 16  # of a stored weight
QUALITIES = (None, 85, 75)  # of the JPEG that a test goes through

CARD = """# The localiser that ships: where an image was repainted

NIX-Net of 1.8 million weights ({bits} bits each) in native resolution: the probability of each
pixel that an engine repainted it. A pixel is called repainted from {threshold:.2f} up. Licence:
BSD-3-Clause.

Learnt from {n_images} images of {n_sources} sources, photographs of cameras and of web themes,
Kodak scans and paintings, whose licences allow it, repainted in part or whole by these engines:

{engines}

Patches were resized by 0.5 to 2, blurred, made noisy and saved as JPEG 30-100 or WebP 50-100.
Engines unlike these are found poorly, and untouched images may be marked: a map is a hint where to
look, never proof. What was measured on images that it was not trained on:

```
{report}```
"""

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_records_flags(parser, "manifests of fakes with masks", most=220)
    parser.add_argument("--epochs", type=int, default=14, help="[%(default)s]")
    add_machine_flags(parser)
    return parser.parse_args(argv)


def draw_images(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw the images of each source that are learnt from, with their truth."""
    from cnnsvm.evaluation.localization_records import WHOLE, with_truth

    table = with_truth(records, (WHOLE,))[0].sample(frac=1, random_state=seed)
    place = table.groupby(["source_id", "variant"]).cumcount()
    return table[place < table["variant"].map(MOST_OF)].reset_index(drop=True)


def load_examples(table: pd.DataFrame, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read images with their masks, and cut both to `MOST_SIDE` pixels."""
    from cnnsvm.data.images import load_image
    from cnnsvm.evaluation.localization_records import load_truth

    rng = np.random.default_rng(seed)
    images, masks = [], []
    for row in table.to_dict("records"):
        pixels, mask = load_image(row["path"]), load_truth(row)
        top, left = (int(rng.integers(max(1, side - MOST_SIDE + 1))) for side in mask.shape)
        cut = slice(top, top + MOST_SIDE), slice(left, left + MOST_SIDE)
        images.append(np.ascontiguousarray(pixels[cut]))
        masks.append(np.ascontiguousarray(mask[cut]))
    return images, masks


def fit(args: argparse.Namespace, table: pd.DataFrame) -> Any:
    """Train on the images of a table."""
    from cnnsvm import InpaintLocalizer, LocalizerTraining

    localizer = InpaintLocalizer(
        ARCHITECTURE,
        size=SIZE,
        training=LocalizerTraining(epochs=args.epochs, patience=args.epochs, **TRAINING),
        crop_size=CROP_SIZE,
        batch_size=BATCH_SIZE,
        threshold="iou",
        device=args.device,
        cache_dir=args.out / "cache",
        random_state=args.seed,
    )
    images, masks = load_examples(table, args.seed)
    return localizer.fit(images, masks, groups=table["source_id"].to_numpy())


def judge_test(localizer: Any, name: str, table: pd.DataFrame, seed: int) -> list[list[Any]]:
    """Judge images of a manifest as they are and after JPEG: rows of the report."""
    from cnnsvm.evaluation.localization_judging import judge
    from cnnsvm.evaluation.localization_metrics import summarise

    rows = []
    for quality in QUALITIES:
        found = summarise(judge(localizer, table, quality=quality), random_state=seed)
        inside, outside = found["per_image"], found["untouched"]
        scores = (inside["auc"], inside["iou"], inside["f1"], outside["false_alarm"])
        after = "nothing" if quality is None else f"JPEG {quality}"
        n_fakes = found["n_images"] - found["n_untouched"]
        rows.append([name, after, n_fakes, found["n_untouched"], *scores])
    return rows


def make_report(rows: list[list[Any]]) -> Any:
    """List what was measured."""
    from cnnsvm.report.model import Report, Section, Table

    header = [
        *("images", "after", "repainted", "untouched", "pixel ROC AUC", "IoU", "F1"),
        "false pixels of untouched",
    ]
    note = "Means over images, 95 % intervals over sources."
    section = Section("Other images", [Table(header, rows), note])
    facts = {"command": command()}
    return Report(facts, "The localiser that ships", sections=[section], name="localizer")


def run(args: argparse.Namespace) -> int:
    """Train, judge other images, report, save."""
    from cnnsvm.data.manifest import read_manifest
    from cnnsvm.evaluation.localization_records import WHOLE, with_truth
    from cnnsvm.report import render_text
    from transfer_study.joining import draw_sources

    entries = dict(entry.split("=", 1) for entry in args.test)
    tests = {name: with_truth(read_manifest(file), (WHOLE,))[0] for name, file in entries.items()}
    parts = []
    for number, file in enumerate(args.records):
        part = draw_sources(read_manifest(file), args.most, args.seed)
        parts.append(part.assign(source_id=f"{number}/" + part["source_id"]))
    records = pd.concat(parts, ignore_index=True)
    table = draw_images(records, args.seed)
    logger.info("%d images of %d sources", len(table), table["source_id"].nunique())
    localizer = fit(args, table)
    weights = localizer.save_pretrained(args.out / "weights", bits=BITS)
    localizer = type(localizer).from_pretrained(weights)  # what ships is what is judged
    rows = [row for test in tests.items() for row in judge_test(localizer, *test, args.seed)]
    report = make_report(rows)
    publish(args.out, report)
    facts = {
        "bits": BITS,
        "threshold": localizer.threshold_,
        "n_images": len(table),
        "n_sources": table["source_id"].nunique(),
        "engines": "\n".join(f"- `{name}`" for name in sorted(table["engine"].dropna().unique())),
    }
    card = CARD.format(**facts, report=render_text(report))
    localizer.save_pretrained(weights, bits=BITS, card=card)
    print(weights)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv), epochs=True)


if __name__ == "__main__":
    raise SystemExit(main())
