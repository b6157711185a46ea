r"""Which network should tell generated images? Accuracy, megabytes and milliseconds side by side.

    python experiments/generated_towers.py --tower clip_encoder.int8.onnx --out runs/towers \
        --lite lite0=efficientnet-lite0-57934424.pth lite2=efficientnet-lite2-9656183e.pth \
        --grids sd_art --real "monet=paintings.zip::monet_*" ... --fake sd_art=sd_art.zip ...

All other arguments are those of generated.py, whose protocol it is. CLIP's tower is judged in as
many bits as it could be stored in; EfficientNet-Lite by its head, by a block, and as ridge
regression makes CLIP's embedding of all its blocks (of the images that the classifier sees).
Networks compute in bfloat16, which moves an embedding less than four bits do. Run again, it
resumes.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from generated import EMBEDDER, TOWER_LAYER, TRAINED_AFTER, add_flags, collect_all, embed
from scripting import run_script

#: Bits of the weights of CLIP's tower, and of those of its attention.
BITS = {"float32": (32, 32), "int8": (8, 8), "mixed": (4, 8), "int4": (4, 4)}
TREATMENTS = (*TRAINED_AFTER, "jpeg-85")
REFERENCE = "CLIP float32"
N_TIMED = 24
#: Of the ridge regression, chosen by generalised cross-validation.
PENALTIES = np.logspace(0, 5, 11)

logger = logging.getLogger(__name__)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = add_flags(__doc__)
    parser.add_argument("--lite", nargs="*", default=[], metavar="NAME=FILE", help="lite0, lite2")
    return parser.parse_args(argv)


def make(backbone: Any, layer: int | None = None) -> Any:
    """Make an embedder of whole images."""
    from cnnsvm import CNNEmbedder

    how: dict[str, Any] = {"finetune": "none", "device": "cpu", "precision": "bfloat16"}
    return CNNEmbedder(backbone, truncate_at=layer, random_state=0, **how, **EMBEDDER)


class Row(NamedTuple):
    """A network: bytes of its weights, embeddings after each treatment, an embedder to time."""

    size: int
    embeddings: dict[str, np.ndarray]
    embedder: Any


def clip_rows(args: argparse.Namespace, table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """Embed by CLIP's tower in each number of bits."""
    from generated_study.tower import write_tower

    cache = args.out / "cache"
    for name, bits in BITS.items():
        folder = args.out / f"clip_{name}"
        size = write_tower(args.tower, folder, TOWER_LAYER, *bits)
        embedder = make(f"hf:{folder}", TOWER_LAYER)
        yield f"CLIP {name}", Row(size, embed(embedder, table, TREATMENTS, cache), embedder)


def lite_rows(args: argparse.Namespace, table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """Embed by EfficientNet-Lite: its head, its last block at a sixteenth of the side, and all."""
    from generated_study.lite import BLOCKS, Lite

    for name, file in (entry.split("=", 1) for entry in args.lite):
        whole = Lite(name, Path(file), BLOCKS[name])
        everything = embed(make(whole), table, TREATMENTS, args.out / "cache")
        ends = np.cumsum(whole.widths)
        forms = {
            "head": (slice(ends[-1], None), Lite(name, Path(file), ())),
            "block": (slice(*ends[1:3]), Lite(name, Path(file), BLOCKS[name][2:3], head=False)),
            "all": (slice(None), whole),
        }
        for form, (columns, network) in forms.items():
            some = {key: values[:, columns] for key, values in everything.items()}
            size = 2 * sum(values.numel() for values in network.parameters())
            yield f"{name} {form}", Row(size, some, make(network))


class Student:
    """Fits the classifier to what ridge regression makes of embeddings: those of a teacher."""

    def __init__(self, teacher: dict[str, np.ndarray], paths: pd.Series) -> None:
        self.teacher, self.rows = teacher, {path: row for row, path in enumerate(paths)}

    def __call__(self, embeddings: np.ndarray, table: pd.DataFrame, copies: int, seed: int) -> Any:
        """Do as `generated_study.study.fit`; the regression sees the same images."""
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        from generated_study.study import fit

        rows = [self.rows[path] for path in table["path"][: len(table) // copies]]
        target = np.concatenate([self.teacher[name][rows] for name in TRAINED_AFTER])
        ridge = make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(embeddings, target)
        classifier, rejection = fit(ridge.predict(embeddings), table, copies, seed)
        return Regressed(ridge, classifier), rejection


class Regressed(NamedTuple):
    """A classifier of what a regression makes of embeddings."""

    regression: Any
    classifier: Any

    def decision_function(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the log-odds, (n,)."""
        return self.classifier.decision_function(self.regression.predict(embeddings))


def mean_auc(judged: pd.DataFrame, fake: str, n_resamples: int = 1000) -> np.ndarray:
    """Return the ROC AUC, each kind of real image counted once, and that of resampled sources.

    Of equal images, the draws are those of any other network: differences are paired.
    """
    rng = np.random.default_rng(0)
    means = judged.groupby(["left_out", "kind", "group", "path"], as_index=False)
    scores = means["probability"].mean()

    def draw(part: pd.DataFrame) -> np.ndarray:
        names, sources = np.unique(part["group"].astype(str), return_inverse=True)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), n_resamples)
        return np.vstack([np.ones(len(part)), drawn[:, sources]])

    found, fake_weights = [], None
    for left, part in scores.groupby("left_out"):
        reals, fakes = part[part["kind"] == left], part[part["kind"] == fake]
        fake_weights = draw(fakes) if fake_weights is None else fake_weights
        real, weights = reals["probability"].to_numpy(), draw(reals)
        above = np.sign(fakes["probability"].to_numpy() - real[:, None]) / 2 + 0.5
        total = ((weights @ above) * fake_weights).sum(axis=1)
        found.append(total / (weights.sum(axis=1) * fake_weights.sum(axis=1)))
    return np.mean(found, axis=0)


def interval(values: np.ndarray) -> dict[str, float]:
    """Return the value and the ends of the 95 % interval of what `mean_auc` returns."""
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def describe(judged: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    """Sum up a network, each kind of real image counted once, beside the one to compare with."""
    from generated_study.report import kinds_of_fakes, mean
    from generated_study.study import GENERATED, UNSURE, summarise

    found: dict[str, Any] = {}
    for treatment in ("clean", "jpeg-85"):
        own, other = (t[t["treatment"] == treatment] for t in (judged, reference))
        part = summarise(own)
        for fake in kinds_of_fakes(part):
            values, others = mean_auc(own, fake), mean_auc(other, fake)
            found[f"{treatment}: ROC AUC, {fake}"] = interval(values)
            found[f"{treatment}: less the reference, {fake}"] = interval(values - others)
            found[f"{treatment}: {fake} found"] = mean(part, f"{fake} {GENERATED}")
        shares = [value["value"] for value in part[f"real {GENERATED}"]]
        found[f"{treatment}: real said generated"] = mean(part, f"real {GENERATED}")
        found[f"{treatment}: of the worst kind"] = max(shares)
        found[f"{treatment}: real unsure"] = mean(part, f"real {UNSURE}")
    return found


def milliseconds(rows: dict[str, Row], images: list[str]) -> dict[str, float]:
    """Return the median time of one processor for an image, decoding too, measured in turns."""
    import torch

    torch.set_num_threads(1)
    for row in rows.values():
        row.embedder.set_params(precision="float32").fit(None)  # as it ships
    spent: dict[str, list[float]] = {name: [] for name in rows}
    for path in images:
        for name, row in rows.items():
            started = time.process_time()
            row.embedder.transform([path])
            spent[name].append(1000 * (time.process_time() - started))
    return {name: statistics.median(values) for name, values in spent.items()}


def run(args: argparse.Namespace) -> int:
    """Judge each network and time it."""
    from cnnsvm.io.files import write_text
    from generated_study.report import flat
    from generated_study.study import leave_kinds_out

    table = collect_all(args)
    table = table[table["role"] == "train"].reset_index(drop=True)
    rows = dict([*clip_rows(args, table), *lite_rows(args, table)])
    teacher = rows[REFERENCE].embeddings
    judged = {}
    for name, row in rows.items():
        settings = (row.embeddings, table, TRAINED_AFTER, args.seed)
        judged[name] = leave_kinds_out(*settings)
        if name.endswith(" all"):
            student = Student(teacher, table["path"])
            judged[f"{name}, as CLIP"] = leave_kinds_out(*settings, fit=student)
    images = table["path"].sample(N_TIMED, random_state=args.seed).tolist()
    spent = milliseconds(rows, images)
    lines = []
    for name, of_network in judged.items():
        plain = name.removesuffix(", as CLIP")
        row = rows[plain]
        width = row.embeddings["clean"].shape[1] if name != plain else 0
        size = (row.size + 2 * width * teacher["clean"].shape[1]) / 1e6
        time_of = spent[plain] / spent[REFERENCE]
        line = {"network": name, "MB": size, "time": time_of, "ms": spent[plain]}
        lines.append(line | describe(of_network, judged[REFERENCE]))
    text = flat(pd.DataFrame(lines)).to_csv(index=False)
    write_text(args.out / "towers.csv", text)
    print(text)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
