r"""Is every request answered, and rightly? Clients load a server of this machine.

    python experiments/load.py                                  10,000 requests by 4 clients
    python experiments/load.py --requests 500 --clients 40 --model FOLDER
    python experiments/load.py --model all --side 256 --requests 500      all evidence that ships

A server is started, by default with one small detector. Clients send drawn images, again where they
are told to wait, and compare each answer with what is said without a server. Status 1 if an answer
is missing or another.
"""

import argparse
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripting import command, make_parser, run_script

_START_SECONDS, _TOLERANCE = 120, 2e-4
_ALL = "all"


class Image(NamedTuple):
    """A file, and the probabilities that the detector states without a server."""

    data: bytes
    expected: dict[str, float]


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="[%(default)s]")
    parser.add_argument("--clients", type=int, default=4, help="at once [%(default)s]")
    parser.add_argument("--images", type=int, default=64, help="that are drawn [%(default)s]")
    parser.add_argument("--queue", type=int, default=16, help="of the server [%(default)s]")
    parser.add_argument("--side", type=int, default=32, help="of them, pixels [%(default)s]")
    model = "a name, a folder, or all: every detector that ships [%(default)s]"
    parser.add_argument("--model", default="cifake", help=model)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


def draw_images(args: argparse.Namespace) -> list[Image]:
    """Draw gradients with noise, and ask the detector about each."""
    from cnnsvm.data.encoding import encode_image
    from cnnsvm.data.images import load_image
    from cnnsvm.report.judging import Judge

    judge = Judge(None if args.model == _ALL else args.model, device=args.device)
    found = []
    for seed in range(args.images):
        rng = np.random.default_rng(seed)
        corners = rng.uniform(0, 255, (2, 2, 3))
        x = np.linspace(0, 1, args.side)[:, None]
        rows = corners[0] * (1 - x)[..., None] + corners[1] * x[..., None]
        smooth = rows[:, :1] * (1 - x) + rows[:, 1:] * x
        noisy = smooth + rng.normal(0, rng.uniform(0, 20), smooth.shape)
        data = encode_image(np.clip(noisy, 0, 255).astype(np.uint8), "PNG")
        (row,) = judge.rows([load_image(data)])
        found.append(Image(data, {name: row[f"probability_{name}"] for name in judge.names}))
    return found


class Server:
    """A server in a process of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        call = [sys.executable, "-m", "cnnsvm", "serve", "--port", str(port)]
        call += [] if args.model == _ALL else ["--model", args.model]
        call += ["--device", args.device, "--queue", str(args.queue)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self.process = subprocess.Popen(call, env=environment, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        """Wait until the model is loaded."""
        import httpx

        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return
            time.sleep(0.2)
        raise ValueError(f"the server was not ready after {_START_SECONDS} s. Run cnnsvm serve.")

    def megabytes(self) -> float:
        """Return the resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """End it as Ctrl+C does, and wait."""
        self.process.terminate()
        self.process.wait(30)


class Counts:
    """What the clients saw."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.largest = 0.0
        self._lock = threading.Lock()

    def add(self, outcome: str, seconds: float | None = None, difference: float = 0.0) -> None:
        """Count an answer, and how long it took and how far it was from the expected one."""
        with self._lock:
            self.outcomes[outcome] += 1
            self.largest = max(self.largest, difference)
            if seconds is not None:
                self.seconds.append(seconds)


def ask(client: Any, image: Image, counts: Counts) -> None:
    """Send an image until it is judged, and compare."""
    while True:
        began = time.perf_counter()
        answer = client.post("/v1/predict", files={"files": ("image.png", image.data)})
        seconds = time.perf_counter() - began
        if answer.status_code != 503:
            break
        counts.add("told to wait (503)")
        time.sleep(0.05)  # sooner than it says: the queue is to be tried
    if answer.status_code != 200:
        counts.add(f"status {answer.status_code}")
        return
    stated = answer.json()["files"][0]["probabilities"]
    difference = max(abs(stated[name] - image.expected[name]) for name in image.expected)
    counts.add("right" if difference <= _TOLERANCE else "wrong", seconds, difference)


def run_clients(address: str, images: list[Image], args: argparse.Namespace) -> Counts:
    """Let each client send its share, one image after another."""
    import httpx

    counts = Counts()

    def work(number: int) -> None:
        with httpx.Client(base_url=address, timeout=120) as client:
            for index in range(number, args.requests, args.clients):
                try:
                    ask(client, images[index % len(images)], counts)
                except httpx.TransportError:
                    counts.add("lost")

    with ThreadPoolExecutor(args.clients) as pool:
        list(pool.map(work, range(args.clients)))
    return counts


def run(args: argparse.Namespace) -> int:
    """Load a server and say what came of it."""
    if min(args.requests, args.clients, args.images) < 1:
        raise ValueError("--requests, --clients and --images must be at least 1.")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
    images, server = draw_images(args), Server(args)
    try:
        server.wait()
        run_clients(server.address, images, argparse.Namespace(requests=32, clients=1))  # warm
        before, began = server.megabytes(), time.perf_counter()
        counts = run_clients(server.address, images, args)
        seconds, after = time.perf_counter() - began, server.megabytes()
    finally:
        server.stop()
    p50, p95 = (1000 * np.percentile(counts.seconds or [0], q) for q in (50, 95))
    print(command())
    for outcome, number in counts.outcomes.most_common():
        print(f"{number:>8,} {outcome}")
    print(
        f"{args.requests / seconds:8.1f} requests a second, {args.clients} clients, {seconds:.0f} s"
    )
    print(f"{p50:8.1f} ms median, {p95:.1f} ms 95th percentile")
    print(f"{before:8.0f} MB of memory at the start, {after:.0f} MB at the end")
    print(f"{counts.largest:8.1g} largest difference of a probability")
    return int(counts.outcomes["right"] != args.requests)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line and return the exit status."""
    return run_script(__file__, run, parse_arguments(argv))


if __name__ == "__main__":
    raise SystemExit(main())
