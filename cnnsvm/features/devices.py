"""Where and how precisely the networks run."""

import contextlib
import logging
from collections.abc import Iterator

import torch

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


class DeviceError(RuntimeError, ValueError):
    """A device or precision that this machine does not have."""


def choose_device(device: str = "auto", gpu_memory_fraction: float | None = None) -> torch.device:
    """Find the device to run on.

    Parameters
    ----------
    device : str
        "auto" (CUDA when there, else the CPU), "cpu", "cuda" or "cuda:N".
    gpu_memory_fraction : float in (0, 1] or None
        Largest share of the GPU's memory that this process may take.

    Raises
    ------
    DeviceError
        If the device is not there.
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

    Raises
    ------
    DeviceError
        If the name is unknown, or float16 is asked for on a CPU.
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
