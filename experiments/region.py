r"""Make the detector of repainted regions that ships: patches of a transformer, engines left out.

    python experiments/train_bundle.py --data camera kodak --decoders runs/decoders \
        --out runs/made --records-only
    python experiments/region.py --records runs/made/records/manifest.parquet \
        --test migan=unseen/migan.csv --out runs/region
    cp runs/region/weights/* cnnsvm/detection/weights/region/

Of each source some views of the original and of spliced fakes are learnt from, degraded alike
(`AUGMENTATIONS["reshared"]`). Scores that calibrate are of sources and engines left out. A --test
is a manifest of other images, judged as they are and after JPEG 85, and never learnt from; one
without fakes sets the threshold at which 5 % of its images are false alarms.
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

AUGMENTATION = "reshared"
#: Views of the original and of one fake each, of a source.
N_ORIGINALS, N_FAKES = 2, 2
MOST_SIDE = 768  # pixels of what is cut out of a large image
MAX_ERROR = 0.05
TREATMENTS = ("as they are", "JPEG 85")
FALSE_ALARMS = 0.05

CARD = """# region: repainted regions, by the patches of a transformer

Says of an image whether a part of it looks repainted: unlike its surroundings in what layer 8 of
CLIP's image tower (ViT-B/16, OpenAI, MIT licence; the one of the detector `generated`) sees in each
patch. A linear support vector machine tells repainted patches from untouched ones; the tenth of the
patches with the highest margins is the score. It is calibrated on sources and engines left out, as
if untouched images and fakes were equally frequent. Licence: BSD-3-Clause.

Learnt from camera, Kodak, web and painting images whose licences allow it, spliced by eight engines
(five small autoencoders, two inpainting methods of OpenCV, self-blending; web images by the last
three alone), degraded as images are on their way. Of engines unlike these it finds few; a verdict
is a hint, never proof, and untouched images may be named. What was measured:

```
{report}```
"""

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add_records_flags(parser, "manifests of spliced fakes", most=110)
    add_machine_flags(parser)
    return parser.parse_args(argv)


def make_views(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw the views: path, mask_path, engine (None of an original), source_id and plan."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, part in records.groupby("source_id", sort=True):
        originals = part[part["label"] == 0].drop_duplicates("sha256")
        fakes = part[part["variant"] == "spliced"]
        chosen = [originals.iloc[rng.integers(len(originals))] for _ in range(N_ORIGINALS)]
        chosen += [fakes.iloc[k] for k in rng.permutation(len(fakes))[:N_FAKES]]
        for number, row in enumerate(chosen):
            plan = 0 if number in (0, N_ORIGINALS) else int(rng.integers(2**31))
            rows.append({**row[["path", "mask_path", "engine"]], "source_id": source, "plan": plan})
    return pd.DataFrame(rows)


def load_view(view: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image and its mask, cut both, and degrade the image by the plan (0: not at all)."""
    from cnnsvm.data.images import load_image
    from cnnsvm.features.augmentation import AUGMENTATIONS, apply_to_whole, draw_plan

    pixels = load_image(view.path)
    mask = load_image(view.mask_path)[:, :, 0] > 127 if isinstance(view.mask_path, str) else None
    rng = np.random.default_rng(view.plan)
    top, left = (int(rng.integers(max(1, side - MOST_SIDE + 1))) for side in pixels.shape[:2])
    cut = slice(top, top + MOST_SIDE), slice(left, left + MOST_SIDE)
    pixels, mask = pixels[cut], None if mask is None else mask[cut]
    if view.plan:
        pixels = apply_to_whole(pixels, draw_plan(AUGMENTATIONS[AUGMENTATION], rng))
    return pixels, mask


def make_tower(args: argparse.Namespace) -> Any:
    """Make the embedder of the detector of generated images."""
    from cnnsvm.detection.pretrained import frozen_embedders

    (embedder,) = frozen_embedders("generated")
    return embedder.set_params(device=args.device)


def fit(args: argparse.Namespace, views: pd.DataFrame) -> Any:
    """Fit the detector on the views."""
    from cnnsvm import RegionDetector

    detector = RegionDetector(make_tower(args), max_error=MAX_ERROR, random_state=args.seed)
    pairs = [load_view(view) for view in views.itertuples()]
    engines = views["engine"].fillna("none")
    images, masks = zip(*pairs, strict=True)
    return detector.fit(list(images), masks, views["source_id"], engines)


def judge(detector: Any, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Judge the images of a manifest, as they are and after JPEG 85; a row each.

    ``pixels`` is the ROC AUC of a fake's map inside its mask, NaN without a mask.
    """
    from cnnsvm.data.images import load_image
    from cnnsvm.features.augmentation import recompress

    parts = []
    for treatment in TREATMENTS:
        images = [load_image(path) for path in table["path"]]
        if treatment != TREATMENTS[0]:
            images = [recompress(image, "jpeg", 85) for image in images]
        judged = detector.judge(images)
        found = {
            "label": table["label"].to_numpy(),
            "decision": judged.decisions,
            "named": judged.codes.astype(bool) & ~judged.is_unsure,
            "unsure": judged.is_unsure,
            "pixels": [
                rank_pixels(detector, image, row.mask_path) if row.label else np.nan
                for image, row in zip(images, table.itertuples(), strict=True)
            ],
        }
        parts.append(pd.DataFrame(found).assign(images=name, treatment=treatment))
    return pd.concat(parts, ignore_index=True)


def rank_pixels(detector: Any, image: np.ndarray, mask_path: Any) -> float:
    """Score how the map of a fake ranks repainted pixels above the rest, NaN if it cannot."""
    from sklearn.metrics import roc_auc_score

    from cnnsvm.data.images import load_image

    if not isinstance(mask_path, str):
        return float("nan")
    mask = load_image(mask_path)[:, :, 0] > 127
    if mask.all() or not mask.any():
        return float("nan")
    return float(roc_auc_score(mask.ravel(), detector.explain(image).ravel()))


def list_kinds(judged: pd.DataFrame) -> list[list[Any]]:
    """List what is said of fakes and of untouched images, and how they are ranked."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for (name, treatment), both in judged.groupby(["images", "treatment"], sort=False):
        is_pair = both["label"].nunique() == 2
        auc = float(roc_auc_score(both["label"], both["decision"])) if is_pair else None
        for label, kind in ((1, "fake"), (0, "untouched")):
            part = both[both["label"] == label]
            if len(part):
                means = part[["named", "unsure", "pixels"]].astype(float).mean()
                inside = None if np.isnan(means["pixels"]) else float(means["pixels"])
                said = [float(means["named"]), float(means["unsure"])]
                rows.append([name, treatment, kind, len(part), *said, auc, inside])
    return rows


def list_caught(judged: pd.DataFrame) -> list[list[Any]]:
    """List the share above what 5 % of the tests without a fake exceed, after each treatment."""
    with_fakes = judged.groupby("images")["label"].transform("max") == 1
    rows = []
    for (name, treatment), both in judged[with_fakes].groupby(["images", "treatment"], sort=False):
        fresh = judged[~with_fakes & (judged["treatment"] == treatment)]["decision"]
        if len(fresh):
            above = both["decision"] > fresh.quantile(1 - FALSE_ALARMS)
            shares = above.groupby(both["label"]).mean()
            rows.append([name, treatment, len(fresh), float(shares[1]), shares.get(0)])
    return rows


def rank_left_out(detector: Any, views: pd.DataFrame) -> pd.DataFrame:
    """Score how views of sources and engines left out were ranked above untouched ones."""
    from sklearn.metrics import roc_auc_score

    fake = views["engine"].notna().to_numpy()
    rows = []
    for engine, part in [*views[fake].groupby("engine"), ("all", views[fake])]:
        scores = np.concatenate([detector.cv_decision_[part.index], detector.cv_decision_[~fake]])
        labels = np.repeat([1, 0], [len(part), (~fake).sum()])
        rows.append([engine, len(part), float(roc_auc_score(labels, scores))])
    return pd.DataFrame(rows, columns=["engine", "views", "ROC AUC"])


def make_report(detector: Any, left_out: pd.DataFrame, judged: pd.DataFrame | None) -> Any:
    """List what was ranked when it was left out, and the tests."""
    from cnnsvm.report.model import Report, Section, Table

    sections = [Section("Engines left out", [Table([*left_out], left_out.to_numpy().tolist())])]
    if judged is not None:
        said = ["said to be spliced", "unsure", "ROC AUC", "pixel ROC AUC"]
        kinds = Table(["images", "treatment", "kind", "n", *said], list_kinds(judged))
        shares = ["fresh images", "fakes", "their originals"]
        caught = Table(["images", "treatment", *shares], list_caught(judged))
        sections.append(Section("Other images", [kinds]))
        sections.append(Section("Caught at 5 % false alarms on images without fakes", [caught]))
    return Report(
        {"command": command()},
        "Repainted regions",
        findings=[f"A verdict needs a probability of {detector.rejection_threshold_:.3f}."],
        sections=sections,
        name="region",
    )


def fit_or_load(args: argparse.Namespace) -> tuple[Any, pd.DataFrame]:
    """Fit the detector and rank what was left out, or read both if an earlier call did it."""
    from cnnsvm import RegionDetector
    from cnnsvm.data.manifest import read_manifest
    from cnnsvm.io.bundle import holds_model
    from cnnsvm.io.files import write_text
    from transfer_study.joining import draw_sources

    weights, table = args.out / "weights", args.out / "left_out.csv"
    if holds_model(weights) and table.is_file():
        logger.info("taken from %s", weights)
        return RegionDetector.from_pretrained(make_tower(args), weights), pd.read_csv(table)
    parts = [draw_sources(read_manifest(file), args.most, args.seed) for file in args.records]
    records = pd.concat(parts, ignore_index=True)
    views = make_views(records, args.seed)
    logger.info("%d views of %d sources", len(views), views["source_id"].nunique())
    detector = fit(args, views)
    left_out = rank_left_out(detector, views)
    write_text(table, left_out.to_csv(index=False))
    detector.save_pretrained(weights)
    return detector, left_out


def run(args: argparse.Namespace) -> int:
    """Fit, judge other images, report, save."""
    from cnnsvm.data.manifest import read_manifest
    from cnnsvm.report import render_text

    entries = dict(entry.split("=", 1) for entry in args.test)
    tests = {name: read_manifest(manifest) for name, manifest in entries.items()}  # bad ones now
    detector, left_out = fit_or_load(args)
    judged = pd.concat([judge(detector, *test) for test in tests.items()]) if tests else None
    report = make_report(detector, left_out, judged)
    publish(args.out, report)
    detector.save_pretrained(args.out / "weights", CARD.format(report=render_text(report)))
    print(args.out / "weights")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
