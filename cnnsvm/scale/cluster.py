"""Ray itself: the version that fits, the cluster that is there or one of this machine."""

import logging
import os
import re
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any

OLDEST = (2, 60)
#: Bytes of the object store of a cluster that is started here: images never pass through it.
STORE = 200_000_000
KNOCKING = 10  # seconds


class EngineMissingError(ValueError, ImportError):
    """Ray is not installed, or a version of it that does not fit."""


class ClusterError(ConnectionError):
    """A cluster that does not answer or broke down, or whose workers failed for no known reason."""


def gave_up(what: str, error: Exception) -> ClusterError:
    """Say that the cluster did not finish a block or shard."""
    first = str(error).split("\n\nThe above exception")[0].strip().splitlines()
    return ClusterError(
        f"the cluster gave up a {what} ({type(error).__name__}: {first[-1] if first else ''}). "
        "What is finished stays: run the same again, with fewer workers or smaller batches if "
        "memory was short."
    )


def start_ray(address: str | None = None) -> Any:
    """Return the module ``ray``, connected to a cluster.

    That is the one that this process is connected to, the one at ``address`` or in the environment
    variable ``RAY_ADDRESS``, or one of this machine that ends with the process.

    Raises
    ------
    EngineMissingError
        If Ray is not installed or too old.
    ClusterError
        If no cluster answers at the address, at most a minute later.
    """
    check_version()
    # of its C++ code, which writes to standard error, --quiet or not, of what it then repairs
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        return ray
    address = address or os.environ.get("RAY_ADDRESS")
    # a cluster that runs already has its own object store
    own: dict[str, Any] = (
        {"address": address}
        if address
        else {"address": "local", "object_store_memory": STORE, "include_dashboard": False}
    )
    try:
        _knock(address)
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address or 'this machine'} ({error}). Check that it runs "
            "(`ray status` there) and the port, 6379 if no other was chosen, or leave --address "
            "and RAY_ADDRESS out to start one here."
        ) from error
    return ray


def _knock(address: str | None) -> None:
    """Raise an OSError if nothing listens at ``host:port``, for which Ray would wait minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\[\]]+)\]?:(\d{1,5})", address or "")
    if found:
        socket.create_connection((found[1], int(found[2])), KNOCKING).close()


def check_version() -> None:
    """Refuse a Ray that is missing or too old (`EngineMissingError`)."""
    rule = f"--engine ray needs Ray {OLDEST[0]}.{OLDEST[1]} or newer"
    remedy = "Install it: pip install 'cnnsvm[ray]'."
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise EngineMissingError(f"{rule}, and none is installed. {remedy}") from None
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        raise EngineMissingError(f"{rule}, and {found} is installed. {remedy}")


def workers(ray: Any, concurrency: int | None, num_cpus: float, num_gpus: float) -> int:
    """Return how many workers run at once: as asked, or as many as the cluster has room for.

    A ValueError is raised if the cluster will never have the room: they would wait for ever.
    """
    there = ray.cluster_resources()
    needs = {"CPU": num_cpus, "GPU": num_gpus}
    room = min(int(there.get(kind, 0) / share + 1e-9) for kind, share in needs.items() if share)
    wanted = room if concurrency is None else concurrency
    if not 1 <= wanted <= room:
        each = " and ".join(f"{share:g} {kind}" for kind, share in needs.items() if share)
        has = ", ".join(f"{there.get(kind, 0):g} {kind}" for kind in needs)
        raise ValueError(
            f"{max(wanted, 1)} workers of {each} each do not fit into a cluster with {has}. Ask "
            "for fewer or smaller ones, or add machines."
        )
    return wanted
