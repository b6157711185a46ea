"""Models that are saved by many at once, or by one that is killed: there is always one to read."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cnnsvm.io.bundle import read_bundle, write_bundle

SAVE_FOR_EVER = """
import sys, numpy as np
from cnnsvm.io.bundle import write_bundle
number = 0
while True:
    number += 1
    write_bundle(sys.argv[1], {"number": number}, {"a": {"values": np.full(2000, number)}})
    print(number, flush=True)
"""


def save(folder, number):
    write_bundle(folder, {"number": number}, {"a": {"values": np.full(2000, number)}})


def assert_whole(folder):
    config, arrays = read_bundle(folder)
    assert (arrays["a"]["values"] == config["number"]).all()


def test_many_save_at_once_and_others_read(tmp_path):
    folder = tmp_path / "model"
    save(folder, 0)
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(save, folder, number) for number in range(300)]
        while not all(each.done() for each in done):
            assert_whole(folder)
        for each in done:
            each.result()
    assert_whole(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_who_is_killed_leaves_a_model(tmp_path):
    folder = tmp_path / "model"
    for seconds in (0.01, 0.05, 0.1):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        assert_whole(folder)
    save(folder, 7)
    assert read_bundle(folder)[0]["number"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # and nothing half-written


def test_what_a_link_leads_to_is_replaced(tmp_path):
    save(tmp_path / "model", 1)
    (tmp_path / "latest").symlink_to(tmp_path / "model")
    save(tmp_path / "latest", 2)
    assert (tmp_path / "latest").is_symlink()
    assert read_bundle(tmp_path / "model")[0]["number"] == 2
