"""The scan that kills its own parts: what it finds, and whom it may kill."""

import os
import subprocess
import sys
from argparse import Namespace

import pandas as pd

import scale_scan
from scale_study.processes import alive, family, megabytes


def test_lost_and_double_rows_are_counted(tmp_path):
    folder = tmp_path / "images/00000"
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.jpg" for number in range(4)]
    for path in paths:
        path.touch()
    rows = [(str(path), None) for path in (*paths[:3], paths[0])]
    rows[1] = (rows[1][0], "broken")
    (tmp_path / "scores").mkdir()
    for number in range(2):
        table = pd.DataFrame(rows[2 * number : 2 * number + 2], columns=["path", "error"])
        table.to_parquet(tmp_path / f"scores/part-{number}.parquet")
    assert scale_scan.check(Namespace(out=tmp_path), tmp_path / "images") == (1, 1, 1)


def test_images_are_linked_under_many_names(tmp_path):
    args = scale_scan.parse_arguments(["--images", "7", "--distinct", "3", "--out", str(tmp_path)])
    files = sorted(scale_scan.draw(args).glob("*/*.jpg"))
    assert len(files) == 7
    assert len({file.stat().st_ino for file in files}) == 3


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
