"""Readers: the layouts that data sets come in, each turned into a manifest.

A module here holds the `Reader` of a layout; `READERS` lists them.
"""

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd

from cnnsvm.data.manifest import (
    SUFFIXES,
    DatasetError,
    MissingDataError,
    Reader,
    read_manifest,
)
from cnnsvm.data.near_duplicates import merge_near_duplicates
from cnnsvm.data.readers import deepfakeart, folder
from cnnsvm.data.readers.archives import is_archive, unpack_archive
from cnnsvm.data.readers.cifake import Cifake, is_large_cifake, read_cifake
from cnnsvm.data.readers.deepfakeart import read_records
from cnnsvm.data.readers.folder import Groups, read_folder, read_sources
from cnnsvm.data.readers.kaggle import download
from cnnsvm.data.readers.samples import write_samples

__all__ = [
    "READERS",
    "Cifake",
    "DatasetError",
    "MissingDataError",
    "Reader",
    "download",
    "merge_near_duplicates",
    "open_dataset",
    "read_cifake",
    "read_folder",
    "read_records",
    "read_sources",
    "unpack_archive",
    "write_samples",
]

logger = logging.getLogger(__name__)

_MANIFESTS = ("manifest.parquet", "manifest.csv")


def _find_manifest(place: Path) -> Path | None:
    if place.is_file():
        return place if place.suffix in SUFFIXES else None
    return next((place / name for name in _MANIFESTS if (place / name).is_file()), None)


def _read_manifest(place: Path, *, skip_bad: bool) -> pd.DataFrame:
    file = _find_manifest(place)
    if file is not None:
        return read_manifest(file, check=not skip_bad)
    # read by the names of its folders, it would lose its groups, variants and engines
    parts = ", ".join(sorted(path.name for path in place.glob("manifest*.parquet")))
    made = f" What is made so far is in {parts}." if parts else ""
    raise DatasetError(
        f"{place}: its records are not finished: there is no {_MANIFESTS[0]} yet. Run the command "
        f"that makes them again, or its other shards.{made}"
    )


_MANIFEST = Reader(
    "a manifest        records/manifest.parquet (or .csv), or the folder that holds it",
    lambda place: _find_manifest(place) or folder.holds_records(place),  # finished or not
    _read_manifest,
    ("skip_bad",),
)
#: In the order in which `open_dataset` asks them.
READERS = (_MANIFEST, deepfakeart.READER, folder.TREE, folder.SOURCES)


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
        Which loose images share a source, see `read_folder`. Manifests and records say so
        themselves.
    variant, engine : str
        What the manifest says of fakes that do not come with one.
    skip_bad : bool
        Leave out loose files that are no images (listed in ``attrs["skipped"]``), and do not
        check the rows of a manifest: `cnnsvm.data.manifest.find_bad_rows` lists the bad ones.
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
        into memory (`read_cifake`), not unpacked into 100,000 files.
    ManifestError
        If a manifest has bad rows.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise MissingDataError(f"{place}: no such file or folder. Check the path. {_layouts()}")
    if place.is_file() and is_archive(place):
        place = _unpack(place, workdir)
    options: dict[str, Any] = {"groups": groups, "variant": variant, "engine": engine}
    options |= {"skip_bad": skip_bad, "only_originals": only_originals}
    for reader in READERS:
        for found in filter(reader.recognise, (place, *_wrapped(place))):
            if groups is not None and "groups" not in reader.options:
                raise DatasetError(
                    f"{found}: names the source of every image itself, got groups={groups!r} "
                    "too. Leave groups out, or change source_id in the table."
                )
            logger.info("%s: read as %s", found, " ".join(reader.layout.split()))
            return reader.read(found, **{name: options[name] for name in reader.options})
    raise DatasetError(f"{place}: no data set in a layout that is read here. {_layouts()}")


def _layouts() -> str:
    archives = "an archive        of any of the folders: .zip, .tar, .tar.gz, .tar.xz, .tar.bz2"
    return "\n  ".join(["Accepted are:", *(reader.layout for reader in READERS), archives])


def _unpack(archive: Path, workdir: str | os.PathLike[str]) -> Path:
    if is_large_cifake(archive):
        raise DatasetError(
            f"{archive}: holds CIFAKE's many small images, which are not unpacked here. Read it "
            f"into memory with cnnsvm.data.readers.read_cifake({str(archive)!r}), or unpack it "
            "yourself and give the folder, or a part of it."
        )
    return unpack_archive(archive, workdir)


def _wrapped(place: Path) -> list[Path]:
    """Return the folder that a folder holds and nothing else, as archives often wrap all."""
    if not place.is_dir():
        return []
    visible = [path for path in place.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    return visible if len(visible) == 1 and visible[0].is_dir() else []
