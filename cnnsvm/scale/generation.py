"""Make records as Ray tasks: one a shard, on whatever machines share the folder."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.decoding import usual_max_pixels, usually
from cnnsvm.generation import build
from cnnsvm.generation.sources import SourceInput
from cnnsvm.generation.store import GenerationError, merge_shards
from cnnsvm.io.files import clear_partials
from cnnsvm.io.progress import show_progress
from cnnsvm.scale.cluster import gave_up, start_ray
from cnnsvm.scale.output import Output


def build_dataset(
    sources: SourceInput,
    folder: str | os.PathLike[str],
    n_shards: int,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    address: str | None = None,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Make records as `cnnsvm.generation.build` does, each shard a task of a Ray cluster.

    A task whose worker dies is begun again and goes on with its unfinished records; so does the
    same call after the death of this process or of the cluster. The shards merge as they do
    without Ray, and what is there at the end is the same, whoever was killed.

    Parameters
    ----------
    sources, folder
        As of `build`, on paths that all machines share.
    n_shards : int, at least 2
        Tasks; several a worker make the last ones end together.
    num_cpus, num_gpus : float, at least 0
        Of each task.
    address : str or None
        Of a cluster; None takes ``RAY_ADDRESS``, or starts one of this machine.
    progress : bool
    **options
        Of `build`, but for ``shard``; an engine by its text.

    Returns
    -------
    DataFrame
        The manifest of all shards.

    Raises
    ------
    EngineMissingError
        If Ray is missing or too old.
    GenerationError
        As of `build`, or if ``n_shards`` is less than 2.
    OutputError
        If another such call of this machine writes to ``folder``.
    ClusterError
        If the cluster breaks down.
    """
    if n_shards < 2:
        raise GenerationError(
            f"n_shards must be at least 2, got {n_shards}. One shard needs no cluster: use build."
        )
    root = os.path.abspath(folder)  # workers may be in another one
    if isinstance(sources, str | os.PathLike):
        sources = os.path.abspath(sources)
    cap, ray = usual_max_pixels(), start_ray(address)

    @ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=5)
    def make(shard: str) -> None:
        with usually(cap):  # other machines have an environment of their own
            build(sources, root, shard=shard, progress=False, **options)

    with Output(root).alone():
        tasks = [make.remote(f"{index}/{n_shards}") for index in range(1, n_shards + 1)]
        for _ in show_progress(_finished(ray, tasks), n_shards, "shards", progress):
            pass
        manifest = merge_shards(Path(root), n_shards)
        clear_partials(Path(root))  # of processes that were killed
    if manifest is None:
        raise GenerationError(f"the sources changed while {root} was made. Run the same again.")
    return manifest


def _finished(ray: Any, tasks: list[Any]) -> Iterator[None]:
    """Yield as tasks are finished; where one fails, the others end."""
    try:
        while tasks:
            (task,), tasks = ray.wait(tasks, num_returns=1)
            yield ray.get(task)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise gave_up("shard", error) from error
    finally:
        with suppress(Exception):  # the cluster may be gone
            for task in tasks:
                ray.cancel(task, force=True)
