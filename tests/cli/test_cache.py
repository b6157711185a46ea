import os
import time

import pytest

from cnnsvm.cli import main
from cnnsvm.io.machine import user_cache


@pytest.fixture
def runs(tmp_path):
    for place, size in (("a/fold_0/cache/x/cache", 1_000_000), ("b/cache", 2_000_000)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "embeddings.npy").write_bytes(bytes(size))
    (tmp_path / "a" / "report.json").write_text("{}")
    return tmp_path


def test_caches_are_listed_and_cleared_and_results_stay(runs, capsys):
    assert main(["cache", str(runs)]) == 0
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()] == [
        ["1.0", "MB"],
        ["2.0", "MB"],
        ["3.0", "MB"],
    ]
    assert (runs / "b" / "cache").exists()
    assert main(["cache", str(runs), str(runs / "a"), "--clear"]) == 0
    assert "3.0 MB  cleared" in capsys.readouterr().out
    left = [path.relative_to(runs).as_posix() for path in runs.rglob("*") if path.is_file()]
    assert left == ["a/report.json"]


def test_recent_ones_are_spared(runs, capsys):
    old = time.time() - 10 * 86400
    for path in (runs / "b" / "cache" / "embeddings.npy", runs / "b" / "cache"):
        os.utime(path, (old, old))
    assert main(["cache", str(runs), "--days", "5", "--clear"]) == 0
    assert not (runs / "b" / "cache").exists()
    assert (runs / "a" / "fold_0" / "cache").exists()


def test_without_runs_there_is_nothing_to_list(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["cache"]) == 0
    assert "no folder runs here" in capsys.readouterr().out


def test_what_was_measured_on_the_machine_is_listed_and_cleared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    file = user_cache() / "backends.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert main(["cache", "--clear"]) == 0
    assert str(file.parent) in capsys.readouterr().out
    assert not file.parent.exists()


def test_a_folder_that_is_not_there_is_one_message(tmp_path, capsys):
    assert main(["cache", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["-1", "nan"])
def test_days_that_are_none_clear_nothing(days, tmp_path, capsys):
    assert main(["cache", str(tmp_path), "--days", days, "--clear"]) == 2
    assert f"--days must be 0 or more, got {float(days)}" in capsys.readouterr().err
