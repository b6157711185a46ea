"""What the names of folders and files say: real, fake or mask, as the field's data sets put it."""

import re
from collections.abc import Mapping
from pathlib import Path

from cnnsvm.data.scanning import folder_names

REAL, FAKE, MASK = 0, 1, -1
#: Names of folders, without a number in front (0_real), in lower case.
CLASSES = {
    **dict.fromkeys(("real", "reals"), REAL),
    **dict.fromkeys(("fake", "fakes", "deepfake", "deepfakes", "ai", "ai_generated"), FAKE),
    **dict.fromkeys(("generated", "synthetic", "inpainted", "tampered", "tp"), FAKE),
    **dict.fromkeys(("manipulated", "forged", "spliced"), FAKE),
    **dict.fromkeys(("gt", "mask", "masks", "groundtruth", "ground_truth"), MASK),
    "casia 2 groundtruth": MASK,
}
#: What means the real class only beside a folder of fakes: else they may be any photographs.
BESIDE_FAKES = dict.fromkeys(
    ("authentic", "au", "original", "originals", "pristine", "nature", "natural", "human"), REAL
)
#: How the name of a file ends that is no source: photo_mask.png, 12-fake.jpg.
NO_SOURCE = re.compile(
    r"(?:^|[ _-])(masks?|gt|fake|tampered|inpaint(?:ed|ing)|forged|spliced)(?:[ _-]?\d+)?$"
)
IS_MASK = re.compile(r"(?:^|[ _-])(masks?|gt)(?:[ _-]?\d+)?$")


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
    words = (plain_name(name), *re.findall(r"[a-z]+", name.casefold()))
    return {known[word] for word in words if word in known}


def plain_name(name: str) -> str:
    """Return the name of a folder without a number in front (0_real), in lower case."""
    return re.sub(r"^\d+_", "", name.casefold())
