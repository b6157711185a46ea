"""A file name of any bytes ends no command and breaks no table."""

import csv
import io
import logging
import os
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnsvm.cli import main
from cnnsvm.io.tables import csv_line, to_csv
from cnnsvm.report import Report, render_text
from cnnsvm.report.model import Section, Table

NAMES = [
    200 * b"x" + b".png",
    b"bad\xff\xfe.png",
    b"cr\rx.png",
    b"new\nline.png",
    b'quo"te,.png',
    b"=1.png",
]


def run(*argv):
    """Run a command that prints and logs nowhere: pytest could not report such names."""
    nowhere = io.TextIOWrapper(io.BytesIO(), "utf-8")
    logging.disable()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            return main([*map(str, argv)])
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("names")
    for label, kind in enumerate(("real", "fake")):
        (root / kind).mkdir()
        for number, name in enumerate(NAMES):
            pixels = np.random.default_rng([label, number]).integers(0, 256, (48, 48, 3), np.uint8)
            with open(os.path.join(os.fsencode(root / kind), name), "wb") as stream:
                Image.fromarray(pixels).save(stream, "PNG")
    return root


def test_predict_writes_paths_that_exist(data, tmp_path):
    out = tmp_path / "judged.csv"
    assert run("predict", data / "real", "--model", "cifake", "--out", out) < 2
    with open(out, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    assert {os.path.basename(os.fsencode(path)) for path in paths} == set(NAMES)


def test_localize_writes_paths_that_exist(data, tmp_path):
    assert run("localize", data / "real", tmp_path / "out") == 0
    table = tmp_path / "out" / "localize.csv"
    with open(table, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        assert {os.fsencode(row["path"]) for row in csv.DictReader(stream)} == set(NAMES)


@pytest.mark.parametrize("command", ["audit", "explore", "cv"])
def test_a_data_set_is_read(command, data, tmp_path):
    out = tmp_path / "out"
    given = {
        "audit": [data, "--folds", 2],
        "explore": ["--data", data, "--out", out],
        "cv": ["--data", data, "--out", out, "--folds", 2, "--trials", 1],
    }
    assert run(command, *given[command]) < 2


def test_a_build_lists_the_name_that_a_manifest_cannot_hold(data, tmp_path):
    assert run("build", data / "real", tmp_path / "built") < 2
    errors = (tmp_path / "built" / "errors.csv").read_bytes()
    assert b"bad\xff\xfe.png: its name is not UTF-8" in errors
    sources = pd.read_parquet(tmp_path / "built" / "manifest.parquet")["source_id"]
    assert sources.nunique() == len(NAMES) - 1


def test_what_a_row_says_can_be_read_back(tmp_path):
    values = ["a\rb", "c\nd", 'e"f', "g,h", "=i", " j", "k\udcff"]
    (tmp_path / "a.csv").write_text(
        csv_line(values), encoding="utf-8", errors="surrogateescape", newline=""
    )
    with open(tmp_path / "a.csv", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        assert next(csv.reader(stream)) == values
    frame = pd.DataFrame({"path": ["a\rb", "c"], "value": [0.1, np.nan]})
    (tmp_path / "b.csv").write_text(to_csv(frame), newline="")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "b.csv"), frame)


def test_no_name_commands_the_terminal():
    name = "\x1b[31mred\x07\u202egnp.exe\x9b.png"
    section = Section(f"{name}: only fake", [Table(["path"], [[name]])])
    text = render_text(Report({"data": name}, name, sections=[section]))
    assert text.count("red\\x07") == 4
    assert all(line.isprintable() for line in text.splitlines())
