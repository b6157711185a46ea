r"""Parts of a scan on Ray are killed at random: no row may be lost, or there twice.

    python experiments/scale_scan.py --images 1000000 --out runs/scale
    python experiments/scale_scan.py --images 1000000 --minutes 35 --out runs/scale
    python experiments/scale_scan.py --steps compare --images 10000 --out runs/overhead
    python experiments/scale_scan.py --steps scan --images 4000 --kills 1 --out runs/scale

Images are drawn, and linked under as many names as are asked for, so that each is decoded.
"compare": one process of each engine judges the same part of them in turns, with one thread of the
network each; the difference is what Ray takes. "scan": all are judged on Ray while workers, the
command and the raylet get SIGKILL at moments drawn over the whole run; a command that ended is
given again. --minutes ends the scan, whose finished part is checked; what is left is extrapolated.
What was found is written to report.json, memory.csv and memory.png, however it ends. Memory is
private memory. Status 1 if a row is lost or twice.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.io.files import write_json
from scale_study.images import A_FOLDER, draw_images, fit_small, image_name
from scale_study.killing import Course, Scan, count
from scripting import command, make_parser, run_script

STEPS = ("compare", "scan")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--images", type=int, default=1_000_000, help="[%(default)s]")
    add("--distinct", type=int, default=2000, help="drawn images [%(default)s]")
    add("--side", type=int, default=32, help="pixels of them [%(default)s]")
    what = "small: the first layers of a ResNet-18, fitted here in seconds; or a name or a folder"
    add("--model", default="small", help=f"{what} [%(default)s]")
    add("--batch-size", type=int, default=64, help="[%(default)s]")
    add("--workers", type=int, default=2, help="[%(default)s]")
    add("--partition-size", type=int, default=1000, help="[%(default)s]")
    add("--steps", nargs="+", choices=STEPS, default=STEPS, help="[both]")
    add("--kills", type=int, default=3, help="of each kind [%(default)s]")
    add("--minutes", type=float, help="after which the scan is ended [none]")
    add("--compared", type=int, default=10_000, help="images of a round [%(default)s]")
    add("--rounds", type=int, default=5, help="of both engines [%(default)s]")
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, help="a new folder")
    return parser.parse_args(argv)


def call(args: argparse.Namespace, places: list[Path], out: Path, n_workers: int) -> list[str]:
    """Return the command that judges images, by one process for 0 workers, else on Ray."""
    program = [sys.executable, "-m", "cnnsvm", "predict", *map(str, places), "--quiet"]
    program += ["--model", str(args.model), "--batch-size", str(args.batch_size)]
    program += ["--device", "cpu", "--out", str(out)]
    size = ["--partition-size", str(args.partition_size)]
    return (
        [*program, "--engine", "ray", "--workers", str(n_workers), *size] if n_workers else program
    )


def rate(command: list[str], out: Path, rows_a_part: int) -> tuple[float, float]:
    """Run an engine; return images a second from the first rows on, and seconds in all."""
    began = time.perf_counter()
    marks: list[tuple[float, int]] = []
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=one, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.1)
            n_rows = (
                out.read_bytes().count(b"\n") - 1 if out.is_file() else count(out) * rows_a_part
            )
            if n_rows > 0 and (not marks or n_rows > marks[-1][1]):
                marks.append((time.perf_counter(), n_rows))
    if len(marks) < 2:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} and few rows.")
    (first, before), (last, after) = marks[0], marks[-1]
    return (after - before) / (last - first), time.perf_counter() - began


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Let both engines judge the same images in turns, and print the ratios and their median."""
    places = sorted(folder.iterdir())[: args.compared // A_FOLDER or 1]
    rounds = []
    for number in range(args.rounds):
        found: dict[str, float] = {}
        for engine in ("local", "ray") if number % 2 == 0 else ("ray", "local"):
            out = args.out / f"{engine}-{number}{'.csv' * (engine == 'local')}"
            program = call(args, places, out, int(engine == "ray"))
            speed, seconds = rate(program, out, args.partition_size)
            found |= {engine: speed, f"{engine}_seconds": seconds}
        rounds.append(found)
        print(
            f"round {number + 1}: {found['local']:.0f} images a second locally "
            f"({found['local_seconds']:.0f} s in all), {found['ray']:.0f} on Ray "
            f"({found['ray_seconds']:.0f} s): {found['local'] / found['ray'] - 1:+.1%} time each",
            flush=True,
        )
    median = statistics.median(each["local"] / each["ray"] - 1 for each in rounds)
    print(f"median of {len(rounds)} rounds: {median:+.1%} time an image on Ray", flush=True)
    return rounds


def check(out: Path, folder: Path, n_images: int, size: int) -> dict[str, int]:
    """Count the images of finished partitions: done, without a row, with several, failed.

    Partition k holds the images from k times ``size`` on. One partition at a time is in memory.
    """
    times = np.zeros(n_images, dtype=np.uint8)
    wanted, n_failed = np.zeros(n_images, dtype=bool), 0
    for part in sorted(out.glob("part-*.parquet")):
        rows = pd.read_parquet(part, columns=["path", "error"])
        numbers = np.array([int(Path(path).stem) for path in rows["path"]])
        is_own = [
            image_name(folder, n) == path for n, path in zip(numbers, rows["path"], strict=True)
        ]
        np.add.at(times, numbers[is_own], 1)
        n_failed += int(rows["error"].notna().sum())
        start = int(part.name.split("-")[1]) * size
        wanted[start : start + size] = True
    return {
        "done": int((times > 0).sum()),
        "lost": int((wanted & (times == 0)).sum()),
        "twice": int((times > 1).sum()),
        "failed": n_failed,
    }


def plot(memory: pd.DataFrame, course: Course, file: Path) -> None:
    """Draw memory over time, and when something was killed."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.5))
    for kind in ("all", "worker", "driver", "raylet"):
        label = kind if kind == "all" else f"largest {kind}"
        axes.plot(memory["seconds"], memory.get(kind, 0 * memory["seconds"]), label=label)
    for kill in course.kills:
        axes.axvline(kill["seconds"], color="grey", linewidth=0.5)
    axes.set(xlabel="seconds (grey: a kill)", ylabel="MB", ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")
    plt.close(figure)


def scan(args: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Judge all images while parts are killed; add to what was found, however it ends."""
    n_parts = -(-args.images // args.partition_size)
    limit = None if args.minutes is None else 60 * args.minutes
    job = Scan(args.out / "scores", n_parts, args.kills, args.seed, limit)
    try:
        job.run(call(args, [folder], job.out, args.workers))
    finally:
        found |= report(args, folder, job.course)


def report(args: argparse.Namespace, folder: Path, course: Course) -> dict[str, Any]:
    """Check what is finished, print it, and write the files."""
    found: dict[str, Any] = check(args.out / "scores", folder, args.images, args.partition_size)
    speed = found["done"] / course.seconds
    found |= {"seconds": round(course.seconds), "images_a_second": round(speed, 1)}
    found |= {"is_whole": course.is_whole, "starts": course.n_starts, "kills": course.kills}
    print(
        f"{found['done']:,} of {args.images:,} images: {course.seconds:.0f} s, {speed:.0f} a second"
    )
    if not course.is_whole and speed:
        print(f"it ended early; at this rate all take {args.images / speed / 60:.0f} minutes")
    begun = max((kill["begun"] for kill in course.kills), default=0)
    print(f"killed: {course.killed()}; at most {begun} blocks were begun and not finished then")
    print(f"{found['lost']} lost, {found['twice']} twice, {found['failed']} failed", flush=True)
    if course.memory:
        memory = pd.DataFrame(course.memory).fillna(0)
        memory.to_csv(args.out / "memory.csv", index=False)
        plot(memory, course, args.out / "memory.png")
        found["memory"] = _medians(memory)
    return found


def _medians(memory: pd.DataFrame) -> list[dict[str, float]]:
    """Print and return median MB in five parts of the time, of moments when workers are there."""
    steady = memory[memory.get("worker", 0 * memory["seconds"]) > 0]
    rows = []
    for places in np.array_split(np.arange(len(steady)), 5):
        if len(part := steady.iloc[places]):
            kinds = {k: round(float(part[k].median())) for k in ("worker", "driver", "all")}
            rows.append({"from_second": round(part["seconds"].iloc[0])} | kinds)
            print(f"median MB: {rows[-1]}")
    return rows


def run(args: argparse.Namespace) -> int:
    """Compare, scan, and say what was lost."""
    if args.out.exists():
        raise ValueError(f"--out {args.out} is there already. Name a new folder.")
    args.out = args.out.absolute()
    folder = draw_images(args.out, args.images, args.distinct, args.side, args.seed)
    if args.model == "small":
        args.model = fit_small(args.out / "small", args.seed)
    print(command(), flush=True)
    found: dict[str, Any] = {"command": command()}
    try:
        if "compare" in args.steps:
            found["rounds"] = compare(args, folder)
        if "scan" in args.steps:
            scan(args, folder, found)
    finally:
        write_json(args.out / "report.json", found)
    return int(bool(found.get("lost") or found.get("twice")))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
