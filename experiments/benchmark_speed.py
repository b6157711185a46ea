"""Measure cnnsvm against what one would write with the libraries that it is built on.

    python experiments/benchmark_speed.py svm --rows 1200 2400 4800
    python experiments/benchmark_speed.py svm --rows 30378 --against sklearnex --cache-size 7400
        --rounds 1 --cold --other-trials 1
    python experiments/benchmark_speed.py embed --backbones resnet18 resnet50 clip
    python experiments/benchmark_speed.py start
    python experiments/benchmark_speed.py predict --images 20
    python experiments/benchmark_speed.py map --sides 2000 4000

``svm``: the tuning of an RBF machine against Optuna over scikit-learn's `StandardScaler` and `SVC`,
its folds in parallel, or over the `SVC` of scikit-learn-intelex, which is parallel itself; with
``--cold`` the first turn counts, for what takes minutes. ``embed``: images of 224 pixels, by each
of ``--ways`` and by a loop in float32 of 32 images at a time, or, of "clip", the tower that ships,
of one. ``start``: one image by `cnnsvm predict`, from a cold start, against the import of torch.
``predict``: so many images of 512 pixels in one call against one call an image. ``map``: large
images with a heatmap against without.
Both sides take turns; medians and their ratio are told: on a shared machine the ratio says more
than either number. The report, and a JSON file beside it, name the processor's flags and what
it reaches in products of matrices.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from scripting import command, make_parser, publish, run_script

Row = list[Any]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("what", choices=MEASURES)
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="of which medians are taken [%(default)s]")
    add("--rows", type=int, nargs="+", default=[1200, 2400, 4800], help="of svm [%(default)s]")
    add("--features", type=int, default=512, help="of svm [%(default)s]")
    add("--trials", type=int, default=40, help="of svm [%(default)s]")
    add("--folds", type=int, default=5, help="of svm [%(default)s]")
    most = "of the other side of svm, from which its time is extrapolated [%(default)s]"
    add("--other-trials", type=int, default=4, help=most)
    add("--against", choices=["sklearn", "sklearnex"], default="sklearn", help="whose SVC, of svm")
    add("--cache-size", type=float, default=4000, help="MB, of svm [%(default)s]")
    add("--cold", action="store_true", help="measure from the first turn on, of svm")
    add("--backbones", nargs="+", default=["resnet18", "resnet50", "vgg16"], help="of embed")
    ways = ["torch:auto", "openvino:float32", "openvino:auto", "openvino:int8"]
    add("--ways", nargs="+", default=ways, help="of embed, backend:precision [%(default)s]")
    add("--images", type=int, default=64, help="of embed and predict [%(default)s]")
    add("--sides", type=int, nargs="+", default=[1000, 2000, 4000], help="longer ones of map")
    add("--out", type=Path, default=Path("runs", "speed"), help="run directory [%(default)s]")
    return parser.parse_args(argv)


def take_turns(rounds: int, *sides: Callable[[], Any], cold: bool = False) -> list[float]:
    """Return the median seconds of each side, which take turns; if not ``cold``, after one more."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(cold, rounds + 1):
        for side, spent in zip(sides, times, strict=True):
            started = time.perf_counter()
            side()
            if turn:
                spent.append(time.perf_counter() - started)
    return [statistics.median(spent) for spent in times]


def draw_embeddings(n_rows: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw two overlapping classes, correlated as embeddings are."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n_rows)
    X = rng.normal(size=(n_rows, n_features))
    X[:, :10] += 0.7 * y[:, None]
    X[:, 10:40] += rng.normal(size=(n_rows, 1))
    return X, y


def measure_svm(args: argparse.Namespace) -> list[Row]:
    """Time searches of all sizes."""
    return [_measure_search(n_rows, args) for n_rows in args.rows]


def _measure_search(n_rows: int, args: argparse.Namespace) -> Row:
    import optuna
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from cnnsvm import TunedSVC

    svc = import_module(f"{args.against}.svm").SVC
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    X, y = draw_embeddings(n_rows, args.features)
    found: dict[str, float] = {}
    n_jobs = -1 if args.against == "sklearn" else 1

    def ours() -> None:
        how: dict[str, Any] = {"n_trials": args.trials, "cv": args.folds, "random_state": 0}
        model = TunedSVC(calibrate=False, cache_size=args.cache_size, **how).fit(X, y)
        found["ours"] = model.best_score_
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    def objective(trial: Any) -> float:
        machine = svc(
            C=trial.suggest_float("C", 1e-3, 1e3, log=True),
            gamma=trial.suggest_float("gamma", 1e-2, 1e1, log=True) / args.features,
            class_weight=trial.suggest_categorical("class_weight", [None, "balanced"]),
        )
        pipeline = make_pipeline(StandardScaler(), machine)
        scores = cross_val_score(pipeline, X, y, cv=args.folds, scoring="roc_auc", n_jobs=n_jobs)
        return float(scores.mean())

    def theirs() -> None:
        sampler = optuna.samplers.TPESampler(seed=0)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=args.other_trials)
        found["theirs"] = study.best_value

    own, other = take_turns(args.rounds, ours, theirs, cold=args.cold)
    other *= args.trials / args.other_trials
    note = f"against {args.against}; AUC {found['ours']:.4f}, {found['peak']:.1f} GB at most"
    return [f"{n_rows} x {args.features}", own, other, other / own, note]


def measure_embed(args: argparse.Namespace) -> list[Row]:
    """Time networks of random weights, and the tower that ships, on images in memory."""
    return [row for name in args.backbones for row in _measure_network(name, args)]


def _measure_network(name: str, args: argparse.Namespace) -> list[Row]:
    import torch
    import torchvision

    from cnnsvm import CNNEmbedder, InpaintDetector

    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (args.images, 224, 224, 3), dtype=np.uint8))
    how: dict[str, Any] = {"weights": None, "preprocessing": "imagenet", "batch_size": 32}
    if name == "clip":
        (embedder,) = InpaintDetector.from_pretrained("generated", device="cpu").embedder_
        network, at_once = embedder.network_.body, 1
        embedder = CNNEmbedder(**embedder.get_params(deep=False) | {"weights": "generated"})
    else:
        embedder = CNNEmbedder(name, finetune="none", crop_size=224, n_crops=1, device="cpu", **how)
        network, at_once = getattr(torchvision.models, name)(weights=None).eval(), 32
    mean, deviation = (torch.tensor(v)[:, None, None] for v in _IMAGENET)

    def loop() -> None:
        with torch.inference_mode():
            for start in range(0, len(images), at_once):
                batch = torch.from_numpy(np.stack(images[start : start + at_once]))
                network((batch.permute(0, 3, 1, 2) / 255 - mean) / deviation)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "int8.onnx")
        made = {way: _as_asked(embedder, way, images, file) for way in args.ways}
        turns = [partial(each.transform, images) for each in made.values()]
        *own, other = take_turns(args.rounds, *turns, loop)
    return [
        [f"{name}, 224 pixels, {way}", one, other, other / one, f"{len(images) / one:.1f} images/s"]
        for way, one in zip(made, own, strict=True)
    ]


def _as_asked(embedder: Any, way: str, images: list[np.ndarray], file: Path) -> Any:
    """Fit an embedder that has another backend and precision, "backend:precision"."""
    from sklearn.base import clone

    from cnnsvm.features.quantization import quantize

    backend, precision = way.split(":")
    if precision == "int8":
        embedder, precision = quantize(clone(embedder).fit(images), images[:16], file), "float32"
    return clone(embedder).set_params(backend=backend, precision=precision).fit(images[:2])


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def measure_start(args: argparse.Namespace) -> list[Row]:
    """Time a process that judges one image of 512 pixels, and one that only imports torch."""
    with tempfile.TemporaryDirectory() as folder:
        (image,) = _write_images(Path(folder), 1, (512, 512))
        calls = (["-m", "cnnsvm", "predict", image], ["-c", "import torch, torchvision"])
        own, other = take_turns(args.rounds, *(partial(_call, call) for call in calls))
    return [["predict, one image", own, other, other / own, "beside the import of torch"]]


def measure_predict(args: argparse.Namespace) -> list[Row]:
    """Time one call for all images, and a call an image."""
    with tempfile.TemporaryDirectory() as folder:
        images = _write_images(Path(folder), args.images, (512, 512))

        def one_by_one() -> None:
            for image in images:
                _call(["-m", "cnnsvm", "predict", image])

        own, other = take_turns(
            args.rounds, lambda: _call(["-m", "cnnsvm", "predict", *images]), one_by_one
        )
    rate = f"{args.images / own:.2f} images/s, start included"
    return [[f"predict, {args.images} images of 512", own, other, other / own, rate]]


def measure_map(args: argparse.Namespace) -> list[Row]:
    """Time `cnnsvm predict` with a heatmap and without, on images of 4 to 3."""
    rows = []
    for side in args.sides:
        with tempfile.TemporaryDirectory() as folder:
            (image,) = _write_images(Path(folder), 1, (side, side * 3 // 4))
            plain = ["-m", "cnnsvm", "predict", image]
            drawn = [*plain, "--heatmaps", str(Path(folder, "maps"))]
            own, other = take_turns(args.rounds, partial(_call, drawn), partial(_call, plain))
        times = f"a heatmap takes {own / other:.2f} times as long"
        rows.append([f"{side} x {side * 3 // 4}, heatmap", own, other, other / own, times])
    return rows


def _write_images(folder: Path, n_images: int, size: tuple[int, int]) -> list[str]:
    """Write JPEGs of soft shapes under noise."""
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for number in range(n_images):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        pixels += rng.integers(-6, 7, pixels.shape, dtype=np.int16)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(files[-1], quality=92)
    return [str(file) for file in files]


def _call(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: traces were found
        raise RuntimeError(f"{' '.join(arguments)[:200]} failed: {done.stderr[-2000:]}")


def measure_ceiling(side: int = 2048, rounds: int = 5) -> dict[str, float]:
    """Return the best GF/s of products of square matrices, by precision."""
    import torch

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        first, second = (torch.ones(side, side, dtype=dtype) for _ in range(2))
        times = []
        for _ in range(rounds + 1):
            started = time.perf_counter()
            first @ second
            times.append(time.perf_counter() - started)
        found[str(dtype).removeprefix("torch.")] = 2e-9 * side**3 / min(times[1:])
    return found


MEASURES = {
    "embed": measure_embed,
    "map": measure_map,
    "predict": measure_predict,
    "start": measure_start,
    "svm": measure_svm,
}


def run(args: argparse.Namespace) -> int:
    """Measure, report."""
    from cnnsvm.evaluation.protocol import describe_environment
    from cnnsvm.io.files import write_text
    from cnnsvm.io.machine import processor_flags
    from cnnsvm.report.model import Report, Section, Table

    header = ["what", "cnnsvm, s", "other, s", "times as fast", "note"]
    rows = MEASURES[args.what](args)
    facts = {"command": command(), "environment": describe_environment("cpu")}
    facts |= {"processor": processor_flags(), "load": f"{os.getloadavg()[0]:.1f} at the end"}
    ceiling = measure_ceiling()
    facts["products"] = ", ".join(f"{name} {rate:.0f} GF/s" for name, rate in ceiling.items())
    notes = [f"{name}: {facts[name]}" for name in ("processor", "load", "products")]
    section = Section(f"{args.what}: medians of {args.rounds}", [*notes, Table(header, rows)])
    publish(args.out, Report(facts, "Speed", sections=[section], name=args.what))
    table = [dict(zip(header, row, strict=True)) for row in rows]
    write_text(args.out / f"{args.what}.json", json.dumps(facts | {"rows": table}, indent=1))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
