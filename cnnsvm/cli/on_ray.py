"""``cnnsvm predict --engine ray``: the same rows, as Parquet files, from many workers."""

import argparse
import logging
from typing import Any

from cnnsvm.cli.flags import machine_of
from cnnsvm.cli.summary import status_of, summary_of
from cnnsvm.cli.supervision import supervised

logger = logging.getLogger(__name__)

#: What one engine alone does, and what says that it is not asked for.
_ALONE: dict[str, dict[str, Any]] = {
    "local": {
        **dict.fromkeys(("heatmaps", "untouched", "max_false_alarms", "format")),
        "heatmaps_for": "all",
    },
    "ray": {
        **{"workers": None, "worker_cpus": 1, "worker_gpus": 0, "partition_size": 1000},
        "address": None,
    },
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what says where images are judged."""
    group: Any = parser.add_argument_group(
        "more than one machine",
        "With --engine ray, --out is a folder of Parquet files. It, and what is judged, may be in "
        "a store, such as s3://bucket/folder; tar shards and .parquet tables with a column 'path' "
        "are read, too. The same command again goes on where it was killed.",
    )
    add = group.add_argument
    add("--engine", choices=("local", "ray"), default="local", help="[%(default)s]")
    add(
        "--workers", type=int, metavar="N", help="that hold a detector each [all there is room for]"
    )
    add("--worker-cpus", type=float, default=1, metavar="N", help="of each [%(default)s]")
    add("--worker-gpus", type=float, default=0, metavar="N", help="such as 0.25 [%(default)s]")
    add("--partition-size", type=int, default=1000, metavar="N", help="images a file [%(default)s]")
    add("--address", help="of a cluster [RAY_ADDRESS, or one of this machine is started]")


def main(args: argparse.Namespace, places: list[str]) -> int:
    """Judge on Ray, and say what was found."""
    if args.out is None:
        raise ValueError("--engine ray writes a folder of Parquet files. Name it with --out.")
    return supervised(lambda: _judge(args, places), args)


def _judge(args: argparse.Namespace, places: list[str]) -> int:
    from cnnsvm.scale import predict_dataset

    counts = predict_dataset(
        places,
        args.out,
        model=args.model,
        revision=args.revision,
        **machine_of(args),
        batch_size=args.batch_size,
        n_jobs=args.jobs,
        partition_size=args.partition_size,
        concurrency=args.workers,
        num_cpus=args.worker_cpus,
        num_gpus=args.worker_gpus,
        address=args.address,
        progress=not args.quiet,
    )
    if not args.quiet:
        logger.info("%s", summary_of(counts))
    return status_of(counts, args.strict)


def check_engine(args: argparse.Namespace) -> None:
    """Refuse what the other engine alone does."""
    other = "local" if args.engine == "ray" else "ray"
    for name, usual in _ALONE[other].items():
        if getattr(args, name) != usual:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{flag} is not for --engine {args.engine}. Leave it out, or add --engine {other}."
            )
