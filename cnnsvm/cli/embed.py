"""Write what a detector's networks make of images: a Parquet file of vectors, one row an image."""

import argparse
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli.flags import add_backend_flags, machine_of

if TYPE_CHECKING:
    import numpy as np

    from cnnsvm import InpaintDetector

logger = logging.getLogger(__name__)

PART = 512  # rows that an interruption costs at most


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm embed``."""
    parser.epilog = "Exit status: 0 all are embedded, 1 some could not be read, 2 wrong usage."
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them")
    add("--out", type=Path, required=True, metavar="FILE", help="Parquet; images in it are kept")
    model = "a detector that ships (cnnsvm, generated, cifake), a folder, or owner/name on the hub"
    add("--model", default="cnnsvm", help=f"{model} [%(default)s]")
    add("--batch-size", type=int, default=8, metavar="N", help="images at once [%(default)s]")
    add("--jobs", type=int, default=2, metavar="N", help="threads that decode [%(default)s]")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add_backend_flags(add)


def main(args: argparse.Namespace) -> int:
    """Embed the images that the file lacks. An interrupted call resumes."""
    from cnnsvm import InpaintDetector
    from cnnsvm.detection.embedding_table import EmbeddingTable
    from cnnsvm.detection.parity import other_ways
    from cnnsvm.io.files import check_file

    for name in ("batch_size", "jobs"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be at least 1, got {getattr(args, name)}.")
    check_file(args.out)
    detector = InpaintDetector.from_pretrained(args.model, **machine_of(args))
    names = [str(name) for name in detector.get_feature_names_out()]
    ways = sorted({word for way in other_ways(detector.embedder_) for word in way})
    table = EmbeddingTable(args.out, names, "-".join([str(detector.model_id_), *ways]))
    wanted, n_failed = _hashed(_find(args.images))
    known = table.known()
    missing = [(path, sha) for path, sha in wanted if (str(path), sha) not in known]
    for part in _batched(missing, PART):
        n_failed += _embed(detector, table, part, args)
    n_rows = table.join()
    logger.info(
        "%d rows in %s; %d were there already, %d image(s) could not be read",
        *(n_rows, args.out, len(wanted) - len(missing), n_failed),
    )
    return 1 if n_failed else 0


def _find(places: list[Path]) -> list[Path]:
    """List the images that are named, or below the folders that are."""
    from cnnsvm.data.scanning import list_images

    found = [
        path for place in places for path in (list_images(place) if place.is_dir() else [place])
    ]
    if not found:
        raise ValueError(f"no image below {', '.join(map(str, places))}. Name files or folders.")
    return list(dict.fromkeys(found))


def _hashed(paths: list[Path]) -> tuple[list[tuple[Path, str]], int]:
    """Return each path with the hash of its file, and how many could not be read."""
    from cnnsvm.data.images import ImageError, image_hash, image_name

    found, n_failed = [], 0
    for path in paths:
        try:
            str(path).encode()
            found.append((path, image_hash(path)))
        except UnicodeEncodeError:
            logger.warning(
                "%s: its name is not UTF-8, which Parquet needs. Rename it.", image_name(path)
            )
            n_failed += 1
        except ImageError as error:
            logger.warning("%s", error)
            n_failed += 1
    return found, n_failed


def _embed(
    detector: "InpaintDetector", table: Any, part: Sequence[tuple[Path, str]], args: Any
) -> int:
    """Embed a part of the images and add its rows; return how many could not be read."""
    import numpy as np

    rows: list[tuple[str, str]] = []
    vectors: list[np.ndarray] = []
    for batch in _batched(_read(detector, part, args.jobs), args.batch_size):
        keys, images = zip(*batch, strict=True)
        rows += keys
        vectors.append(detector.transform(list(images)))
    if rows:
        table.add(*zip(*rows, strict=True), np.concatenate(vectors))
        logger.info("%d of %d images embedded", len(rows), len(part))
    return len(part) - len(rows)


def _read(
    detector: "InpaintDetector", part: Sequence[tuple[Path, str]], n_jobs: int
) -> "Iterator[tuple[tuple[str, str], np.ndarray]]":
    """Decode images ahead; warn of those that cannot be read and leave them out."""
    import numpy as np

    from cnnsvm.features.reading import Decoded, read_or_fail

    paths = [path for path, _ in part]
    decoded = Decoded(paths, memory=0, max_pixels=detector.max_pixels)
    for (path, sha), item in zip(part, read_or_fail(decoded, n_jobs), strict=True):
        if isinstance(item, np.ndarray):
            yield (str(path), sha), item
        else:
            logger.warning("%s", item)


def _batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
