"""How much disk a build will take: told before it starts."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.data.manifest import describe_file
from cnnsvm.generation.panel import draw_panel
from cnnsvm.generation.recipe import Recipe
from cnnsvm.generation.sources import Source
from cnnsvm.generation.store import GenerationError

logger = logging.getLogger(__name__)

N_SAMPLES = 8
_BLEND_SHARE = 0.1  # the same of the weights of a soft edge
_MASK_SHARE = 0.005  # bytes a pixel of a mask as PNG; measured: 0.001 (halves) to 0.004 (strokes)


def check_space(sources: Sequence[Source], root: Path, recipe: Recipe, ready: int = 0) -> None:
    """State what the records to be made will take, and refuse if the disk has less.

    Parameters
    ----------
    sources : sequence of Source
        Those to be made.
    root : Path
        An existing folder.
    recipe : Recipe
    ready : int
        Number of records made before, for the message.

    Raises
    ------
    GenerationError
        If less is free than the estimate.
    """
    needed = estimate_bytes(sources, recipe)
    free = shutil.disk_usage(root).free
    logger.info(
        "%d records to make, %d ready; about %s more in %s, %s free",
        len(sources),
        ready,
        format_bytes(needed),
        root,
        format_bytes(free),
    )
    if needed > free:
        raise GenerationError(
            f"{len(sources)} records need about {format_bytes(needed)} and {root} has "
            f"{format_bytes(free)} free. Free some, choose a smaller codec (history='webp' or "
            "'jpeg:90'), leave the group images out (panels=False), make it in shards on several "
            "disks, or switch this check off (check_space=False)."
        )


def estimate_bytes(sources: Sequence[Source], recipe: Recipe) -> int:
    """Estimate the bytes that records will take, from up to eight of their sources.

    A fake is taken to be as long as its original. Sources that cannot be read count nothing.
    """
    step = max(len(sources) // N_SAMPLES, 1)
    sampled, n_pixels = 0.0, 0
    for source in sources[::step][:N_SAMPLES]:
        try:
            sampled += _record_bytes(_at_size(load_image(source.path), source, recipe), recipe)
        except ImageError:
            continue
        n_pixels += source.size[0] * source.size[1]
    total = sum(source.size[0] * source.size[1] for source in sources)
    return round(sampled / n_pixels * total) if n_pixels else 0


def format_bytes(n_bytes: float) -> str:
    """Write a number of bytes with a decimal unit, such as ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _at_size(image: np.ndarray, source: Source, recipe: Recipe) -> np.ndarray:
    if recipe.engine.find_file is None:
        return image
    facts = describe_file(recipe.engine.find_file(source.path))
    return recipe.history.resize(image, (facts["width"], facts["height"]))


def _record_bytes(image: np.ndarray, recipe: Recipe) -> float:
    fakes = recipe.fakes
    share = _MASK_SHARE + (_BLEND_SHARE if recipe.blur else 0.0)
    masks = len({fake.mask for fake in fakes} - {None}) * share * image[:, :, 0].size
    n_bytes = len(recipe.history.encode(image)) * (1 + len(fakes)) + masks
    if recipe.panels:
        shown = [("", image)] * (1 + len(recipe.variants))
        n_groups = len({fake.schema for fake in fakes})
        n_bytes += n_groups * len(type(recipe.history)().encode(draw_panel(shown)))
    return n_bytes
