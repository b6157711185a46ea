"""Judge images with all the evidence that ships with cnnsvm, or with one detector."""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli import on_ray
from cnnsvm.cli.flags import add_backend_flags, machine_of
from cnnsvm.cli.rows import FORMATS, Row, Rows
from cnnsvm.cli.summary import status_of, summary_of

if TYPE_CHECKING:
    from cnnsvm.report.judging import Judge

logger = logging.getLogger(__name__)

_YELLOW, _BOLD_MAGENTA = "33", "1;35"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm predict``."""
    parser.epilog = (
        "Exit status: 0 nothing found, 1 traces in some image, or metadata that name a generator, "
        "2 some files failed, 3 nothing could be begun. Metadata are said apart from what the "
        "pixels show and never change a verdict; they can be removed and forged, so that none say "
        "nothing."
    )
    add: Any = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="files or folders; each image is judged once")
    add("--files-from", metavar="FILE", help="a list of them, one a line; - is standard input")
    add(
        "--model",
        help="one detector alone: cnnsvm (traces of engines), generated (whole images) or cifake "
        "(32 pixels), which ship, a folder, or owner/name on the Hugging Face hub [all evidence]",
    )
    add("--revision", help="commit, tag or branch of a model on the hub")
    add("--format", choices=FORMATS, help="[sentences on a terminal, else CSV]")
    add(
        "--out",
        "--output",
        metavar="FILE",
        help="write rows there; the same command again judges what is new, changed or failed "
        "[standard output]",
    )
    add("--quiet", action="store_true", help="no progress and no summary")
    add(
        "--heatmaps",
        type=Path,
        metavar="DIR",
        help="write there where an image looks repainted: NAME.heatmap.png, NAME.overlay.jpg",
    )
    add(
        "--heatmaps-for",
        choices=("all", "suspicious"),
        default="all",
        help="of all images, or of those with traces, unsure or with metadata that name a "
        "generator [%(default)s]",
    )
    add(
        "--untouched",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="your own untouched images, or folders of them, to recalibrate on",
    )
    add(
        "--max-false-alarms",
        type=float,
        metavar="SHARE",
        help="of images like --untouched that may be named fake [0.05]",
    )
    add("--strict", action="store_true", help="status 2 too if a file of a folder is no image")
    add(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="images at once, of small ones more [%(default)s]",
    )
    add("--jobs", type=int, default=2, metavar="N", help="threads that decode [%(default)s]")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add_backend_flags(add)
    on_ray.add_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Write a row an image as they are judged, and a summary to standard error."""
    from cnnsvm.report.judging import SKIPPED, Judge

    on_ray.check_engine(args)
    named = [*args.images, *_listed(args.files_from)]
    if args.engine == "ray":
        return on_ray.main(args, named)
    places, args.out = (
        [Path(place) for place in named],
        None if args.out is None else Path(args.out),
    )
    _check(args, places)
    found, skipped = _find(places, args.heatmaps)
    judge = Judge(args.model, revision=args.revision, **machine_of(args))
    _recalibrate(judge, args)
    _check_heatmaps(judge, args.heatmaps)
    heatmap = [] if args.heatmaps is None else ["heatmap"]
    fields = [*judge.fields, *heatmap, "sha256", "model", "error"]
    rows = Rows(fields, _format(args), args.out, lambda row: _painted(judge, row, args.out))
    counts: Counter[str] = Counter()
    kept, rest = _divide(rows.known, found, judge.model, args)
    with closing(rows):
        rows.start(kept)
        for row in kept:
            counts.update(judge.counts_as(row))
        for row in _judged(judge, rest, args):
            counts.update(judge.counts_as(row))
            rows.add(row)
        for path, reason in skipped:
            row = {"path": str(path), "error": f"{SKIPPED}{reason}"}
            counts.update(judge.counts_as(row))
            rows.add(row)
    if not args.quiet:
        logger.info("%s", summary_of(counts, len(kept)))
        logger.info(
            "what it knows and misses: cnnsvm models%s", f" {args.model}" * bool(args.model)
        )
    return status_of(counts, args.strict)


def _judged(
    judge: "Judge", found: list[tuple[Path, Path]], args: argparse.Namespace
) -> Iterator[Row]:
    """Judge files in their order, with progress where no row is seen."""
    from cnnsvm.data.images import ImageError, image_hash
    from cnnsvm.io.progress import show_progress
    from cnnsvm.report.judging import NOTHING, judge_all
    from cnnsvm.report.metadata import names_generator

    said = judge_all(judge, [path for path, _ in found], args.jobs, args.batch_size)
    is_seen = args.out is None and sys.stdout.isatty()
    shown = show_progress(said, len(found), "images", not (args.quiet or is_seen))
    taken: Counter[Path] = Counter()
    for (path, name), row in zip(found, shown, strict=True):
        row = {"path": str(path)} | row
        if "error" in row and path.is_dir():
            row["error"] = f"{path}: no images in this folder. Check the path."
        try:
            if "error" not in row:
                row |= {"sha256": image_hash(path), "model": judge.model}
                is_suspicious = judge.kind(row) != NOTHING or names_generator(row)
                wanted = args.heatmaps_for == "all" or is_suspicious
                if args.heatmaps is not None and wanted:
                    target = _free_name(args.heatmaps / name, taken)
                    row["heatmap"] = str(_heatmap(judge, row, path, target))
        except ImageError as error:
            row["error"] = str(error)
        yield row


def _heatmap(judge: "Judge", row: Row, path: Path, target: Path) -> Path:
    from cnnsvm.report.overlay import write_heatmap

    return write_heatmap(judge.speaker(row), path, target, judge.threshold(row), judge.caption(row))


def _divide(
    known: dict[str, Row], found: list[tuple[Path, Path]], model: str, args: argparse.Namespace
) -> tuple[list[Row], list[tuple[Path, Path]]]:
    """Tell the rows of an earlier call that hold from the files that are to be judged."""
    from cnnsvm.data.images import ImageError, image_hash

    kept, rest = [], []
    for path, name in found:
        row = known.get(str(path))
        try:
            holds = (
                row is not None
                and not row.get("error")
                and row.get("model") == model
                and "metadata" in row
                and row.get("sha256") == image_hash(path)
                and (args.heatmaps is None or Path(row.get("heatmap") or "-").is_file())
            )
        except ImageError:  # it is told when it is judged
            holds = False
        if holds and row is not None:
            kept.append(row)
        else:
            rest.append((path, name))
    return kept, rest


def _recalibrate(judge: "Judge", args: argparse.Namespace) -> None:
    share = args.max_false_alarms
    if args.untouched is not None:
        paths = [path for path, _ in _find(args.untouched, None)[0]]
        judge.recalibrate(paths, 0.05 if share is None else share)
    elif share is not None:
        raise ValueError(f"--max-false-alarms {share} needs --untouched images to be chosen on.")


def _listed(file: str | None) -> list[str]:
    """Read the paths of --files-from, one a line."""
    if file is None:
        return []
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--files-from {file}: {reason}. Name a file of paths, or -.") from error
    return [os.fsdecode(line) for line in content.split(b"\n") if line]


def _check(args: argparse.Namespace, places: list[Path]) -> None:
    from cnnsvm.io.files import check_file, check_writable

    if not places:
        raise ValueError("no images. Name files or folders, or a list of them by --files-from.")
    for name in ("batch_size", "jobs"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be at least 1, got {getattr(args, name)}.")
    for place in places:
        if _is_in(place, args.heatmaps):
            raise ValueError(
                f"{place} is to be judged and lies in --heatmaps {args.heatmaps}. Choose another "
                "folder."
            )
    if args.out is not None:
        check_file(args.out)
    if args.heatmaps is not None:
        check_writable(args.heatmaps)


def _is_in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _check_heatmaps(judge: "Judge", heatmaps: Path | None) -> None:
    embedders = judge.detector.embedder_
    can_explain = any(getattr(each, "has_classifier", False) for each in embedders)
    if heatmaps is not None and not can_explain:
        raise ValueError(
            "--heatmaps needs a fine-tuned detector. Leave it out, or fit with --finetune full."
        )


def _find(
    places: list[Path], heatmaps: Path | None
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """Find each image, once, with its name below the folder of heatmaps; what is skipped and why.

    An image that is named again, as by its folder, keeps its first place and name.
    """
    from cnnsvm.data.scanning import scan_images

    images: dict[str, tuple[Path, Path]] = {}
    skipped: dict[str, tuple[Path, str]] = {}
    for place in places:
        if not place.is_dir():
            images.setdefault(os.path.abspath(place), (place, Path(place.name)))
            continue
        found = scan_images(place)
        own = [path for path in found.images if not _is_in(path, heatmaps)]
        for path in own or [place]:
            images.setdefault(os.path.abspath(path), (path, path.relative_to(place)))
        for path, reason in found.skipped:
            if not _is_in(path, heatmaps):
                skipped.setdefault(os.path.abspath(path), (path, reason))
    unnamed = [entry for place, entry in skipped.items() if place not in images]
    return [*images.values()], unnamed


def _format(args: argparse.Namespace) -> str:
    if args.format is not None:
        return str(args.format)
    if args.out is not None:
        suffix = args.out.suffix.lower().lstrip(".")
        return suffix if suffix in FORMATS else "text" if suffix == "txt" else "csv"
    return "text" if sys.stdout.isatty() else "csv"


def _sentence(judge: "Judge", row: Row) -> str:
    from cnnsvm.data.images import image_name

    name = image_name(row["path"])
    if "error" not in row:
        return f"{name}: {judge.sentence(row)}"
    said = row["error"].removeprefix(f"{name}: ")
    return f"{name}: {said}" if said.startswith("skipped") else f"{name}: not judged: {said}"


def _painted(judge: "Judge", row: Row, out: Path | None) -> str:
    """Return the sentence of a row, on a terminal in the colour of its verdict."""
    from cnnsvm.report.judging import TRACES, UNDECIDED

    sentence = _sentence(judge, row)
    plain = out is not None or not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    colour = {TRACES: _BOLD_MAGENTA, UNDECIDED: _YELLOW}
    code = None if plain or "error" in row else colour.get(judge.kind(row))
    return f"\x1b[{code}m{sentence}\x1b[0m" if code else sentence


def _free_name(target: Path, taken: Counter[Path]) -> Path:
    """Number the names that images of several folders share."""
    taken[target] += 1
    return target if taken[target] == 1 else target.with_name(f"{target.name}-{taken[target]}")
