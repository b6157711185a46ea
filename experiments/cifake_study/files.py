"""What images of CIFAKE show, which only the names of their files tell; some files as they are."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnsvm.data.readers import DatasetError
from cnnsvm.data.readers.cifake import Cifake, open_cifake
from cnnsvm.io.files import write_bytes

#: What images show, in the order of the numbers in their files' names: "0001 (10).jpg" is a
#: truck, and a name without a number is an airplane.
OBJECTS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_NUMBER = re.compile(r"^\d+(?: \((\d+)\))?$", re.ASCII)


def auxiliary_labels(
    cifake: Cifake, rows: np.ndarray, labels: np.ndarray | None = None
) -> np.ndarray:
    """Return what some images show and whether they are real, such as "cat 1".

    Parameters
    ----------
    cifake : Cifake
    rows : ndarray of int, shape (n,)
    labels : ndarray of int, shape (n,), or None
        Other labels than the images' own, such as shuffled ones.

    Returns
    -------
    ndarray of str, shape (n,)
        For `InpaintDetector.fit`.

    Raises
    ------
    DatasetError
        If a file is not named as CIFAKE names its files, which is where that is written.
    """
    labels = cifake.labels[rows] if labels is None else labels
    pairs = zip(cifake.names[rows].tolist(), labels.tolist(), strict=True)
    return np.array([f"{_object_of(name)} {label}" for name, label in pairs])


def extract_files(
    path: str | os.PathLike[str], names: Sequence[str], folder: str | os.PathLike[str]
) -> list[Path]:
    """Write some of the files as they are, such as a sample to look at their headers.

    Parameters
    ----------
    path : path
        As for `read_cifake`.
    names : sequence of str
        See `Cifake.names`.
    folder : path
        Made if it is missing; files that it holds already are written again.

    Returns
    -------
    list of Path
        In the order of ``names``.

    Raises
    ------
    DatasetError
        If a name is not there.
    """
    missing = set(names)
    with open_cifake(path) as members:
        for name, member in members:
            if name in missing:
                with member.open() as opened:
                    write_bytes(Path(folder) / name, opened.read())
                missing.remove(name)
    if missing:
        raise DatasetError(f"{path}: {len(missing)} file(s) are not there, such as {min(missing)}.")
    return [Path(folder) / name for name in names]


def _object_of(name: str) -> str:
    found = _NUMBER.match(name.rpartition("/")[2].rpartition(".")[0])
    number = int(found[1] or 1) if found else 0
    if not 1 <= number <= len(OBJECTS):
        raise DatasetError(
            f"{name}: no number from 1 to {len(OBJECTS)} in the name says what it shows, as in "
            "'0001 (7).jpg' (none: 1). Keep CIFAKE's names, or do without auxiliary labels."
        )
    return OBJECTS[number - 1]
