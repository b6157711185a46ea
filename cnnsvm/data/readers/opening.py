"""Open a data set in whichever accepted layout it comes."""

import logging
import os
from pathlib import Path

import pandas as pd

from cnnsvm.data.images import list_images
from cnnsvm.data.manifest import read_manifest
from cnnsvm.data.readers.archives import is_archive, unpack_archive
from cnnsvm.data.readers.cifake import MANY, is_large_cifake
from cnnsvm.data.readers.deepfakeart import (
    find_record_folders,
    find_role,
    read_originals,
    read_records,
)
from cnnsvm.data.readers.errors import DatasetError, MissingDataError
from cnnsvm.data.readers.folder import (
    find_class_folders,
    holds_records,
    read_folder,
    read_sources,
)
from cnnsvm.data.readers.groups import Groups, refuse_groups

logger = logging.getLogger(__name__)

LAYOUTS = """Accepted are:
  a manifest        records/manifest.parquet (or .csv), or the folder that holds it
  records           <folder>/0001/original.png with inpainting.png, mask.png (DeepfakeArt), or
                    inpainting_<schema>.png, mask_<schema>.png
  a Real/Fake tree  <folder>/Train/Real/a.jpg, <folder>/Train/Fake/b.jpg (Train, Test optional)
  sources           <folder>/a.jpg: untouched images only
  an archive        of any of the folders: .zip, .tar, .tar.gz, .tar.xz, .tar.bz2"""
_MANIFESTS = ("manifest.parquet", "manifest.csv")


def open_dataset(
    path: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    groups: Groups = None,
    variant: str = "regenerated",
    engine: str = "unknown",
    skip_bad: bool = False,
    only_originals: bool = False,
) -> pd.DataFrame:
    """Read a data set as a manifest, whatever its layout.

    Parameters
    ----------
    path : path
        A manifest, a folder in one of the layouts of ``data/README.md``, or an archive (.zip,
        .tar, .tar.gz, .tar.xz, .tar.bz2) of one.
    workdir : path
        Where an archive is unpacked, see `cnnsvm.data.readers.archives.unpack_archive`; not used
        otherwise.
    groups : None, regular expression, or path of a CSV table
        What names the source of loose images, see `cnnsvm.data.readers.groups.find_source_ids`.
        Manifests and records name their sources themselves.
    variant, engine : str
        What to put down for fakes that do not come with a manifest.
    skip_bad : bool
        Leave out loose files that are no images (listed in ``attrs["skipped"]``), and do not
        check the rows of a manifest: `cnnsvm.data.manifest.find_bad_rows` tells which are bad.
    only_originals : bool
        Of records, read the originals alone, whatever is wrong with what was made of them.

    Returns
    -------
    DataFrame
        Manifest with absolute paths. All labels are 0 for a folder of sources.

    Raises
    ------
    DatasetError
        If the layout is not recognised (the message lists those that are), or is recognised
        and incomplete, or an archive is damaged or unsafe, or holds CIFAKE: that is read straight
        into memory (`cnnsvm.data.readers.read_cifake`), not unpacked into 100,000 files.
    ManifestError
        If a manifest has bad rows.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise MissingDataError(f"{place}: no such file or folder. Check the path.\n{LAYOUTS}")
    if place.is_file() and is_archive(place):
        place = _unpack(place, workdir)
    if place.is_file():
        if place.suffix not in (".csv", ".parquet"):
            raise DatasetError(f"{place}: not a data set that is read here.\n{LAYOUTS}")
        refuse_groups(groups, place)
        return read_manifest(place, check=not skip_bad)
    return _open_folder(place, groups, variant, engine, skip_bad, only_originals)


def _unpack(archive: Path, workdir: str | os.PathLike[str]) -> Path:
    if is_large_cifake(archive):
        raise DatasetError(
            f"{archive}: holds more than {MANY:,} small images in CIFAKE's folders, so it is not "
            f"unpacked here. Read it into memory with "
            f"cnnsvm.data.readers.read_cifake({str(archive)!r}), or unpack it yourself and give "
            "the "
            "folder, or a part of it."
        )
    return unpack_archive(archive, workdir)


def _open_folder(
    folder: Path,
    groups: Groups,
    variant: str,
    engine: str,
    skip_bad: bool,
    only_originals: bool,
) -> pd.DataFrame:
    for place in (folder, *_wrapped(folder)):
        for manifest in (place / name for name in _MANIFESTS):
            if manifest.is_file():
                refuse_groups(groups, manifest)
                return read_manifest(manifest, check=not skip_bad)
        _check_finished(place)
        records = find_record_folders(place)
        if records:
            refuse_groups(groups, place)
            complete = any(_has_inpainting(record) for record in records) and not only_originals
            return read_records(place, variant, engine) if complete else read_originals(place)
    if find_class_folders(folder):
        return read_folder(folder, groups, variant=variant, engine=engine, skip_bad=skip_bad)
    if not list_images(folder):
        raise DatasetError(f"{folder}: no images and no manifest in it.\n{LAYOUTS}")
    logger.info("%s: read as a folder of untouched sources.", folder)
    return read_sources(folder, groups, skip_bad=skip_bad)


def _check_finished(folder: Path) -> None:
    # read by the names of its folders, it would lose its groups, variants and engines
    if holds_records(folder):
        parts = sorted(path.name for path in folder.glob("manifest*.parquet"))
        named = f" What is made so far is in {', '.join(parts)}." if parts else ""
        raise DatasetError(
            f"{folder}: its records are not finished: there is no {_MANIFESTS[0]} yet. Run the "
            f"command that makes them again, or its other shards.{named}"
        )


def _has_inpainting(record: Path) -> bool:
    return any(find_role(path)[0] == "inpainting" for path in record.iterdir())


def _wrapped(folder: Path) -> list[Path]:
    """Return the folder that a folder holds and nothing else, as archives often wrap all."""
    visible = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return visible if len(visible) == 1 and visible[0].is_dir() else []
