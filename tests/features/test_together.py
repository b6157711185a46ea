import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from together_fit import fit

from cnnsvm.features.devices import HELPERS, Processes
from cnnsvm.features.launching import launched

SCRIPT = Path(__file__).with_name("together_fit.py")


def run(*args):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [*command, str(SCRIPT), *map(str, args)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Train in two processes, the second of which is killed once and takes less of a batch."""
    folder = tmp_path_factory.mktemp("together")
    killed = run(folder, "5,3", "die")
    assert killed.returncode != 0
    assert not (folder / "full.txt").exists()
    (checkpoint,) = (folder / "cache").glob("*/checkpoint.pt")
    assert len(torch.load(checkpoint, weights_only=True)["history"]) == 1
    done = run(folder, "5,3")
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("mode", ["full", "head"])
def test_two_processes_train_as_one_does(two_processes, mode):
    alone = fit(mode, epochs=3 if mode == "full" else 1)
    together = load_file(two_processes / f"{mode}.safetensors")
    for name, value in alone.network_.state_dict().items():
        torch.testing.assert_close(value, together[name], rtol=1e-3, atol=1e-4)
    history = ast.literal_eval((two_processes / f"{mode}.txt").read_text())
    assert len(history) == len(alone.history_)
    for a, b in zip(alone.history_, history, strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_the_second_process_runs_nothing_but_trainings(two_processes):
    assert not list(two_processes.glob("**/*rank1*.txt"))
    assert {path.name for path in two_processes.iterdir()} == {
        *("cache", "rank0", "rank1", "full.txt", "full.safetensors"),
        *("head.txt", "head.safetensors"),
    }


def test_parts_cover_a_batch_once_and_follow_the_shares():
    for shares in ((), (3.0, 1.0, 1.0)):
        for n in (0, 1, 5, 16):
            parts = [np.arange(n)[Processes(k, 3, shares).part_of_batch(n)] for k in range(3)]
            assert np.concatenate(parts).tolist() == list(range(n))
    assert len(range(20)[Processes(0, 3, (3.0, 1.0, 1.0)).part_of_batch(20)]) == 12


def test_without_torchrun_nothing_is_launched(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched() as is_first:
        assert is_first
        assert HELPERS.get().count == 1


@pytest.mark.parametrize("shares", [(1.0, 1.0), (0.0,)])
def test_shares_that_do_not_fit_are_refused(monkeypatch, shares):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with (
        pytest.raises(ValueError, match="there are 1 processes, and each needs one positive"),
        launched(batch_shares=shares),
    ):
        pass
