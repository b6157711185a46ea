"""What the study of generated images is made of: kinds of real images, generators, treatments."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnsvm.data.encoding import write_image
from cnnsvm.data.images import load_image
from cnnsvm.data.readers import open_dataset
from cnnsvm.evaluation.corruptions import CLEAN
from cnnsvm.generation.post_processing import PostProcessing

#: What a copy of an image went through, as bytes of a file.
TREATMENTS = {
    CLEAN: None,
    "jpeg-85": PostProcessing(codec="jpeg", quality=85),
    "webp-55": PostProcessing(codec="webp", quality=55),
    "half, jpeg-50": PostProcessing(codec="jpeg", quality=50),
}
HALF = "half"


def collect(
    kinds: Mapping[str, str],
    label: int,
    work: Path,
    *,
    most: int | None = None,
    grids: Iterable[str] = (),
    groups: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """List the images of several kinds: path, label, kind and group, the source within the kind.

    ``kinds`` names a data set in any layout for each kind, or a part of one as ``DATA::PATTERN``,
    whose sources match the pattern. Its originals are taken and at most ``most`` images drawn. A
    kind in ``grids`` has 2 x 2 images in a file, which are cut out into files below ``work``; they
    share a group. ``groups`` is, of some kinds, the pattern of the group in a file's name.
    """
    parts = []
    for kind, place in kinds.items():
        place, _, pattern = place.partition("::")
        unpacked = work / "unpacked" / Path(place).stem
        options = {} if groups is None or kind not in groups else {"groups": groups[kind]}
        table = open_dataset(place, unpacked, skip_bad=True, only_originals=True, **options)
        names = [Path(str(source)).name for source in table["source_id"]]
        table = table[[fnmatchcase(name, pattern or "*") for name in names]]
        if table.empty:
            raise ValueError(f"{kind}: no source of {place} matches {pattern!r}. Change it.")
        table = table.sort_values("path", ignore_index=True)
        if most is not None and len(table) > most:
            drawn = np.random.default_rng(seed).permutation(len(table))[:most]
            table = table.iloc[np.sort(drawn)]
        found = pd.DataFrame({"path": table["path"], "group": kind + "/" + table["source_id"]})
        if kind in grids:
            found = cut_grids(found, work / "tiles" / kind)
        parts.append(found.assign(label=label, kind=kind))
    return pd.concat(parts, ignore_index=True)


def cut_grids(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Cut the upper left and the lower right image out of each file with 2 x 2 of them."""
    rows = []
    for path, group in zip(table["path"], table["group"], strict=True):
        targets = [folder / f"{Path(path).stem}_{number}.png" for number in (0, 3)]
        if not all(target.is_file() for target in targets):
            pixels = load_image(path)
            height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
            for target, part in zip(
                targets, (pixels[:height, :width], pixels[height:, width:]), strict=True
            ):
                write_image(target, part, "PNG")
        rows += [{"path": str(target), "group": group} for target in targets]
    return pd.DataFrame(rows)


class Treated(Sequence[str | bytes]):
    """Images after a key of `TREATMENTS`, each made when it is asked for."""

    def __init__(self, paths: Sequence[str], treatment: str) -> None:
        self.paths, self.treatment = paths, treatment

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return treated(self.paths[index], self.treatment)


def treated(path: str, treatment: str) -> str | bytes:
    """Return an image after a key of `TREATMENTS`: its path, or the bytes of the copy."""
    processing = TREATMENTS[treatment]
    if processing is None:
        return path
    pixels = load_image(path)
    if treatment.startswith(HALF):
        height, width = pixels.shape[:2]
        pixels = processing.resize(pixels, (max(1, width // 2), max(1, height // 2)))
    return processing.encode(pixels)
