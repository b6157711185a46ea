"""From a path to a manifest that may be evaluated: read, check, generate, match, leave out."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.images import LOSSY, ImageError, find_bad_images, read_header
from cnnsvm.data.manifest import find_bad_rows
from cnnsvm.data.near_duplicates import pick_paths
from cnnsvm.data.readers import merge_near_duplicates, open_dataset, write_samples
from cnnsvm.detection.detector import InpaintDetector
from cnnsvm.detection.training_overlap import find_near, training_hashes
from cnnsvm.features.saved import is_saved_network, saved_folder
from cnnsvm.generation import build, match_post_processing
from cnnsvm.generation.store import safe_name
from cnnsvm.io.bundle import SHIPPED
from cnnsvm.io.files import text_hash

logger = logging.getLogger(__name__)

KEEP = "keep"
#: Two classes may differ by this share in how many of their files are of one kind.
MOST_DIFFERENCE = 0.05
LOSSLESS = {"png", "webp"}  # as post-processing names them
JPEG_GRID = (
    "Sources were compressed before: the traces of that are still in the pixels of the originals "
    "and missing where an engine repainted, so part of what is detected may be their absence. "
    "Compare with a run that recompresses both classes, such as --codec jpeg:90."
)
LOSSY_FAKES = (
    "The finished images that the fakes were made from had been through a lossy codec: its "
    "traces are in the fakes alone, and part of what is detected may be those. Use lossless ones."
)
RESIZED = (
    "{} record(s) have the size of finished images, to which their originals were resized: right "
    "only if those were made from originals resized alike, else part of what is detected is that."
)
OVERLAP = "looks like an image that {} was trained on ({} bits of 64 differ)"
LEFT_OUT = (
    "{} of {} sources look like images that {} was trained on; they were left out, since a number "
    "on those would be no result."
)


@dataclass
class Prepared:
    """A manifest with both classes, what was left out of it, and what a reader must know."""

    manifest: pd.DataFrame
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def prepare(
    data: str | os.PathLike[str] | None,
    workdir: str | os.PathLike[str],
    *,
    generate: str | None = None,
    codec: str | None = None,
    groups: str | None = None,
    skip_bad: bool = False,
    variants: str = "spliced",
    random_state: int = 0,
) -> Prepared:
    """Make a data set ready for evaluation.

    Every image is decoded once before anything long starts. Sources that look alike get one group.
    Plain sources are repainted if an engine is named; records whose real and fake images differ in
    format or size are rewritten through one code path. A ValueError is raised if a class is
    missing.

    ``data`` and ``groups`` are as for `cnnsvm.data.readers.open_dataset`; None takes the embedded
    samples. Archives are unpacked and images made in ``workdir``. ``generate`` is the engine that
    makes the five inpaintings of each source (``variants``: "spliced", "regenerated" or "both";
    masks and engines draw from ``random_state``); the data's own fakes are left out. ``codec`` is
    the post-processing of all images, such as "png" or "jpeg:75"; "keep" leaves files as they are,
    None rewrites to PNG only if the classes differ. ``skip_bad`` leaves bad images out and lists
    them; else they are an `ImageError`.
    """
    work = Path(workdir)
    prepared = _read(data, work, groups, skip_bad, only_originals=generate is not None)
    bad = dict(find_bad_images(prepared.manifest["path"].tolist(), n_jobs=-1))
    leave_out_bad(prepared, bad, skip_bad)
    if generate is None and "record" not in prepared.manifest:
        # look-alikes share a group below, but each original keeps its own fakes and their size
        prepared.manifest["record"] = prepared.manifest["source_id"]
    prepared.manifest = merge_near_duplicates(prepared.manifest, n_jobs=-1)
    if generate is not None:
        _generate(prepared, work, generate, codec, variants, random_state)
    _check_classes(prepared.manifest, data)
    if generate is None:
        _match(prepared, work, codec, skip_bad)
        _check_classes(prepared.manifest, data)
    _warn_of_the_past(prepared)
    return prepared


def leave_out_seen(
    prepared: Prepared,
    trained: str | os.PathLike[str] | None,
    *,
    name: str = "the data",
    n_jobs: int | None = None,
) -> Prepared:
    """Leave out the sources that a saved detector was trained on, and warn of how many.

    One image stands for each source: an original if there is one. ``trained`` is the folder of the
    saved detector, or anything that an embedder takes as ``weights``: without a saved detector in
    it nothing is left out. ``name`` is what errors call the data, ``n_jobs`` the threads that
    decode images. A ValueError is raised if no source is left of a class, and a BundleError if the
    saved detector cannot be read.
    """
    if not is_saved_network(trained):
        return prepared
    origin = f"the detector {trained} that ships" if trained in SHIPPED else os.fspath(trained)
    known, warnings = training_hashes(saved_folder(trained)), list(prepared.warnings)
    manifest = prepared.manifest
    sources, paths = list(dict.fromkeys(manifest["source_id"])), pick_paths(manifest)
    found = find_near(known, paths, n_jobs=n_jobs)
    if not found:
        return Prepared(manifest, prepared.skipped, warnings)
    seen = {sources[index] for index, _ in found}
    kept = manifest[~manifest["source_id"].isin(seen)].reset_index(drop=True)
    if gone := sorted(set(manifest["label"]) - set(kept["label"])):
        raise ValueError(
            f"{len(seen)} of {len(sources)} sources of {name} look like images that {origin} was "
            f"trained on. Without them no image of label {gone[0]} is left to judge. Give other "
            "images, or weights of another origin."
        )
    skipped = [{"path": paths[i], "reason": OVERLAP.format(origin, bits)} for i, bits in found]
    warnings.append(LEFT_OUT.format(len(seen), len(sources), origin))
    return Prepared(kept, [*prepared.skipped, *skipped], warnings)


def leave_out_seen_by(prepared: Prepared, detector: InpaintDetector, **options: Any) -> Prepared:
    """Leave out what the initial weights of an unfitted detector were trained on."""
    weights = [getattr(embedder, "weights", None) for embedder in detector.embedders()]
    for trained in dict.fromkeys(weights):
        prepared = leave_out_seen(prepared, trained, **options)
    return prepared


def _read(
    data: str | os.PathLike[str] | None,
    work: Path,
    groups: str | None,
    skip_bad: bool,
    only_originals: bool,
) -> Prepared:
    if data is None:
        return Prepared(write_samples(work / "samples"))
    manifest = open_dataset(
        data, work / "unpacked", groups=groups, skip_bad=skip_bad, only_originals=only_originals
    )
    prepared = Prepared(manifest, list(manifest.attrs.get("skipped", [])))
    if skip_bad:
        leave_out_bad(prepared, dict(reversed(find_bad_rows(manifest))), skip_bad)
    prepared.manifest["label"] = prepared.manifest["label"].astype("int64")
    return prepared


def leave_out_bad(
    prepared: Prepared, bad: dict[int, str], skip_bad: bool, what: str = "read"
) -> None:
    """Leave out images by position and list the reasons; an `ImageError` unless ``skip_bad``."""
    if bad and not skip_bad:
        listed = "\n".join(f"  {reason}" for reason in list(bad.values())[:10])
        raise ImageError(
            f"{len(bad)} of {len(prepared.manifest)} images cannot be {what}:\n{listed}\n"
            "Repair or remove them, or leave them out with --skip-bad (skip_bad=True)."
        )
    for position, reason in bad.items():
        path = str(prepared.manifest["path"].iloc[position])
        prepared.skipped.append({"path": path, "reason": reason})
        logger.warning("left out: %s", reason)
    kept = [i for i in range(len(prepared.manifest)) if i not in bad]
    prepared.manifest = prepared.manifest.iloc[kept].reset_index(drop=True)


def _generate(
    prepared: Prepared,
    work: Path,
    engine: str,
    codec: str | None,
    variants: str,
    random_state: int,
) -> None:
    processing = "png" if codec in (None, KEEP) else str(codec)
    settings = f"{engine}-{processing}-{variants}-{random_state}"
    logger.info("repainting %d sources with %s", (prepared.manifest["label"] == 0).sum(), engine)
    folder = work / "generated" / safe_name(settings, text_hash(settings))
    prepared.manifest.attrs.clear()  # what was left out before is listed already
    options: dict[str, Any] = {
        "engine": engine,
        "variants": variants,
        "post_processing": processing,
    }
    made = build(prepared.manifest, folder, **options, n_jobs=-1, random_state=random_state)
    prepared.skipped += made.attrs["skipped"]
    prepared.manifest = made


def _check_classes(manifest: pd.DataFrame, data: Any) -> None:
    found = set(manifest["label"])
    if found == {0}:
        raise ValueError(
            f"{data} holds real images only; a detector needs fakes too. Add --generate "
            "opencv-telea to make five inpaintings of each, or give records that have them."
        )
    if found == {1}:
        raise ValueError(
            f"{data} holds fake images only; a detector needs real ones too. Add the originals."
        )


def _match(prepared: Prepared, work: Path, codec: str | None, skip_bad: bool) -> None:
    differ = _differing_files(prepared.manifest)
    if codec == KEEP:
        prepared.warnings += [f"The post-processing is not matched: {text}." for text in differ]
        return
    if codec is None and not differ:
        return
    processing = codec or "png"
    logger.info("rewriting all images as %s (%s)", processing, "; ".join(differ) or "as asked")
    folder = work / "matched" / processing.replace(":", "-").replace(",", "-")
    matched = match_post_processing(
        prepared.manifest, folder, processing, n_jobs=-1, skip_bad=skip_bad
    )
    prepared.skipped += matched.attrs["skipped"]
    prepared.manifest = matched
    if differ:
        prepared.warnings.append(
            f"Real and fake files differed ({'; '.join(differ)}); all were rewritten as "
            f"{processing}. {JPEG_GRID}"
        )


def _warn_of_the_past(prepared: Prepared) -> None:
    """Warn of what records went through before their common post-processing."""
    manifest = prepared.manifest
    if "history" not in manifest:
        return
    codecs = manifest["history"].astype(str).str.rpartition(",")[2]
    for column, warning in (("source_format", JPEG_GRID), ("engine_format", LOSSY_FAKES)):
        old = column in manifest and manifest[column].isin(LOSSY) & codecs.isin(LOSSLESS)
        if np.any(old) and not any(warning in known for known in prepared.warnings):
            prepared.warnings.append(warning)
    if "resized_from" in manifest and manifest["resized_from"].notna().any():
        n_records = manifest.loc[manifest["resized_from"].notna(), "record"].nunique()
        prepared.warnings.append(RESIZED.format(n_records))


def _file_kind(path: str) -> str:
    """Name the format of a file and, of a JPEG, how strong its quantisation is."""
    header = read_header(path)
    luma = header.quantization.get(0)
    return f"{header.format} (mean quantiser {np.mean(luma):.1f})" if luma else str(header.format)


def _differing_files(manifest: pd.DataFrame) -> list[str]:
    kinds = manifest["path"].map(_file_kind)
    shares = [kinds[manifest["label"] == label].value_counts(normalize=True) for label in (0, 1)]
    differ = []
    if shares[0].sub(shares[1], fill_value=0).abs().max() > MOST_DIFFERENCE:
        named = [
            ", ".join(f"{kind} {share:.0%}" for kind, share in part[:3].items()) for part in shares
        ]
        differ.append(f"real files are {named[0]}; fake ones {named[1]}")
    records = manifest.groupby("record")
    sizes = records[["width", "height"]].nunique().max(axis=1)
    n_mixed = int((sizes[records["label"].nunique() == 2] > 1).sum())
    if n_mixed:
        differ.append(f"{n_mixed} record(s) have images of several sizes")
    return differ
