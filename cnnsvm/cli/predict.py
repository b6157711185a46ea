"""Judge images with the detector that ships with cnnsvm, or another one."""

import argparse
import csv
import logging
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnsvm import CombinedDetector, InpaintDetector, RegionDetector

logger = logging.getLogger(__name__)

_ORIENTATION = 0x0112  # EXIF


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``cnnsvm predict``."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them"
    )
    parser.add_argument(
        "--model",
        help="one detector alone: cnnsvm (traces of engines), generated (whole images) or cifake "
        "(32 pixels), which ship, a folder, or owner/name on the Hugging Face hub [all evidence]",
    )
    parser.add_argument("--revision", help="commit, tag or branch of a model on the hub")
    parser.add_argument(
        "--heatmaps",
        type=Path,
        metavar="DIR",
        help="write there where each image looks repainted: NAME.heatmap.png, NAME.overlay.jpg",
    )
    parser.add_argument(
        "--untouched",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="your own untouched images, or folders of them, to recalibrate on",
    )
    parser.add_argument(
        "--max-false-alarms",
        type=float,
        metavar="SHARE",
        help="of images like --untouched that may be named fake [0.05]",
    )
    parser.add_argument(
        "--strict", action="store_true", help="status 1 too if a file of a folder is no image"
    )
    parser.add_argument("--max-pixels", type=int, metavar="N", help="of an image [200,000,000]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")


def main(args: argparse.Namespace) -> int:
    """Write one CSV row an image to standard output; status 1 if an image cannot be judged."""
    from cnnsvm import CombinedDetector, InpaintDetector
    from cnnsvm.data.images import ImageError

    _check_places(args.images, args.heatmaps)
    found, skipped = _find(args.images, args.heatmaps)  # before anything is written
    region = None
    if args.model is None:
        if args.revision is not None:
            raise ValueError(f"--revision {args.revision} needs the --model that it is one of.")
        combined = CombinedDetector.from_pretrained(args.device)
        if args.max_pixels is not None:
            each = ("max_pixels", "trace__max_pixels", "region__max_pixels")
            combined.set_params(**dict.fromkeys(each, args.max_pixels))
        _recalibrate(combined, args)
        detector: InpaintDetector = combined.trace
        region = combined.region
        judge: Callable[[Path], dict[str, Any]] = partial(_judge_all, combined)
        fields = ["path", "verdict", "evidence"]
        fields += [f"probability_{name}" for name in combined.classes_]
        fields += ["coverage", "was_jpeg", "was_resampled"]
    else:
        detector = InpaintDetector.from_pretrained(
            args.model, revision=args.revision, device=args.device
        )
        if args.max_pixels is not None:
            detector.set_params(max_pixels=args.max_pixels)
        _recalibrate(detector, args)
        names = class_names(detector)
        judge = partial(_judge, detector, names)
        fields = ["path", "prediction", "verdict", *(f"probability_{name}" for name in names)]
    _check_detector(detector, args.heatmaps)
    fields += ["error"] if args.heatmaps is None else ["heatmap", "error"]
    writer = csv.DictWriter(sys.stdout, fields, restval="")
    writer.writeheader()
    n_bad, taken = 0, Counter[Path]()
    for path, name in found:
        row: dict[str, Any] = {"path": path}
        try:
            row |= judge(path)
            if args.heatmaps is not None:
                target = _free_name(args.heatmaps / name, taken)
                speaker = region if region and row["evidence"] == "region" else detector
                row["heatmap"] = write_heatmap(speaker, path, target)
        except ImageError as error:
            row["error"] = str(error)
        n_bad += "error" in row
        writer.writerow(row)
        sys.stdout.flush()
    writer.writerows({"path": path, "error": f"skipped: {reason}"} for path, reason in skipped)
    said = f"{len(found) - n_bad} judged, {n_bad} failed, {len(skipped)} skipped"
    logger.info("%s", said + count_reasons(skipped))
    return 1 if n_bad or (args.strict and skipped) else 0


def count_reasons(skipped: list[tuple[Path, str]]) -> str:
    """Say why files were skipped, " (3 not an image)"; nothing if none was."""
    reasons = Counter(reason for _, reason in skipped).most_common()
    return f" ({', '.join(f'{n} {reason}' for reason, n in reasons)})" if reasons else ""


def _recalibrate(detector: "CombinedDetector | InpaintDetector", args: argparse.Namespace) -> None:
    """Choose the threshold on the images of --untouched, and say what it promises."""
    share = args.max_false_alarms
    if args.untouched is None:
        if share is not None:
            raise ValueError(
                f"--max-false-alarms {share} needs --untouched images to be chosen on."
            )
        return
    paths = [path for path, _ in _find(args.untouched, None)[0]]
    found = detector.recalibrate(paths, 0.05 if share is None else share).false_alarms_
    if found is not None:
        logger.info(
            "of images like these %d, %.1f %% will be named fake on average, %.1f to %.1f %% in 95 "
            "of 100 recalibrations",
            *(found.n_images, 100 * found.expected, 100 * found.low, 100 * found.high),
        )


def class_names(detector: "InpaintDetector") -> list[str]:
    """Name the classes; the labels 0 and 1 of a manifest are real and fake."""
    classes = detector.classes_.tolist()
    return ["real", "fake"] if classes == [0, 1] else [str(label) for label in classes]


def write_heatmap(detector: "InpaintDetector | RegionDetector", path: Path, target: Path) -> Path:
    """Write where a fine-tuned detector finds an image repainted, and return the file.

    ``TARGET.heatmap.png`` is 8-bit grey (0-255 for 0-1) and pixel for pixel as the image is
    stored, with the same EXIF orientation. ``TARGET.overlay.jpg`` beside it is upright. An
    ImageError says that the image cannot be read or a file not written.
    """
    import numpy as np
    from PIL import Image

    from cnnsvm.data.encoding import write_image
    from cnnsvm.data.images import ImageError, load_image, read_header
    from cnnsvm.localization.masks import draw_overlay

    stored = np.round(255 * detector.explain(path)).astype(np.uint8)
    exif = Image.Exif()
    exif[_ORIENTATION] = read_header(path).orientation
    heatmap = target.with_name(f"{target.name}.heatmap.png")
    try:
        write_image(heatmap, stored, "PNG", exif=exif)
        heat = load_image(heatmap, max_pixels=stored.size)[:, :, 0] / np.float32(255)
        pixels = load_image(path, max_pixels=detector.max_pixels)
        drawn = draw_overlay(pixels, heat, np.zeros(heat.shape, bool))
        write_image(target.with_name(f"{target.name}.overlay.jpg"), drawn, "JPEG", quality=90)
    except OSError as error:
        raise ImageError(f"{path}: its heatmap cannot be written ({error}).") from error
    return heatmap


def _check_places(places: list[Path], heatmaps: Path | None) -> None:
    for place in places:
        if _is_in(place, heatmaps):
            raise ValueError(
                f"{place} is to be judged and lies in --heatmaps {heatmaps}. Choose another folder."
            )


def _is_in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _check_detector(detector: "InpaintDetector", heatmaps: Path | None) -> None:
    if not hasattr(detector, "predict_proba"):
        raise ValueError(
            "the detector's classifier has calibrate=False and states no probabilities. Fit one "
            "with calibrate=True."
        )
    can_explain = any(getattr(each, "has_classifier", False) for each in detector.embedder_)
    if heatmaps is not None and not can_explain:
        raise ValueError(
            "--heatmaps needs a fine-tuned detector. Leave it out, or fit with --finetune full."
        )


def _find(
    places: list[Path], heatmaps: Path | None
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, str]]]:
    """Find each image with its name below the folder of heatmaps, and what is skipped and why."""
    from cnnsvm.data.scanning import scan_images

    images, skipped = [], []
    for place in places:
        if not place.is_dir():
            images.append((place, Path(place.name)))
            continue
        found = scan_images(place)
        own = [path for path in found.images if not _is_in(path, heatmaps)]
        images += [(path, path.relative_to(place)) for path in own or [place]]
        skipped += [entry for entry in found.skipped if not _is_in(entry[0], heatmaps)]
    return images, skipped


def _image(path: Path) -> Path:
    from cnnsvm.data.images import ImageError

    if path.is_dir():
        raise ImageError(f"{path}: no images in this folder. Check the path.")
    return path


def _judge_all(detector: "CombinedDetector", path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {str(k): v for k, v in detector.explain([_image(path)]).iloc[0].items()}
    stated = {f"probability_{name}": f"{found.pop(name):.4f}" for name in detector.classes_}
    return found | stated | {"coverage": f"{found['coverage']:.3f}"}


def _judge(detector: "InpaintDetector", names: list[str], path: Path) -> dict[str, Any]:
    from cnnsvm.detection.reject import UNSURE

    judged = detector.judge([_image(path)])
    name = names[judged.codes[0]]
    pairs = zip(names, judged.probabilities[0], strict=True)
    stated = {f"probability_{label}": f"{p:.4f}" for label, p in pairs}
    return {"prediction": name, "verdict": UNSURE if judged.is_unsure[0] else name} | stated


def _free_name(target: Path, taken: Counter[Path]) -> Path:
    """Number the names that images of several folders share."""
    taken[target] += 1
    return target if taken[target] == 1 else target.with_name(f"{target.name}-{taken[target]}")
