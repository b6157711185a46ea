"""Make records out of untouched images: masks, inpaintings, a manifest.

    cnnsvm build photos records                                  five masks, OpenCV
    cnnsvm build photos records --engine vae:FOLDER --variants both
    cnnsvm build archive.zip records --engine diffusion --shard 1/4
    cnnsvm build archive.zip records --engine file:inpainting.webp

Interrupted or killed and called again, it resumes.
"""

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cnnsvm.cli.supervision import supervised

SETS = {"mission": "the five of a DeepfakeArt study", "sides": "four halves", "shapes": "all nine"}
_OPTIONS = ("engine", "variants", "edge", "post_processing", "prompt")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm build``."""
    parser.add_argument("sources", help="images, records, a tree, a manifest, or an archive of one")
    parser.add_argument("folder", type=Path, help="where the records go")
    parser.add_argument(
        "--engine",
        default="opencv-telea",
        help="opencv-telea, opencv-ns, self-blend, decoder:FOLDER, vae:MODEL, diffusion:MODEL, "
        "file:PATTERN [%(default)s]",
    )
    parser.add_argument(
        "--schemas",
        nargs="+",
        default=["mission"],
        metavar="SCHEMA",
        help=f"mask schemas by name, or {', '.join(f'{k} ({v})' for k, v in SETS.items())}",
    )
    parser.add_argument("--variants", default="spliced", choices=("spliced", "regenerated", "both"))
    parser.add_argument("--edge", default="hard", help="hard, or blur:R in pixels [%(default)s]")
    parser.add_argument(
        "--post-processing",
        default="png",
        help="of all files, such as jpeg:90 or 512x512,bicubic,webp [%(default)s]",
    )
    parser.add_argument("--prompt", help="for engines that take one")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="make one part of N")
    parser.add_argument(
        "--ray-shards",
        type=int,
        metavar="N",
        help="make all of N parts as tasks of a Ray cluster (RAY_ADDRESS, or one of this machine)",
    )
    parser.add_argument("--groups", help="what names the source: a pattern or a CSV table")
    parser.add_argument("--work", type=Path, help="where an archive is unpacked [FOLDER.work]")
    parser.add_argument("--no-panels", action="store_true", help="no group images")
    parser.add_argument("--no-space-check", action="store_true", help="start with little space")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad source")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=-1, help="threads [one a core]")


def main(args: argparse.Namespace) -> int:
    """Open the sources, make what is missing of the records, say what there is."""
    return _build(args) if args.ray_shards is None else supervised(lambda: _build(args), args)


def _build(args: argparse.Namespace) -> int:
    from cnnsvm.data.readers import open_dataset

    make = _maker(args)
    folder = args.folder.absolute()
    work = args.work or folder.with_name(folder.name + ".work")
    sources = open_dataset(
        args.sources, work, groups=args.groups, skip_bad=not args.strict, only_originals=True
    )
    with _quiet():
        manifest = make(
            sources,
            folder,
            schemas=_expand(args.schemas),
            **{name: getattr(args, name) for name in _OPTIONS},
            panels=not args.no_panels,
            random_state=args.seed,
            n_jobs=args.jobs if args.ray_shards is None else max(args.jobs, 1),
            skip_bad=not args.strict,
            check_space=not args.no_space_check,
        )
    print(_summary(manifest, folder, len(manifest.attrs["skipped"])))
    return 0


def _maker(args: argparse.Namespace) -> Callable[..., Any]:
    """Return what makes the records: this process, or a cluster."""
    if args.ray_shards is None:
        from cnnsvm.generation import build

        return partial(build, shard=args.shard)
    if args.shard != "1/1":
        raise ValueError(f"--ray-shards makes all shards: leave --shard {args.shard} out.")
    from cnnsvm.scale import build_dataset

    return partial(build_dataset, n_shards=args.ray_shards, num_cpus=max(args.jobs, 1))


@contextmanager
def _quiet() -> Iterator[None]:
    # one line a bad source is in errors.csv; of thousands the log shows too much
    logger = logging.getLogger("cnnsvm.generation.sources")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _expand(names: list[str]) -> list[str]:
    from cnnsvm.generation import MASK_SCHEMAS, MISSION_SCHEMAS, SIDE_SCHEMAS

    sets = {"mission": MISSION_SCHEMAS, "sides": SIDE_SCHEMAS, "shapes": tuple(MASK_SCHEMAS)}
    expanded = []
    for given in names:
        kind, colon, limits = given.partition(":")
        expanded += [name + colon + limits for name in sets.get(kind, (kind,))]
    return list(dict.fromkeys(expanded))


def _summary(manifest: Any, folder: Path, n_errors: int) -> str:
    counts = manifest["variant"].value_counts()
    kinds = ", ".join(f"{counts[name]:,} {name}" for name in counts.index)
    lines = []
    if len(counts):
        lines.append(f"{manifest['record'].nunique():,} records in {folder}: {kinds}")
    if n_errors:
        lines.append(f"{n_errors:,} could not be made: errors.csv beside them says why.")
    if not (folder / "manifest.parquet").exists():
        lines.append("Other shards are missing; the last one writes manifest.parquet.")
    return "\n".join(lines)
