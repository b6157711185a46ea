"""Processes that work in one folder at once, or on a disk that fills up: nothing is lost."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.evaluation.runs import RunDirectory
from cnnsvm.io.files import alone, clear_partials

HOLD = """
import sys
from pathlib import Path
from cnnsvm.io.files import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys, time
from pathlib import Path
from cnnsvm.data.images import load_image
from cnnsvm.evaluation.runs import RunDirectory
folder, own = Path(sys.argv[1]), Path(sys.argv[2])
def compute():
    own.write_text("")
    (folder / "cache").mkdir()  # of which there may be one
    time.sleep(0.1)
    return 5
assert RunDirectory(folder, "x").part("number.json", compute) == 5
"""


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        pixels = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_files_that_a_living_process_writes_stay(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        names = [f".a.{number}-1.partial" for number in (living.pid, os.getpid(), 2**40)]
        for name in names:
            (tmp_path / name).touch()
        clear_partials(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == names[:1]
        living.communicate(b"\n")
    clear_partials(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_lock_ends_with_its_process(tmp_path, caplog):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "made")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == b"held\n"
        with subprocess.Popen(command, **pipes) as second:
            first.kill()
            assert second.stdout.readline() == b"held\n"
            second.kill()
    with alone(tmp_path / "made"):
        pass
    assert "Waiting" not in caplog.text


def test_a_part_of_a_run_is_computed_once_however_many_ask_for_it(tmp_path):
    folder = tmp_path / "run"
    commands = [
        [sys.executable, "-c", COUNT, str(folder), str(tmp_path / f"computed{k}")] for k in range(3)
    ]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(180) for process in processes] == [0] * 3
    assert len(list(tmp_path.glob("computed*"))) == 1
    assert RunDirectory(folder, "x").part("number.json", None) == 5


@pytest.mark.parametrize("call", ["predict {} --model cnnsvm --heatmaps {}", "localize {} {}"])
def test_a_full_disk_leaves_no_half_of_an_image(call, photos, tmp_path):
    """Pillow itself writes what there is room for, and says nothing."""
    maps = tmp_path / "maps"
    command = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900)); "  # the error is another, EFBIG
        "from cnnsvm.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", command, *call.format(photos, maps).split()]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == (2 if "predict" in call else 1)
    told = found.stdout + found.stderr
    for name in ("a", "b"):
        assert f"{name}.png.overlay.jpg'" in told or f"{name}.png.map.png'" in told
    assert not list(maps.glob("*.jpg"))
    for path in maps.glob("*.png"):
        load_image(path)
    assert not list(maps.glob(".*.partial"))
