"""What the names of folders and files say: real, fake or mask, as the field's data sets put it."""

import csv
import re
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path

from cnnsvm.data.scanning import folder_names

REAL, FAKE, MASK = 0, 1, -1
#: Names of generators, and kinds of repainting, that photographs and paintings are not called.
_MAKERS = (
    *("inpaint", "inpainting", "inpaintings", "splicing", "splc", "copymove", "faceswap"),
    *("midjourney", "dalle", "sdxl", "diffusion", "aigc", "progan", "stylegan", "biggan"),
    *("cyclegan", "gaugan", "stargan"),
)
#: Names of folders, without a number in front (0_real), in lower case.
CLASSES = {
    **dict.fromkeys(("real", "reals"), REAL),
    **dict.fromkeys(("fake", "fakes", "deepfake", "deepfakes", "ai", "ai_generated"), FAKE),
    **dict.fromkeys(("generated", "synthetic", "inpainted", "tampered", "tp"), FAKE),
    **dict.fromkeys(("manipulated", "forged", "spliced", *_MAKERS), FAKE),
    **dict.fromkeys(("gt", "mask", "masks", "groundtruth", "ground_truth"), MASK),
    "casia 2 groundtruth": MASK,
}
#: What means the real class only beside a folder of fakes: else they may be any photographs.
BESIDE_FAKES = dict.fromkeys(
    ("authentic", "au", "auth", "original", "originals", "pristine", "nature", "natural", "human"),
    REAL,
)
IS_MASK = re.compile(r"(?:^|[ _-])(masks?|gt)(?:[ _-]?\d+)?$")
#: How the name of a file that is no source ends (photo_mask.png, 12-fake.jpg) or begins (CASIA's
#: Tp_D_CNN.jpg, splicing-01.png), and words that make it none wherever they stand.
_NO_SOURCE = re.compile(
    rf"{IS_MASK.pattern}|(?:^|[ _-])(?:fake|ai|generated|synthetic|forged)(?:[ _-]?\d+)?$|^tp_[ds]_"
    rf"|(?<![a-z])(?:inpainted|tampered|spliced|deepfakes?|{'|'.join(_MAKERS)})(?![a-z])"
)
#: Columns of a table that tell fakes from originals, what is in them, and how much is read.
_LABELS = re.compile(r"label|class|target|fake|real|generated|(?<![a-z])ai(?![a-z])")
_CLASS_VALUES = {"0", "1", "0.0", "1.0", "true", "false", "human", *CLASSES, *BESIDE_FAKES}
_READ = 2**18  # characters


def find_class_folders(root: Path) -> dict[str, int]:
    """Find the folders below a folder that are named as in `CLASSES`: name -> class.

    Words in longer names count for fakes and masks alone: real_estate may be any photographs.
    """
    found = {name: class_of_folder(name, CLASSES) for name in folder_names(root)}
    exact = {name for name in found if plain_name(name) in CLASSES}
    return {k: v for k, v in found.items() if v is not None and (k in exact or v != REAL)}


def class_of_folder(name: str, classes: Mapping[str, int]) -> int | None:
    """Return the class that a name is, or that its words say if they agree."""
    words = words_of(name)
    said = words.pop() if len(words) == 1 else None
    return classes.get(plain_name(name), said)


def words_of(name: str) -> set[int]:
    """Return the classes that the words of a name say, such as fake_images or real-vs-fake."""
    known = CLASSES | BESIDE_FAKES
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)  # AiArtData is three
    return {
        known[word.casefold()]
        for word in (plain_name(name), *words, *re.findall(r"[a-z]+", name.casefold()))
        if word.casefold() in known
    }


def is_no_source(stem: str) -> bool:
    """Tell whether a file's name without its suffix is one of fakes or masks."""
    return _NO_SOURCE.search(stem.casefold()) is not None


def labelling_column(table: Path, names: Set[str]) -> str | None:
    """Return the column of a CSV table that tells fakes from originals among files, if it has one.

    ``names`` are those of the files, with or without their suffixes. The first rows are looked at.
    """
    if not table.is_file():  # a pipe would block
        return None
    with suppress(OSError, csv.Error), open(table, newline="", encoding="latin-1") as stream:
        rows = list(csv.DictReader(stream.read(_READ).splitlines()))
        cells = (str(cell) for row in rows for cell in row.values())
        if not any(re.split(r"[/\\]", cell)[-1] in names for cell in cells):
            return None
        for column in filter(None, rows[0]):
            said = {str(row[column]).strip().casefold() for row in rows}
            if _LABELS.search(column.casefold()) and said <= _CLASS_VALUES:
                return str(column)
    return None


def plain_name(name: str) -> str:
    """Return the name of a folder without a number in front (0_real), in lower case."""
    return re.sub(r"^\d+_", "", name.casefold())
