"""The scan that kills its own parts: what it finds, and whom it may kill."""

import os
import subprocess
import sys

import pandas as pd
import pytest

import scale_scan
from scale_study import killing
from scale_study.images import draw_images, image_name
from scale_study.processes import alive, family, megabytes


def test_lost_and_double_rows_of_finished_partitions_are_counted(tmp_path):
    paths = [image_name(tmp_path, number) for number in range(8)]
    rows = [(path, None) for path in (*paths[:3], paths[0], *paths[4:6])]
    rows[1] = (rows[1][0], "broken")
    (tmp_path / "scores").mkdir()
    for number in range(3):
        table = pd.DataFrame(rows[2 * number : 2 * number + 2], columns=["path", "error"])
        table.to_parquet(tmp_path / f"scores/part-{number:06}-a.parquet")
    found = scale_scan.check(tmp_path / "scores", tmp_path, 8, 2)  # the last two are not begun
    assert found == {"done": 5, "lost": 1, "twice": 1, "failed": 1}


def test_images_are_linked_under_many_names(tmp_path):
    files = sorted(draw_images(tmp_path, 7, 3, 32, seed=0).glob("*/*.jpg"))
    assert [str(file) for file in files] == [image_name(tmp_path / "images", n) for n in range(7)]
    assert len({file.stat().st_ino for file in files}) == 3
    with pytest.raises(ValueError, match="at most 60000 names"):
        draw_images(tmp_path / "more", 60_001, 1, 32, seed=0)


#: Makes a partition each 50 ms, beside a child that counts as a worker, until there are twenty.
JOB = """
import pathlib, subprocess, sys, time
out = pathlib.Path(sys.argv[1])
out.mkdir(exist_ok=True)
waits = [sys.executable, "-c", "import sys; sys.stdin.read()", "ray::MapWorker"]
child = subprocess.Popen(waits, stdin=subprocess.PIPE)
for number in range(20):
    if not (out / f"part-{number}.parquet").exists():
        (out / f"part-{number}.parquet").touch()
        time.sleep(0.05)
    child.poll() is None or sys.exit(3)
child.communicate(b"")
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(killing, "_STEP", 0.05)
    monkeypatch.setattr(killing, "_SAMPLED", 0)
    monkeypatch.setattr(killing, "KINDS", ("worker", "driver"))


def test_a_killed_command_is_given_again_until_all_is_done(tmp_path, quick):
    job = killing.Scan(tmp_path / "out", 20, 1, seed=0, limit=None)
    job.run([sys.executable, "-c", JOB, str(job.out)])
    assert job.course.is_whole
    assert job.course.killed() == {"worker": 1, "driver": 1}
    assert job.course.n_starts == 3
    assert max(sample.get("worker", 0) for sample in job.course.memory) > 1


def test_a_limit_of_time_ends_the_scan(tmp_path, quick):
    job = killing.Scan(tmp_path / "out", 20, 0, seed=0, limit=0.4)
    job.run([sys.executable, "-c", JOB, str(job.out)])
    assert not job.course.is_whole
    assert job.course.n_parts < 20


def test_only_what_the_driver_began_is_of_its_family():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = family(os.getpid())
    assert known[os.getpid()] == "driver"
    assert known[child.pid] == "other"
    assert os.getppid() not in known
    assert megabytes(os.getpid()) > 1
    child.communicate(b"\n")
    assert alive([child.pid, os.getpid()]) == [os.getpid()]
    assert megabytes(child.pid) == 0
