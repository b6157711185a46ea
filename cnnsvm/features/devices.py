"""Where and how precisely networks run: devices, dtypes, and processes that `torchrun` starts."""

import atexit
import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cnnsvm.features.whole_batch import WholeBatch

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
_SET_BY_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: How long the others wait for one that prepares data; torchrun notices at once if one ends.
_TIMEOUT = timedelta(days=1)


class DeviceError(RuntimeError, ValueError):
    """A device or precision that this machine does not have."""


def choose_device(device: str = "auto", gpu_memory_fraction: float | None = None) -> torch.device:
    """Find the device: "auto" (CUDA when there, else the CPU), "cpu", "cuda" or "cuda:N".

    ``gpu_memory_fraction``, in (0, 1], is the largest share of the GPU's memory that this process
    may take. A DeviceError says that the device is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"device {device!r} is not one that torch knows: {error}") from error
    if chosen.type == "cuda":
        n_devices = torch.cuda.device_count()
        if (chosen.index or 0) >= n_devices:
            raise DeviceError(
                f"device {device!r} was asked for but torch sees {n_devices} CUDA device(s). "
                "Use device='auto' or 'cpu', or check the driver with nvidia-smi."
            )
        if gpu_memory_fraction is not None:
            index = torch.cuda.current_device() if chosen.index is None else chosen.index
            torch.cuda.set_per_process_memory_fraction(float(gpu_memory_fraction), index)
    elif chosen.type != "cpu":
        raise DeviceError(f"device {device!r} is not supported; use 'auto', 'cpu' or 'cuda'.")
    return chosen


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Find the dtype of the forward passes; "auto" is bfloat16 where the hardware has it.

    A DeviceError is raised if the name is unknown, or float16 is asked for on a CPU.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise DeviceError("precision='float16' needs CUDA; use 'bfloat16' or 'auto' on a CPU.")
    return getattr(torch, precision)


@contextlib.contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Run the forward pass in ``dtype``; float32 means no autocast."""
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        yield


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))


@dataclass(frozen=True)
class Processes:
    """The number of processes that train together and the rank of this one, from 0.

    The first one writes. A process on its own does not communicate. ``shares`` say how much of a
    batch each takes, for devices that are not equally fast; without, all take the same.
    """

    rank: int = 0
    count: int = 1
    shares: tuple[float, ...] = ()

    @property
    def is_first(self) -> bool:
        """Whether this process writes and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return this process's part of a list: every ``count``-th item."""
        return items[self.rank :: self.count]

    def part_of_batch(self, n: int) -> slice:
        """Return which of the ``n`` items of a batch are this process's.

        The parts follow each other and cover the batch.
        """
        shares = self.shares or (1.0,) * self.count
        ends = [round(n * sum(shares[:k]) / sum(shares)) for k in range(self.count + 1)]
        return slice(ends[self.rank], ends[self.rank + 1])

    def from_first(self, value: Any) -> Any:
        """Return the first process's value, any that can be pickled, in all processes."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of their ranks."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

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

    def wrap(
        self,
        network: nn.Module,
        entry: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> nn.Module:
        """Return the module that trains a network, on its device, in all processes.

        Gradients are averaged, and batch norm is that of the whole batch. ``entry`` makes of the
        network the module whose ``forward`` training calls. One process has the network itself.
        """
        if self.count == 1:
            return network
        return DistributedDataParallel(WholeBatch(entry(network)))


#: The processes that help with the trainings of this one, see `cnnsvm.features.launching.launched`.
HELPERS: ContextVar[Processes] = ContextVar("HELPERS", default=Processes())  # noqa: B039 - frozen


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
    between GPUs and else by gloo, until they end. A DeviceError says that the device is not there,
    a ValueError that ``distributed`` is set and torchrun did not start this process.
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


@contextlib.contextmanager
def first_alone(estimator: Distributable) -> Iterator[bool]:
    """Run a block in the first process while the others wait, and then in these.

    So files are made once and read by all. A process on its own does not wait. Yields whether this
    is the first one.
    """
    _, together = join(estimator.device, estimator.gpu_memory_fraction, estimator.distributed)
    if not together.is_first:
        together.agree(0)
    yield together.is_first
    if together.is_first:
        together.agree(0)
