"""Mark what was repainted: a mask, a map and an overlay for each image of a folder.

    cnnsvm localize photos found

Interrupted or killed and called again, it resumes.
"""

import argparse
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnsvm.cli.localize_train import add_machine_flags
from cnnsvm.cli.summary import count_reasons
from cnnsvm.io.memory import is_short_of_memory
from cnnsvm.io.tables import csv_line, whole_rows

if TYPE_CHECKING:
    import numpy as np

    from cnnsvm import InpaintLocalizer

logger = logging.getLogger(__name__)

TABLE = "localize.csv"
FIELDS = ("path", "sha256", "repainted", "highest", "mean", "status", "reason")
DONE, FAILED = "ok", "failed"
SUFFIXES = {"mask": ".mask.png", "map": ".map.png", "overlay": ".overlay.jpg"}
_OF_PREDICTION = ("tile_size", "tile_overlap", "threshold", "batch_size")
_ORIENTATION = 0x0112  # EXIF
_DEEPEST = 65535  # of a 16-bit map


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm localize``."""
    parser.epilog = "Exit status: 0 all done, 1 some images failed, 2 nothing could be begun."
    add: Any = parser.add_argument
    add("input", type=Path, help="an image, or a folder of them with its sub-folders")
    add("--strict", action="store_true", help="status 1 too if a file of the folder is no image")
    add("output", type=Path, help=f"folder of NAME{', NAME'.join(SUFFIXES.values())} and {TABLE}")
    add_prediction_flags(parser)


def add_prediction_flags(parser: argparse.ArgumentParser) -> None:
    """Add which model predicts, how, and where."""
    add: Any = parser.add_argument
    add(
        "--model", type=Path, metavar="DIR", help="folder of a saved localiser [the one that ships]"
    )
    add("--threshold", type=float, help="probability that counts as repainted [the model's]")
    add("--tile-size", type=int, help="pixels seen at once [the model's]")
    add("--tile-overlap", type=int, help="pixels [the model's]")
    add("--batch-size", type=int, help="lower it if memory is short [the model's]")
    add_machine_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Process the images that are not done yet, write the table; status 1 if an image failed."""
    from cnnsvm.evaluation.runs import RunDirectory
    from cnnsvm.io.bundle import bundle_id, read_config
    from cnnsvm.io.files import write_text
    from cnnsvm.io.progress import show_progress

    images, skipped = list_input(args.input, args.output)
    localizer = load_localizer(args)  # and args.model
    RunDirectory(args.output, _fingerprint(localizer, args.model), results=TABLE)
    model = bundle_id(read_config(args.model))
    table = args.output / TABLE
    done = read_finished(table)
    rows, fresh = [], 0
    write_text(table, _as_csv(done.values()))  # without a row that a killed call tore
    with open(table, "a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        for path, name in show_progress(images, len(images), "images"):
            row = _row(localizer, model, path, name, args.output, done.get(name.as_posix()))
            rows.append(row)
            if row is not done.get(name.as_posix()):
                fresh += 1
                stream.write(csv_line(row[name] for name in FIELDS))
                stream.flush()
    write_text(table, _as_csv(rows))
    failed = [row for row in rows if row["status"] == FAILED]
    for row in failed[:10]:
        logger.warning("%s", row["reason"])
    n_good = fresh - len(failed)  # those that fail are tried every time
    n_skipped = f"{len(skipped)} skipped{count_reasons(why for _, why in skipped)}"
    print(
        f"{n_good} image(s) done, {len(rows) - fresh} before, {len(failed)} failed, {n_skipped}: "
        f"{table}"
    )
    return 1 if failed or (args.strict and skipped) else 0


def list_input(place: Path, output: Path) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """List each image with its name relative to the input, and what is skipped and why.

    What lies in the output is left out.

    A ValueError is raised if the input is not there, holds no images, or is the output or in it.
    """
    from cnnsvm.data.scanning import scan_images

    if not place.exists():
        raise ValueError(f"{place}: no such file or folder. Check the path.")
    target = output.resolve()
    if place.resolve().is_relative_to(target):
        raise ValueError(
            f"the input {place} lies in the output {output}, which holds masks and maps. Choose "
            "another output folder."
        )
    if place.is_file():
        return [(place, Path(place.name))], []
    scan = scan_images(place)
    found = [path for path in scan.images if not path.resolve().is_relative_to(target)]
    if not found:
        raise ValueError(f"{place}: no images in this folder. Check the path.")
    skipped = [entry for entry in scan.skipped if not entry[0].resolve().is_relative_to(target)]
    return [(path, path.relative_to(place)) for path in found], skipped


def load_localizer(args: argparse.Namespace) -> "InpaintLocalizer":
    """Read the model, by default the one that ships, and set what the flags name."""
    from cnnsvm import InpaintLocalizer
    from cnnsvm.io.bundle import SHIPPED_LOCALIZER

    args.model = args.model or SHIPPED_LOCALIZER
    localizer = InpaintLocalizer.from_pretrained(args.model)
    asked = {name: getattr(args, name) for name in _OF_PREDICTION}
    machine = {name: getattr(args, name) for name in ("device", "precision", "gpu_memory_fraction")}
    localizer.set_params(**machine, **{k: v for k, v in asked.items() if v is not None})
    localizer.check_params()
    if args.threshold is not None:
        localizer.threshold_ = args.threshold
    return localizer


def read_finished(table: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of images that an earlier call finished, by path."""
    if not table.is_file():
        return {}
    text = table.read_text(encoding="utf-8", errors="surrogateescape")
    whole = [row for row in whole_rows(text) if set(row) == set(FIELDS)]
    return {row["path"]: row for row in whole if row["status"] == DONE}


def write_images(
    path: Path,
    pixels: "np.ndarray",
    probability: "np.ndarray",
    threshold: float,
    target: Path,
    caption: str = "",
) -> None:
    """Write mask, map and overlay of one image; pixels (H, W, 3) and probability are upright.

    ``TARGET.mask.png`` (8-bit grey, 0 or 255) and ``TARGET.map.png`` (16-bit grey, 0-65535 for 0-1)
    are pixel for pixel as the image is stored, with its EXIF orientation; ``TARGET.overlay.jpg`` is
    upright, with the caption in a strip below.
    """
    import numpy as np
    from PIL import Image

    from cnnsvm.data.encoding import write_image
    from cnnsvm.data.images import read_header
    from cnnsvm.detection.heatmap import as_stored
    from cnnsvm.report.overlay import draw_overlay

    exif = Image.Exif()
    exif[_ORIENTATION] = read_header(path).orientation
    stored = np.asarray(as_stored(probability, path))
    drawn = draw_overlay(pixels, probability, threshold, caption)
    called = stored >= np.float32(threshold)
    images: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "map": (np.rint(stored * _DEEPEST).astype(np.uint16), {"format": "PNG", "exif": exif}),
        "overlay": (drawn, {"format": "JPEG", "quality": 90}),
        "mask": (np.where(called, 255, 0).astype(np.uint8), {"format": "PNG", "exif": exif}),
    }
    for role, (values, options) in images.items():
        write_image(f"{target}{SUFFIXES[role]}", values, **options)


def _row(
    localizer: "InpaintLocalizer",
    model: str,
    path: Path,
    name: Path,
    output: Path,
    known: dict[str, Any] | None,
) -> dict[str, Any]:
    """Process one image, unless that was done and neither it nor the result has changed."""
    from cnnsvm.data.images import ImageError, image_hash, load_image

    target = output / name
    row: dict[str, Any] = dict.fromkeys(FIELDS, "") | {"path": name.as_posix(), "status": FAILED}
    try:
        row["sha256"] = image_hash(path)
        is_there = all(Path(f"{target}{suffix}").is_file() for suffix in SUFFIXES.values())
        if known is not None and known["sha256"] == row["sha256"] and is_there:
            return known
        pixels = load_image(path, max_pixels=localizer.max_pixels)
        probability = localizer.predict_proba([pixels])[0]
        share = float((probability >= probability.dtype.type(localizer.threshold_)).mean())
        said = f"{100 * share:.1f} % of the pixels look repainted. Model {model}."
        write_images(path, pixels, probability, localizer.threshold_, target, said)
    except (ImageError, OSError) as error:
        return row | {"reason": " ".join(str(error).split())}
    except (MemoryError, RuntimeError) as error:
        if not is_short_of_memory(error):
            raise
        return row | {"reason": f"{path}: there is not enough memory. Lower --tile-size."}
    stated = {"repainted": share, "highest": probability.max(), "mean": probability.mean()}
    return row | {key: f"{value:.5f}" for key, value in stated.items()} | {"status": DONE}


def _fingerprint(localizer: "InpaintLocalizer", model: Path) -> str:
    """Hash the model and the parameters that its masks depend on."""
    from cnnsvm.io.bundle import CONFIG

    digest = hashlib.sha256((model / CONFIG).read_bytes())  # has the hash of the weights
    params = localizer.get_params()
    known = [float(localizer.threshold_), params["tile_size"], params["tile_overlap"]]
    digest.update(repr(known).encode())
    return digest.hexdigest()


def _as_csv(rows: Any) -> str:
    return "".join(map(csv_line, [FIELDS, *([row[name] for name in FIELDS] for row in rows)]))
