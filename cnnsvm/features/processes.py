"""One training run in several processes, started by ``torchrun``."""

import atexit
import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cnnsvm.features.devices import choose_device

_SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: How long the others wait for one that prepares data; torchrun notices at once if one ends.
_TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """The number of processes that train together and the rank of this one, from 0.

    The first one writes. A process on its own does not communicate.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return this process's part of a list: every ``count``-th item."""
        return items[self.rank :: self.count]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: int) -> bool:
        """Wait for all processes, and return whether they have the same number."""
        if self.count == 1:
            return True
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return len(set(values)) == 1

    def spread(self, network: nn.Module) -> None:
        """Give all processes the first one's parameters and statistics."""
        if self.count > 1:
            for value in network.state_dict().values():
                dist.broadcast(value, 0)

    def wrap(self, network: nn.Module, device: torch.device) -> tuple[nn.Module, nn.Module]:
        """Return the network to train with and the one to validate with, of shared parameters.

        With several processes, batch norm takes the statistics of the whole batch on CUDA; on the
        CPU, where torch has no such layer, each process takes those of its own part. With one
        process the same network is returned twice.
        """
        if self.count == 1:
            network = network.to(device)
            return network, network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
        network = network.to(device)
        return DistributedDataParallel(network), network


class Distributable(Protocol):
    """An estimator that several processes can train together."""

    distributed: bool
    device: str
    gpu_memory_fraction: float | None


def join(
    device: str, gpu_memory_fraction: float | None, distributed: bool
) -> tuple[torch.device, Processes]:
    """Choose the device of this process, and join the others if torchrun started some.

    With "auto" or "cuda" each process of a machine takes a GPU of its own. They communicate by NCCL
    between GPUs and else by gloo, until they end.

    Raises
    ------
    DeviceError
        If the device is not there.
    ValueError
        If ``distributed`` is set and torchrun did not start this process.
    """
    chosen = choose_device(device, gpu_memory_fraction)
    if not distributed:
        return chosen, Processes()
    missing = [name for name in _SET_BY_TORCHRUN if name not in os.environ]
    if missing and not dist.is_initialized():
        raise ValueError(
            f"distributed=True needs the variables that torchrun sets, and {', '.join(missing)} "
            "is not set. Start the program by `torchrun --nproc-per-node=2 program.py`, or use "
            "distributed=False."
        )
    if chosen.type == "cuda":
        if chosen.index is None:
            own = os.environ.get("LOCAL_RANK", "0")
            chosen = choose_device(f"cuda:{own}", gpu_memory_fraction)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
        atexit.register(dist.destroy_process_group)
    return chosen, Processes(dist.get_rank(), dist.get_world_size())


def writes(distributed: bool) -> bool:
    """Return whether this is the process that writes files, whether or not it has joined."""
    return not distributed or int(os.environ.get("RANK", "0")) == 0


@contextmanager
def first_alone(estimator: Distributable) -> Iterator[bool]:
    """Run a block in the first process while the others wait, and then in these.

    So files are made once and read by all. A process on its own does not wait.

    Yields
    ------
    bool
        Whether this is the first one.
    """
    _, together = join(estimator.device, estimator.gpu_memory_fraction, estimator.distributed)
    if not together.is_first:
        together.agree(0)
    yield together.is_first
    if together.is_first:
        together.agree(0)
