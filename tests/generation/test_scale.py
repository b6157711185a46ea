"""Builds that are large, shared, killed, or short of disk."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from generation_helpers import draw_image, tree
from PIL import Image

from cnnsvm.data.images import load_image
from cnnsvm.data.manifest import read_manifest
from cnnsvm.generation import GenerationError, build
from cnnsvm.generation.build import estimate_bytes, format_bytes
from cnnsvm.generation.engines import Engine, one_by_one
from cnnsvm.generation.recipe import make_recipe
from cnnsvm.generation.sources import find_sources
from cnnsvm.generation.store import Shard
from cnnsvm.io.progress import format_duration, show_progress

TWO = ("left", "random_patches")


@pytest.fixture
def many(tmp_path):
    """Twelve sources, one of them twice and one of them broken."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(draw_image(i, 20 + i, 30)).save(folder / f"{i:02}.png")
    (folder / "copy.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "text.png").write_text("no image")
    return folder


def make(sources, folder, **values):
    return build(sources, folder, **{"n_jobs": 1, "schemas": TWO, **values})


def records_of(manifest):
    return {record: list(rows["sha256"]) for record, rows in manifest.groupby("record")}


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_share_the_work_and_make_the_whole(order, many, tmp_path):
    whole = make(many, tmp_path / "whole")
    parts = []
    for index in order:
        assert not (tmp_path / "out" / "manifest.parquet").exists()
        parts.append(make(many, tmp_path / "out", shard=f"{index}/3"))
    stored = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert records_of(stored) == records_of(whole) == records_of(parts[-1])
    own = [read_manifest(p) for p in sorted((tmp_path / "out").glob("manifest-*.parquet"))]
    assert sum(len(set(part["record"])) for part in own) == 12
    assert max(len(set(part["record"])) for part in own) < 12
    whole_errors = pd.read_csv(tmp_path / "whole" / "errors.csv")
    errors = pd.read_csv(tmp_path / "out" / "errors.csv")
    assert sorted(errors["path"]) == sorted(whole_errors["path"])
    assert {Path(path).name for path in errors["path"]} == {"text.png", "copy.png"} or {
        Path(path).name for path in errors["path"]
    } == {"text.png", "03.png"}


def test_more_shards_than_sources(photos, tmp_path):
    for index in range(1, 9):
        make(photos, tmp_path / "out", shard=f"{index}/8")
    stored = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert stored["source_id"].nunique() == 3


def test_same_pixels_in_two_shards_are_used_once(photos, tmp_path):
    pixels = load_image(photos / "a.jpg")
    i = 0
    while True:  # another file of the same pixels that falls into the other shard
        Image.fromarray(pixels).save(photos / "a.png", compress_level=i % 10)
        found, _ = find_sources(photos, tmp_path / "out")
        by_name = {Path(s.path).name: s for s in found if Path(s.path).parent == photos}
        held = [Shard(1, 2).holds(by_name[name].sha256) for name in ("a.jpg", "a.png")]
        if held[0] != held[1]:
            break
        i += 1
        assert i < 10, "all ten encodings fell into one shard"
    for index in (1, 2):
        merged = make(photos, tmp_path / "out", shard=f"{index}/2")
    assert merged["source_id"].nunique() == 3
    assert "the same pixels as source" in merged.attrs["skipped"][0]["reason"]
    read_manifest(tmp_path / "out" / "manifest.parquet")


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_no_such_shard(shard, photos, tmp_path):
    with pytest.raises(GenerationError, match=r"1 <= i <= n.*1/4"):
        make(photos, tmp_path / "out", shard=shard)


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from cnnsvm.generation import build
from cnnsvm.generation.engines import Engine, one_by_one

sources, folder, log, seconds = *map(Path, sys.argv[1:4]), float(sys.argv[4])

def repaint(image, mask, seed):
    time.sleep(seconds)
    with open(log, "a") as file:
        file.write(f"{seed}\\n")
    return np.random.default_rng(seed).integers(0, 256, image.shape, dtype=np.uint8)

if __name__ == "__main__":
    build(sources, folder, engine=Engine("slow", one_by_one(repaint)), variants="both", n_jobs=1)
"""


def test_sigkill_at_any_moment_leaves_nothing_half_done_and_nothing_is_done_twice(many, tmp_path):
    script, log = tmp_path / "killed.py", tmp_path / "log"
    script.write_text(KILLED)

    def start(folder, seconds):
        arguments = [sys.executable, script, many, folder, log, str(seconds)]
        return subprocess.Popen(arguments, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole", 0).wait() == 0
    n_images = len(log.read_text().split())
    assert n_images == 12 * 5
    log.unlink()
    killed = tmp_path / "killed"
    for wanted in (7, 23, 41):  # three times, each after some more images
        process = start(killed, 0.02)
        deadline = time.monotonic() + 60
        while not log.exists() or len(log.read_text().split()) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (killed / "manifest.parquet").exists()
        for path in killed.rglob("*.png"):
            load_image(path)  # no half file under its own name
        for path in killed.rglob("record.json"):
            names = json.loads(path.read_text())["files"]
            assert all((path.parent / name).exists() for name in names)
    assert start(killed, 0).wait() == 0
    assert tree(killed) == tree(tmp_path / "whole")
    again = Counter(log.read_text().split())
    assert len(again) == n_images
    # a kill costs the engine's last call and what of its batch was not on disk yet: one schema
    assert sum(again.values()) <= n_images + 3


def test_second_call_reads_no_image_again(many, tmp_path, monkeypatch):
    first = make(many, tmp_path / "out")
    read = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or real(self))
    again = make(many, tmp_path / "out")
    pd.testing.assert_frame_equal(first, again)
    assert not [path for path in read if path.suffix == ".png" and "out" in path.parts]


def test_times_of_change_do_not_matter_if_the_content_is_the_same(many, tmp_path):
    calls = []
    count = Engine("count", one_by_one(lambda i, m, s: calls.append(s) or 255 - i))
    make(many, tmp_path / "out", engine=count)
    before = len(calls)
    for path in (tmp_path / "out").rglob("*.png"):
        os.utime(path, (1, 1))
    make(many, tmp_path / "out", engine=count)
    assert len(calls) == before


def fill_up(monkeypatch, after):
    """Let the disk be full after some files."""
    real, written = Path.write_bytes, []

    def write(self, content):
        written.append(self)
        if len(written) > after:
            self.touch()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", write)


@pytest.mark.parametrize("after", [1, 10, 30])
def test_full_disk_is_one_clear_error_and_what_was_made_is_usable(
    after, many, tmp_path, monkeypatch
):
    whole = make(many, tmp_path / "whole")
    with monkeypatch.context() as patched:
        fill_up(patched, after)
        with pytest.raises(GenerationError, match=r"full after \d+ of 12 records.*Free some"):
            make(many, tmp_path / "out")
    unfinished = tmp_path / "out" / "manifest-unfinished.parquet"
    assert unfinished.exists() == (after >= 10)
    if after >= 10:
        kept = read_manifest(unfinished)
        assert records_of(kept).items() <= records_of(whole).items()
    make(many, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_interruption_keeps_a_manifest_of_what_is_made(many, tmp_path):
    calls = []

    def interrupt(image, mask, seed):
        calls.append(seed)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return 255 - image

    with pytest.raises(KeyboardInterrupt):
        make(many, tmp_path / "out", engine=Engine("x", one_by_one(interrupt)))
    assert len(read_manifest(tmp_path / "out" / "manifest-unfinished.parquet")) >= 3
    make(many, tmp_path / "out", engine=Engine("x", one_by_one(lambda i, m, s: 255 - i)))
    assert not (tmp_path / "out" / "manifest-unfinished.parquet").exists()


@pytest.mark.parametrize("variants", ["spliced", "both"])
@pytest.mark.parametrize("post_processing", ["png", "jpeg:80"])
def test_space_is_estimated_well(variants, post_processing, tmp_path, caplog):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(20):
        Image.fromarray(draw_image(i, 200 + 10 * i, 240)).save(folder / f"{i}.png")
    recipe = make_recipe("opencv-ns", TWO, variants, "hard", post_processing, None, 0, True)
    found, _ = find_sources(folder, tmp_path / "out")
    with caplog.at_level(logging.INFO):
        make(
            folder,
            tmp_path / "out",
            engine="opencv-ns",
            variants=variants,
            post_processing=post_processing,
        )
    actual = sum(p.stat().st_size for p in (tmp_path / "out").rglob("*.*g") if p.is_file())
    assert actual / 2 < estimate_bytes(found, recipe) < 2 * actual
    assert "20 records to make, 0 ready; about " in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        make(
            folder,
            tmp_path / "out",
            engine="opencv-ns",
            variants=variants,
            post_processing=post_processing,
        )
    assert "0 records to make, 20 ready; about 0 bytes more" in caplog.text


def test_too_little_space_is_refused_before_anything_is_made(many, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(GenerationError, match=r"12 records need about .* 1\.0 kB free.*jpeg"):
        make(many, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.png"))
    made = make(many, tmp_path / "out", check_space=False)
    assert made["record"].nunique() == 12


def test_no_panels(photos, tmp_path):
    made = make(photos, tmp_path / "out", panels=False)
    assert not list((tmp_path / "out").rglob("group*"))
    with_panels = make(photos, tmp_path / "with")
    assert list(made["sha256"]) == list(with_panels["sha256"])


def test_progress_is_told_in_the_log_with_the_time_left(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr("cnnsvm.io.progress.time.monotonic", lambda: now[0])

    def items():
        for i in range(40):
            now[0] += 0.0 if i < 10 else 60.0
            yield i

    with caplog.at_level(logging.INFO):
        assert list(show_progress(items(), 40, "records", ready=10)) == list(range(40))
    assert "records: 20 of 40 (50 %), 20 min 0 s left" in caplog.text
    caplog.clear()
    assert list(show_progress(iter([1, 2]), 2, "records", progress=False)) == [1, 2]
    assert caplog.text == ""


def test_amounts_are_written_for_people():
    assert [format_bytes(n) for n in (12, 1500, 2.5e9, 3e12)] == [
        "12 bytes",
        "1.5 kB",
        "2.5 GB",
        "3.0 TB",
    ]
    assert [format_duration(s) for s in (5, 65, 3600 * 30 + 120)] == [
        "5 s",
        "1 min 5 s",
        "30 h 2 min",
    ]
