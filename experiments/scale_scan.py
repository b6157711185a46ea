r"""Parts of a scan on Ray are killed at random: no row may be lost, or there twice.

    python experiments/scale_scan.py --images 1000000 --out runs/scale
    python experiments/scale_scan.py --images 4000 --kills 1 --rounds 1 --out runs/scale

Images are drawn, and linked under as many names as are asked for, so that each is decoded. First
one process of each engine judges the same part of them in turns, with one thread of the network
each: the difference is what Ray takes. Then all are judged on Ray while workers, the command and
the raylet get SIGKILL at random moments; a command that ended is given again. Memory is private
memory. Status 1 if a row is lost or twice.
"""

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scale_study.processes import alive, family, megabytes
from scripting import command, make_parser, run_script

logger = logging.getLogger(__name__)

_A_FOLDER, _STEP, _STUCK = 1000, 2.0, 180.0
Memory = list[dict[str, Any]]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=1_000_000, help="[%(default)s]")
    parser.add_argument("--distinct", type=int, default=2000, help="drawn images [%(default)s]")
    parser.add_argument("--side", type=int, default=32, help="pixels of them [%(default)s]")
    parser.add_argument("--model", default="cifake", help="a name or a folder [%(default)s]")
    parser.add_argument("--workers", type=int, default=2, help="[%(default)s]")
    parser.add_argument("--partition-size", type=int, default=1000, help="[%(default)s]")
    parser.add_argument("--kills", type=int, default=2, help="of each kind [%(default)s]")
    parser.add_argument("--pause", type=float, default=20, help="seconds between [%(default)s]")
    parser.add_argument(
        "--compared", type=int, default=8000, help="images of a round [%(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of both engines [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    return parser.parse_args(argv)


def draw(args: argparse.Namespace) -> Path:
    """Draw images, and link them under so many names."""
    from cnnsvm.data.encoding import encode_image
    from cnnsvm.io.files import write_bytes

    rng, drawn = np.random.default_rng(args.seed), []
    for number in range(min(args.distinct, args.images)):
        coarse = rng.integers(0, 256, (4, 4, 3)).repeat(args.side // 4, 0).repeat(args.side // 4, 1)
        noisy = np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)
        data = encode_image(noisy, "JPEG", quality=90)
        drawn.append(write_bytes(args.out / f"drawn/{number}.jpg", data))
    folder = args.out / "images"
    for number in range(args.images):
        place = folder / f"{number // _A_FOLDER:05}"
        if number % _A_FOLDER == 0:
            place.mkdir(parents=True)
        os.link(drawn[number % len(drawn)], place / f"{number:08}.jpg")
    return folder


def call(args: argparse.Namespace, places: list[Path], out: Path, *more: str) -> list[str]:
    """Return the command that judges images."""
    program = [sys.executable, "-m", "cnnsvm", "predict", *map(str, places)]
    return [*program, "--model", args.model, "--device", "cpu", "--out", str(out), *more]


def on_ray(n_workers: int, args: argparse.Namespace) -> list[str]:
    """Return the options of the engine."""
    size = str(args.partition_size)
    return ["--engine", "ray", "--workers", str(n_workers), "--partition-size", size, "--quiet"]


def rate(command: list[str], out: Path) -> tuple[float, float]:
    """Run an engine; return images a second from the first rows on, and seconds in all."""
    began = time.perf_counter()
    marks: list[tuple[float, int]] = []
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=one, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.05)
            n_rows = count(out)
            if n_rows and (not marks or n_rows > marks[-1][1]):
                marks.append((time.perf_counter(), n_rows))
    (first, before), (last, after) = marks[0], marks[-1]
    return (after - before) / (last - first), time.perf_counter() - began


def count(out: Path) -> int:
    """Count the rows so far of a file, or the partitions of a folder."""
    if out.is_file():
        return out.read_bytes().count(b"\n") - 1
    return len(list(out.glob("part-*.parquet")))


def compare(args: argparse.Namespace, folder: Path) -> None:
    """Let both engines judge the same images in turns, and print the ratio."""
    places = sorted(folder.iterdir())[: args.compared // _A_FOLDER or 1]
    for number in range(args.rounds):
        plain, parts = args.out / f"local-{number}.csv", args.out / f"ray-{number}"
        local, local_all = rate(call(args, places, plain, "--quiet"), plain)
        engine, ray_all = rate(call(args, places, parts, *on_ray(1, args)), parts)
        engine *= args.partition_size
        print(
            f"round {number + 1}: {local:.0f} images a second locally ({local_all:.0f} s in all), "
            f"{engine:.0f} on Ray ({ray_all:.0f} s): {local / engine - 1:+.0%} time an image",
            flush=True,
        )


def scan(args: argparse.Namespace, folder: Path) -> tuple[Memory, Counter[str], int]:
    """Judge all images while parts are killed; return memory over time, kills, blocks begun."""
    chance = random.Random(args.seed)
    plan = ["worker", "driver", "raylet"] * args.kills
    chance.shuffle(plan)
    out, memory, killed, n_begun = args.out / "scores", [], Counter[str](), 0
    began = time.monotonic()
    while True:
        process = subprocess.Popen(call(args, [folder], out, *on_ray(args.workers, args)))
        due, n_parts, moved = None, count(out), time.monotonic()
        known: dict[int, str] = {}
        while process.poll() is None:
            time.sleep(_STEP)
            now, known = time.monotonic(), family(process.pid)
            memory.append(_sample(known, now - began))
            if (n_now := count(out)) > n_parts:
                n_parts, moved = n_now, now
                due = due or now + chance.uniform(0.2, 1) * args.pause
            if now - moved > _STUCK:
                raise RuntimeError(f"no partition for {_STUCK:.0f} s: the scan is stuck.")
            if plan and due is not None and now > due:
                due = None
                n_begun += _kill(plan.pop(), known, chance, killed, out)
        if process.returncode in (0, 1) and count(out) * args.partition_size >= args.images:
            return memory, killed, n_begun
        _settle(known)
        if not killed.total():
            raise RuntimeError(f"the scan ended with {process.returncode} before any kill.")
        logger.info("ended with %d; given again, %d partitions", process.returncode, count(out))


def _sample(known: dict[int, str], seconds: float) -> dict[str, Any]:
    sizes: dict[str, list[float]] = {}
    for process, kind in known.items():
        sizes.setdefault(kind, []).append(megabytes(process))
    return (
        {"seconds": seconds}
        | {kind: max(found) for kind, found in sizes.items()}
        | {"all": sum(map(sum, sizes.values()))}
    )


def _kill(
    kind: str, known: dict[int, str], chance: random.Random, killed: Counter[str], out: Path
) -> int:
    """Kill a process of a kind; return how many blocks were begun and not finished."""
    found = [process for process, each in known.items() if each == kind]
    if found:
        os.kill(chance.choice(found), signal.SIGKILL)
        killed[kind] += 1
        logger.info("killed a %s at %d partitions", kind, count(out))
    return len(list(out.glob("_begun-*")))


def _settle(known: dict[int, str]) -> None:
    """Wait for what a dead driver began to end."""
    for _ in range(60):
        if not alive(list(known)):
            return
        time.sleep(0.5)
    logger.warning("30 s later there are still %s", {p: known[p] for p in alive(list(known))})


def check(args: argparse.Namespace, folder: Path) -> tuple[int, int, int]:
    """Return how many images have no row, how many have more than one, and how many failed."""
    parts = sorted((args.out / "scores").glob("part-*.parquet"))
    columns = ["path", "error"]
    rows = pd.concat([pd.read_parquet(part, columns=columns) for part in parts])
    wanted = {str(path.absolute()) for path in folder.glob("*/*.jpg")}
    twice = int(rows["path"].duplicated().sum())
    return len(wanted - set(rows["path"])), twice, int(rows["error"].notna().sum())


def plot(memory: pd.DataFrame, file: Path) -> None:
    """Draw memory over time."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.5))
    for kind in ("all", "worker", "driver", "raylet"):
        axes.plot(
            memory["seconds"], memory[kind], label=f"largest {kind}" if kind != "all" else kind
        )
    axes.set(xlabel="seconds", ylabel="MB", ylim=(0, None))
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")


def run(args: argparse.Namespace) -> int:
    """Compare, scan, and say what was lost."""
    if args.out.exists():
        raise ValueError(f"--out {args.out} is there already. Name a new folder.")
    folder = draw(args)
    print(command(), flush=True)
    compare(args, folder)
    began = time.perf_counter()
    samples, killed, n_begun = scan(args, folder)
    seconds = time.perf_counter() - began
    lost, twice, failed = check(args, folder)
    memory = pd.DataFrame(samples).fillna(0)
    memory.to_csv(args.out / "memory.csv", index=False)
    plot(memory, args.out / "memory.png")
    print(f"{args.images:,} images in {seconds:.0f} s, killed: {dict(killed)}")
    print(f"{n_begun} blocks were begun and not finished at those moments")
    print(f"{lost} lost, {twice} twice, {failed} failed")
    steady = memory[memory["worker"] > 0]
    for name, tenth in steady.groupby(pd.cut(steady["seconds"], 5)):
        sizes = ", ".join(
            f"{kind} {tenth[kind].median():.0f}" for kind in ("worker", "driver", "all")
        )
        print(f"{name} s: median MB: {sizes}")
    return int(bool(lost or twice))


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
