import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_fit import fit
from safetensors.torch import load_file
from tiny_localizer import assert_same_weights, weights

from cnnsvm import InpaintLocalizer
from cnnsvm.features.devices import Processes

SCRIPT = Path(__file__).with_name("distributed_fit.py")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Train in two processes of torchrun, on the CPU."""
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # pytest's, with the test helpers
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_both_processes_end_with_the_same_network(two_processes):
    first, second = (load_file(two_processes / f"rank{rank}.safetensors") for rank in (0, 1))
    assert_same_weights(first, second)
    histories = [(two_processes / f"rank{rank}.txt").read_text() for rank in (0, 1)]
    assert histories[0] == histories[1]


def test_two_processes_train_as_one_does(two_processes, tiny_network):
    alone = fit(False)
    together = InpaintLocalizer.from_pretrained(two_processes / "model")
    for name, value in weights(alone.network_).items():
        torch.testing.assert_close(value, weights(together.network_)[name], rtol=1e-3, atol=1e-4)
    for a, b in zip(alone.history_, together.history_, strict=True):
        assert a["valid_iou"] == pytest.approx(b["valid_iou"], abs=0.01)
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3)


def test_a_loss_that_breaks_in_one_process_restarts_both(two_processes):
    histories = [(two_processes / f"broken{rank}.txt").read_text() for rank in (0, 1)]
    assert histories[0] == histories[1]
    history = ast.literal_eval(histories[0])
    assert [entry["attempt"] for entry in history] == [0, 0, 1]
    assert [entry["state"] == "diverged" for entry in history] == [False, True, False]


def test_statistics_of_batch_norm_are_the_same_in_both(two_processes):
    first, second = (load_file(two_processes / f"broken{rank}.safetensors") for rank in (0, 1))
    assert first["body.body.1.running_var"].std() > 0
    assert_same_weights(first, second)


def test_one_process_writes(two_processes):
    results = {
        f"{name}{rank}{suffix}"
        for name in ("rank", "broken")
        for rank in (0, 1)
        for suffix in (".txt", ".safetensors")
    }
    assert {path.name for path in two_processes.iterdir()} == {
        "cache",
        "model",
        "written-by-0",
        *results,
    }
    (task,) = (two_processes / "cache").iterdir()
    assert {path.name for path in task.glob("[!.]*")} == {"history.json", "network.safetensors"}


def test_distributed_without_torchrun_is_refused(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"RANK, .* is not set\. Start the program by `torchrun"):
        fit(True)


def test_shares_cover_everything_once():
    items = np.arange(11)
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(range(11))
    assert Processes().share(items) is not None
    assert len(Processes().share(items)) == 11


def test_a_process_on_its_own_does_not_communicate():
    alone = Processes()
    values = torch.arange(3)
    assert alone.total(values) is values
    assert alone.agree(7)
    assert alone.is_first
