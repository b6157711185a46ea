import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import hostile


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")
    return folder


def test_files_are_judged_or_refused(corpus, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    call = [str(corpus), "--actions", "load", "header", "audit", "--out", str(out)]
    assert hostile.main(call) == 0
    for action in ("load", "header", "audit"):
        table = pd.read_csv(out / f"{action}.csv")
        assert table["outcome"].tolist() == ["judged", "refused"]
    assert "Outcomes" in capsys.readouterr().out
    monkeypatch.setattr(hostile.Worker, "start", pytest.fail)
    assert hostile.main(call) == 0  # nothing is judged again


def test_what_does_not_end_is_ended_and_the_next_file_is_judged(corpus, monkeypatch):
    started = time.perf_counter()
    worker = hostile.Worker("load", 1.0, 512)
    worker.start()
    worker.process.kill()
    assert worker(str(corpus / "a.png"))["outcome"] == "crash"
    assert worker(str(corpus / "a.png"))["outcome"] == "judged"
    os.kill(worker.process.pid, signal.SIGSTOP)
    assert worker(str(corpus / "b.png"))["outcome"] == "out of time"
    worker.stop()
    assert time.perf_counter() - started < 120


def test_no_folder_is_one_message(tmp_path, capsys):
    assert hostile.main([str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 2
    assert "no such folder" in capsys.readouterr().err
