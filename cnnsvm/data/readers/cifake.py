"""CIFAKE: 120,000 images of 32x32, straight from their archive into one array.

Half are the photographs of CIFAR-10, half were made by Stable Diffusion 1.4 in their likeness
(Bird & Lotfi, IEEE Access 2024, arXiv:2303.14126).
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import DatasetError, MissingDataError
from cnnsvm.data.readers.archives import Member, is_archive, open_archive
from cnnsvm.data.scanning import SUFFIXES

logger = logging.getLogger(__name__)

SIDE = 32  # pixels
SPLITS = ("train", "test")
MAX_FILE = 64 * 1024  # bytes; 32x32 pixels are 3 KB uncompressed, and a camera may add a comment
MAX_BYTES = 2**30  # ten times CIFAKE
#: What made the fakes, as far as the paper tells.
ENGINE = "diffusion:CompVis/stable-diffusion-v1-4"
#: More small files than this are a burden on a disk, and nothing is gained by unpacking them.
MANY = 20_000


@dataclass(frozen=True, eq=False)
class Cifake:
    """Images of CIFAKE, sorted by name; all attributes are in the same order.

    Attributes
    ----------
    images : ndarray of uint8, shape (N, 32, 32, 3)
        RGB, 0-255.
    labels : ndarray of int64, shape (N,)
        0 real, 1 fake.
    split : ndarray of str, shape (N,)
        train or test.
    names : ndarray of str, shape (N,)
        Such as ``train/REAL/0001 (7).jpg``, however the archive spells the folders.
    sha256 : ndarray of str, shape (N,)
        Of the files.
    groups : ndarray of int64, shape (N,)
        Numbered from 0 by first appearance; images with the same pixels share one. For wider
        ones, ``dataclasses.replace(cifake, groups=...)``.
    """

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    names: np.ndarray
    sha256: np.ndarray
    groups: np.ndarray

    @property
    def manifest(self) -> pd.DataFrame:
        """The manifest, with the name as ``path`` and the group's first name as ``source_id``.

        The files are in an archive, so pass ``images`` wherever pixels are needed.
        """
        _, first, group = np.unique(self.groups, return_index=True, return_inverse=True)
        engines: list[Any] = [ENGINE if label else None for label in self.labels]
        table = pd.DataFrame(
            {"path": self.names, "label": self.labels, "split": self.split, "sha256": self.sha256}
        )
        return table.assign(
            source_id=self.names[first][group],
            variant=np.where(self.labels == 1, "regenerated", "original"),
            engine=engines,
            mask_schema=None,
        )

    def join(self, other: "Cifake") -> "Cifake":
        """Put the images of another split behind these, grouped anew by their pixels.

        A DatasetError is raised if a name occurs in both.
        """
        twice = np.intersect1d(self.names, other.names)
        if len(twice):
            raise DatasetError(
                f"{len(twice)} image(s) are in both parts, such as {twice[0]}. Join train and test."
            )
        return _assemble(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.names, other.names]),
            np.concatenate([self.sha256, other.sha256]),
        )


def read_cifake(path: str | os.PathLike[str], splits: str | Sequence[str] | None = None) -> Cifake:
    """Read CIFAKE from a folder or an archive, which is not unpacked.

    The images lie in ``train/REAL``, ``train/FAKE``, ``test/REAL`` and ``test/FAKE``, in any case
    and with any folders around them. Either split may be missing. Hidden files and files of other
    kinds elsewhere are ignored; such files in these folders, and images elsewhere, are left out
    with a warning that names one.

    Parameters
    ----------
    path : path
        A folder, or a .zip, .tar, .tar.gz, .tar.xz or .tar.bz2 file.
    splits : None, "train", "test", or a sequence of them
        What to read; None reads what is there.

    Returns
    -------
    Cifake

    Raises
    ------
    DatasetError
        If nothing is recognised, a split or one of its classes is missing, two files have one
        name, an image is not 32x32 or larger than 64 KB as a file, or the archive is damaged or
        unsafe (see `cnnsvm.data.readers.archives.open_archive`).
    ImageError
        If an image cannot be decoded.
    """
    place = Path(path).absolute()
    wanted = SPLITS if splits is None else (splits,) if isinstance(splits, str) else tuple(splits)
    if not wanted or not set(wanted) <= set(SPLITS):
        raise DatasetError(f"splits must be None or of {', '.join(SPLITS)}, got {splits!r}.")
    pixels = bytearray()  # grows in place; a list would take twice the memory
    digests: dict[str, str] = {}
    elsewhere: list[str] = []
    with open_cifake(place) as members:
        for name, member in tqdm(members, "CIFAKE", unit=" files", disable=None):
            if name is None:
                elsewhere += [member.name] if _is_unexpected(member.name) else []
            elif name.startswith(wanted):
                content = _read(member, name, name in digests, place)
                pixels += _decode(content, f"{place}: {member.name}")
                digests[name] = hashlib.sha256(content).hexdigest()
    _check_classes(place, wanted, digests, elsewhere)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE, 3)
    names, sha256 = np.array(list(digests)), np.array(list(digests.values()))
    order = np.argsort(names, kind="stable")
    if (np.diff(order) < 0).any():  # else a copy of everything would be for nothing
        images, names, sha256 = images[order], names[order], sha256[order]
    return _assemble(images, names, sha256)


@contextmanager
def open_cifake(path: str | os.PathLike[str]) -> Iterator[Iterator[tuple[str | None, Member]]]:
    """Walk the files of a folder or an archive, which is not unpacked, as (name, Member).

    The name is spelled as in `Cifake.names`; None for what is no image in a class's folder. A
    DatasetError says that the path is neither a folder nor an archive that can be read.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise MissingDataError(f"{place}: no such file or folder. Check the path.")
    if not place.is_dir() and not is_archive(place):
        raise DatasetError(f"{place}: neither a folder nor an archive (.zip, .tar, .tar.xz, ...).")
    loose = place.is_dir()
    files = nullcontext(_walk_folder(place)) if loose else open_archive(place, max_bytes=MAX_BYTES)
    with files as members:
        yield ((_plain_name(member.name), member) for member in members)


def is_large_cifake(archive: str | os.PathLike[str]) -> bool:
    """Tell whether an archive holds more than 20,000 small images in CIFAKE's folders only."""
    n_files = 0
    with open_archive(archive) as members:
        for member in members:
            if not _is_image(member.name):
                continue
            if _plain_name(member.name) is None or member.size > MAX_FILE:
                return False
            n_files += 1
            if n_files > MANY:
                return True
    return False


def group_identical(images: np.ndarray) -> np.ndarray:
    """Give images with the same pixels one group, numbered from 0 by first appearance."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images]
    return pd.factorize(np.array(digests))[0].astype(np.int64)


def _assemble(images: np.ndarray, names: np.ndarray, sha256: np.ndarray) -> Cifake:
    split, kind, _ = np.array([name.split("/") for name in names]).T
    labels = (kind == "FAKE").astype(np.int64)
    return Cifake(images, labels, split, names, sha256, group_identical(images))


def _walk_folder(folder: Path) -> Iterator[Member]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            # with the folder's own name, so that the folder train alone is understood
            name = path.relative_to(folder.parent).as_posix()
            yield Member(name, path.stat().st_size, partial(FileIO, path))


def _is_image(name: str) -> bool:
    file = name.rpartition("/")[2]
    return not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES


def _class_folder(name: str) -> str | None:
    """Return the folder of a class that a file lies in, as CIFAKE spells it."""
    *_, split, kind, _ = ["", "", *name.split("/")]
    known = split.lower() in SPLITS and kind.lower() in ("real", "fake")
    return f"{split.lower()}/{kind.upper()}" if known else None


def _plain_name(name: str) -> str | None:
    """Spell the name of an image in a class's folder as CIFAKE does; other files have none."""
    folder = _class_folder(name)
    return f"{folder}/{name.rpartition('/')[2]}" if folder and _is_image(name) else None


def _is_unexpected(name: str) -> bool:
    """Tell whether a file is an image elsewhere, or something else in the folder of a class."""
    hidden = name.rpartition("/")[2].startswith(".")
    return _is_image(name) or (_class_folder(name) is not None and not hidden)


def _check_classes(
    place: Path, wanted: Sequence[str], names: Iterable[str], elsewhere: Sequence[str]
) -> None:
    present = {name.rpartition("/")[0] for name in names}
    if not present:
        seen = f", but {len(elsewhere)} elsewhere, such as {elsewhere[0]}" if elsewhere else ""
        raise DatasetError(
            f"{place}: no images in {'|'.join(wanted)}/REAL|FAKE{seen}. Give the folder or archive "
            f"that holds {wanted[0]}/REAL/*.jpg and {wanted[0]}/FAKE/*.jpg."
        )
    both = {f"{folder.split('/')[0]}/{kind}" for folder in present for kind in ("REAL", "FAKE")}
    if both - present:
        raise DatasetError(
            f"{place}: no images in {min(both - present)}; both classes are needed. Add them, or "
            "read the other split alone (splits=...)."
        )
    if elsewhere:
        logger.warning(
            "%s: left out %d file(s), such as %s; only images in train|test/REAL|FAKE count",
            place,
            len(elsewhere),
            elsewhere[0],
        )


def _read(member: Member, name: str, is_known: bool, place: Path) -> bytes:
    if is_known:
        raise DatasetError(
            f"{place}: {member.name} is a second {name}; a name stands for one image. Remove one."
        )
    if member.size > MAX_FILE:
        raise DatasetError(
            f"{place}: {member.name} has {member.size:,} bytes, but an image of {SIDE}x{SIDE} "
            f"pixels at most {MAX_FILE:,}. Remove it, or unpack the archive and read the folder "
            "with read_folder."
        )
    with member.open() as opened:
        return opened.read()


def _decode(content: bytes, name: str) -> bytes:
    try:
        pixels = load_image(content)
    except ImageError as error:
        reason = str(error).partition(": ")[2]
        raise ImageError(f"{name}: {reason} Download the data again, or remove it.") from error
    height, width, _ = pixels.shape
    if (height, width) != (SIDE, SIDE):
        raise DatasetError(
            f"{name}: {width}x{height} pixels; images of CIFAKE are {SIDE}x{SIDE}. Remove it, or "
            "unpack the archive and read the folder with read_folder."
        )
    return pixels.tobytes()
