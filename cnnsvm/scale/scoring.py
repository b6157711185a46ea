"""Judge images on Ray Data: actors that hold a detector, and a Parquet file a block of images."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnnsvm.data.decoding import usual_max_pixels, usually
from cnnsvm.io.files import text_hash
from cnnsvm.io.progress import show_progress
from cnnsvm.report.judging import Judge
from cnnsvm.scale.attempts import Attempts
from cnnsvm.scale.cluster import check_version, gave_up, start_ray, workers
from cnnsvm.scale.output import Output
from cnnsvm.scale.rows import decode_block, encode_block, judge_block, to_table
from cnnsvm.scale.sources import Block, find_blocks, is_remote

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What every worker is told: the judge, and how it works."""

    model: str | None
    revision: str | None
    device: str
    backend: str | None
    precision: str | None
    max_pixels: int
    batch_size: int
    n_jobs: int

    def judge(self) -> Judge:
        """Load the judge."""
        return Judge(
            self.model,
            revision=self.revision,
            device=self.device,
            backend=self.backend,
            precision=self.precision,
        )


class Scorer:
    """The actor: it holds a judge, and turns each block into a partition of the output.

    Images are read and decoded ahead on threads here, where they are judged, so that none of them
    travels: what a worker holds is a batch and what is decoded ahead, however many images there
    are.
    """

    def __init__(self, options: Options, place: str, model: str) -> None:
        self.options, self.output, self.model = options, Output(place), model
        self.judge: Judge | None = None

    def __call__(self, block: "pa.Table") -> "pa.Table":
        """Judge a block, one row an input, and write its partition.

        Returns
        -------
        pyarrow.Table
            One row: the ``partition``, and the ``error`` that ends the job, or none.
        """
        import pyarrow as pa

        done: dict[str, Any] = {"partition": block["partition"][0].as_py(), "error": ""}
        try:
            # other machines have an environment of their own
            with usually(self.options.max_pixels):
                self._write(decode_block(block))
        except (ValueError, OSError) as error:  # the same for every block: no retry helps
            done["error"] = f"{type(error).__name__}: {error}"
        return pa.Table.from_pylist([done])

    def _write(self, block: Block) -> None:
        if self.judge is None:
            self.judge = self.options.judge()
        if self.judge.model != self.model:
            raise ValueError(
                f"a worker has the model {self.judge.model}, the job {self.model}. Put the same "
                "files of the detector and the same version of cnnsvm on every machine."
            )
        attempts = Attempts(self.output, block.name)
        rows = judge_block(
            self.judge, block, self.options.n_jobs, self.options.batch_size, attempts
        )
        self.output.write(block.name, to_table(self.judge, rows))
        attempts.end()


def predict_dataset(
    places: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    max_pixels: int | None = None,
    batch_size: int = 8,
    n_jobs: int = 2,
    partition_size: int = 1000,
    concurrency: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    address: str | None = None,
    progress: bool = True,
) -> Counter[str]:
    """Judge any number of images on a Ray cluster, or on this machine's cores, into Parquet files.

    Blocks of ``partition_size`` images are judged by actors that each hold a detector. A block is
    one Parquet file, which appears whole, so that the same call goes on where workers, this
    process, or the cluster were killed: finished blocks stay, and each worker does one again.

    Parameters
    ----------
    places : images, folders, tar shards (the layout of WebDataset) and ``.parquet`` tables
        Of this machine, or addresses that fsspec reads, such as ``s3://bucket/folder``. A table
        has a column ``path``. An image that is named twice is judged once.
    out : folder of the partitions, here or in a store
        Columns: ``path`` (absolute), ``verdict``, a ``probability_`` of each class, ``class`` and
        ``probability`` of the most probable one, ``coverage`` in (0, 1], ``metadata``, ``sha256``,
        ``model`` and ``error``; of all evidence also ``evidence``, ``was_jpeg`` and
        ``was_resampled``. An image that cannot be judged is a row with an ``error``.
    model, revision, device, backend, precision
        As of `cnnsvm.report.judging.Judge`. The files of the model are on every machine. What
        embeds must be the same on all of them, so ``backend`` is not "auto".
    max_pixels : int, optional
        Of an image; by default 200 million, or what CNNSVM_MAX_PIXELS says here.
    batch_size : int, at least 1
        Images that are judged at once.
    n_jobs : int, at least 1
        Threads a worker that read and decode.
    partition_size : int, at least 1
        Images a block; a tar shard is a block of its own.
    concurrency : int or None
        Workers; None takes as many as the cluster has room for.
    num_cpus, num_gpus : float, at least 0
        Of each worker; a quarter of a GPU is 0.25.
    address : str or None
        Of a cluster; None takes ``RAY_ADDRESS``, or starts one of this machine.
    progress : bool

    Returns
    -------
    Counter
        Rows of the whole output by what they count as (`Judge.counts_as`): "with traces", "without
        known traces", "unsure", "failed", and the reason of those that were skipped.

    Raises
    ------
    EngineMissingError
        If Ray is missing or too old.
    OutputError
        If ``out`` holds rows of another job, or another job writes to it.
    ValueError
        If there is no input, a parameter is wrong, the workers do not fit into the cluster, or a
        worker has no such model. Partitions that are finished stay.
    ClusterError
        If the cluster breaks down.
    """
    check_version()
    _check(batch_size=batch_size, n_jobs=n_jobs, partition_size=partition_size)
    _check(concurrency=1 if concurrency is None else concurrency)
    if not (num_cpus >= 0 and num_gpus >= 0 and num_cpus + num_gpus > 0):
        raise ValueError(
            f"a worker needs at least 0 CPU and GPU, and some of one, got {num_cpus:g} and "
            f"{num_gpus:g}. Ask for a share of one (--worker-cpus, --worker-gpus)."
        )
    if backend == "auto":
        raise ValueError(
            "backend must be the same in all workers, and 'auto' takes the faster one of each. "
            "Name one of them."
        )
    cap = usual_max_pixels() if max_pixels is None else max_pixels
    options = Options(model, revision, device, backend, precision, cap, batch_size, n_jobs)
    output, judged = Output(out), [os.fspath(place) for place in places]
    _check_apart(judged, output)
    blocks = find_blocks(judged, partition_size)
    if not blocks:
        raise ValueError("no images. Name images, folders, tar shards or Parquet tables of paths.")
    judge = options.judge()
    with output.alone():
        output.claim(
            {
                "model": judge.model,
                "max_pixels": cap,
                "inputs": text_hash("\n".join(block.name for block in blocks))[:16],
                "blocks": len(blocks),
                "partition_size": partition_size,
            }
        )
        rest = _unfinished(blocks, output)
        logger.info("%d of %d blocks are to be judged", len(rest), len(blocks))
        if rest:
            ray = start_ray(address)
            n_workers = min(len(rest), workers(ray, concurrency, num_cpus, num_gpus))
            scorer = (options, output.place, judge.model)
            done = _run(ray, rest, scorer, n_workers, num_cpus, num_gpus)
            ready = len(blocks) - len(rest)
            for _ in show_progress(done, len(rest) + ready, "blocks", progress, ready=ready):
                pass
        return _counts(judge, output, blocks)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            option = {"n_jobs": "jobs", "concurrency": "workers"}.get(name, name.replace("_", "-"))
            raise ValueError(f"{name} (--{option}) must be at least 1, got {value}.")


def _check_apart(places: Sequence[str], output: Output) -> None:
    """Refuse an output that would itself be listed when the same job goes on."""
    for place in places:
        inner, outer = output.place, place
        if not (output.remote or is_remote(place)):
            inner, outer = os.path.realpath(inner), os.path.realpath(outer)
        if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
            raise ValueError(
                f"{output.place} lies in {place}, which is judged. Name another --out."
            )


def _unfinished(blocks: Sequence[Block], output: Output) -> list[Block]:
    there = output.partitions()

    def is_finished(block: Block) -> bool:
        rows = there.get(block.name, 0)
        return rows > 0 if block.is_shard else rows == len(block.entries)

    return [block for block in blocks if not is_finished(block)]


def _run(
    ray: Any,
    blocks: Sequence[Block],
    scorer: tuple[Options, str, str],
    n_workers: int,
    num_cpus: float,
    num_gpus: float,
) -> Iterator[str]:
    """Let the workers judge blocks, and yield the names of those that are finished."""
    from ray.data import ActorPoolStrategy, DataContext, from_arrow

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # each plan, and each error at length
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    dataset = from_arrow([encode_block(block) for block in blocks]).map_batches(
        Scorer,
        fn_constructor_args=scorer,
        batch_size=None,
        batch_format="pyarrow",
        # a worker that dies takes one block with it, not those that wait for it too
        compute=ActorPoolStrategy(size=n_workers, max_tasks_in_flight_per_actor=1),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    try:
        tables: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        for table in tables:
            for row in table.to_pylist():
                if row["error"]:
                    raise ValueError(f"{row['partition']}: {row['error']}")
                yield row["partition"]
    except ray.exceptions.RayError as error:
        raise gave_up("block", error) from error


def _counts(judge: Judge, output: Output, blocks: Sequence[Block]) -> Counter[str]:
    """Count the rows of all partitions by kind."""
    counts: Counter[str] = Counter()
    for block in blocks:
        for row in output.read(block.name, ["verdict", "metadata", "error"]):
            counts.update(judge.counts_as(row))
    return counts
