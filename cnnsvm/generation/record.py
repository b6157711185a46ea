"""One record: an original and its fakes, in a folder of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cnnsvm.generation.engines import Engine, get_engine
from cnnsvm.generation.history import History
from cnnsvm.generation.masks import MASK_SCHEMAS
from cnnsvm.generation.panel import draw_panel
from cnnsvm.generation.sources import Source
from cnnsvm.generation.store import (
    GenerationError,
    is_complete,
    text_hash,
    write_bytes,
    write_record,
)
from cnnsvm.images import ImageError, load_image
from cnnsvm.records import GENERATED_COLUMNS, VARIANTS, make_row

_PNG = History()


@dataclass(frozen=True)
class Recipe:
    """What all records of a folder share."""

    engine: Engine
    schemas: tuple[str, ...]
    variant: str
    history: History
    random_state: int

    def settings(self) -> dict[str, Any]:
        """Return what tells this recipe from another, as JSON can hold it."""
        return {
            "made_by": "build",
            "engine": self.engine.name,
            "details": dict(self.engine.details),
            "schemas": list(self.schemas),
            "variant": self.variant,
            "history": str(self.history),
            "random_state": self.random_state,
        }

    def seed(self, source_sha256: str, schema: str) -> int:
        """Return the seed of one picture, in [0, 2**32)."""
        entropy = [self.random_state, int(source_sha256, 16), int(text_hash(schema), 16)]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def make_recipe(
    engine: str | Engine,
    schemas: Sequence[str],
    variant: str,
    history: History | str,
    random_state: int,
) -> Recipe:
    """Check the parameters that all records share."""
    names = (schemas,) if isinstance(schemas, str) else tuple(schemas)
    unknown = [name for name in names if name not in MASK_SCHEMAS]
    if unknown or not names or len(set(names)) < len(names):
        raise GenerationError(
            f"schemas must be different names out of {', '.join(MASK_SCHEMAS)}, got {names!r}."
        )
    if variant not in VARIANTS[1:]:
        raise GenerationError(f"variant must be one of {VARIANTS[1:]}, got {variant!r}.")
    if not isinstance(random_state, (int, np.integer)) or random_state < 0:
        raise GenerationError(
            f"random_state must be an int of at least 0, got {random_state!r}: without one a "
            "call that was killed could not be taken up again."
        )
    parsed = History.parse(history) if isinstance(history, str) else history
    return Recipe(get_engine(engine), names, variant, parsed, int(random_state))


def make_record(source: Source, root: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Make what is missing of a record and return its manifest rows."""
    folder = root / source.record
    if not is_complete(folder, source.sha256):
        image = load_image(source.path)
        original = recipe.history.apply(image)
        _write_missing(folder / f"original{recipe.history.suffix}", recipe.history, original)
        for schema in recipe.schemas:
            _make_fake(source, folder, schema, image, original, recipe)
        names = [name for schema in recipe.schemas for name in _names(schema, recipe)]
        write_record(folder, [f"original{recipe.history.suffix}", *names], source.sha256)
    return _make_rows(source, folder, recipe)


def _make_fake(
    source: Source,
    folder: Path,
    schema: str,
    image: np.ndarray,
    original: np.ndarray,
    recipe: Recipe,
) -> None:
    inpainting, mask_name, group = (folder / name for name in _names(schema, recipe))
    if all(_is_readable(path) for path in (group, inpainting, mask_name)):
        return  # the group image is written last
    seed = recipe.seed(source.sha256, schema)
    height, width, _ = image.shape
    mask = MASK_SCHEMAS[schema](height, width, np.random.default_rng(seed))
    fake = _repaint(source, image, original, mask, seed, recipe)
    write_bytes(inpainting, recipe.history.encode(fake))
    write_bytes(mask_name, _PNG.encode(np.where(mask, 255, 0).astype(np.uint8)))
    pictures = (("original", original), ("mask", mask), ("inpainting", fake))
    write_bytes(group, _PNG.encode(draw_panel(pictures)))


def _repaint(
    source: Source,
    image: np.ndarray,
    original: np.ndarray,
    mask: np.ndarray,
    seed: int,
    recipe: Recipe,
) -> np.ndarray:
    height, width = mask.shape
    working = recipe.history.to_working_size(image)
    hole = _resize_hole(mask, working.shape[:2])
    if hole.all():
        raise ImageError(
            f"{source.path}: in {width}x{height} pixels the mask leaves nothing to repaint from. "
            "Leave such small images out."
        )
    whole = recipe.history.resize(recipe.engine(working, hole, seed), (width, height))
    return np.where(mask[:, :, None], whole, original) if recipe.variant == "spliced" else whole


def _resize_hole(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape == shape:
        return mask
    grey = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    # whatever touches the hole is repainted, so that nothing of the source is left in it
    return np.asarray(grey.resize((shape[1], shape[0]), Image.Resampling.BOX)) > 0


def _names(schema: str, recipe: Recipe) -> tuple[str, str, str]:
    suffix = recipe.history.suffix
    return f"inpainting_{schema}{suffix}", f"mask_{schema}.png", f"group_{schema}.png"


def _write_missing(path: Path, history: History, image: np.ndarray) -> None:
    if not _is_readable(path):
        write_bytes(path, history.encode(image))


def _is_readable(path: Path) -> bool:
    try:
        load_image(path)
    except ImageError:
        return False
    return True


def _make_rows(source: Source, folder: Path, recipe: Recipe) -> list[dict[str, Any]]:
    shared = {"history": str(recipe.history), "record": folder.name, **source.carried}
    shared |= dict.fromkeys(GENERATED_COLUMNS)
    original = folder / f"original{recipe.history.suffix}"
    rows = [make_row(original, 0, source.source_id, **shared)]
    shared |= {"variant": recipe.variant, "engine": recipe.engine.name, **recipe.engine.details}
    for schema in recipe.schemas:
        inpainting, mask, _ = _names(schema, recipe)
        shared |= {"mask_schema": schema, "mask_path": str(folder / mask)}
        shared["seed"] = recipe.seed(source.sha256, schema)
        rows.append(make_row(folder / inpainting, 1, source.source_id, **shared))
    return rows
