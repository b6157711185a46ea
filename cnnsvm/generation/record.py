"""One record: an original and its fakes, in a folder of their own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnsvm.data.images import ImageError, load_image, read_header
from cnnsvm.data.manifest import GENERATED_COLUMNS, describe_file, make_row
from cnnsvm.generation.engines import Task
from cnnsvm.generation.masks import MaskSchema, Scene
from cnnsvm.generation.post_processing import PostProcessing
from cnnsvm.generation.recipe import Fake, Recipe, beside
from cnnsvm.generation.sources import Source
from cnnsvm.generation.store import Facts, read_record, start_record, write_record
from cnnsvm.io.files import clear_partials, write_bytes

Rows = list[dict[str, Any]]
Key = str | None  # the name of a schema; None for what needs no mask
Masks = dict[Key, np.ndarray]

_PNG = PostProcessing()
_GAP, _STRIP, _TEXT_SIZE = 4, 22, 14  # pixels between the cells of a panel, and of its labels
MAX_SIDE = 768  # longest side of an image in a panel


def make_record(source: Source, root: Path, recipe: Recipe) -> tuple[Rows, list[str]]:
    """Make what is missing of a record in its folder below ``root``.

    Returns the manifest rows (the original, then its fakes in the order of ``recipe.fakes``) and
    why some of the fakes could not be made. The record is not marked as finished then, so that a
    later call tries again. An ImageError is raised if the source cannot be used or none of its
    fakes can be made.
    """
    folder = root / source.record
    made_of = recipe.made_of(source)
    files = read_record(folder, made_of)
    if files is not None:
        return _make_rows(source, folder, recipe, files, recipe.fakes), []
    clear_partials(folder)
    start_record(folder, recipe.names, made_of)
    failed = _Work(source, folder, recipe).make()
    problems = [f"{key or 'regenerated'}: {error}" for key, error in failed.items()]
    made = [fake for fake in recipe.fakes if fake.key not in failed]
    if not made:
        raise ImageError("; ".join(problems))
    names = [recipe.original]
    names += dict.fromkeys(n for fake in made for n in (fake.name, fake.mask) if n)
    if problems:
        files = {name: describe_file(folder / name) for name in names}
    else:
        files = write_record(folder, names, made_of)
    return _make_rows(source, folder, recipe, files, made), problems


class _Work:
    """The making of one record.

    A schema is done when all its images can be read; those of the others are made together, in
    the engine's batches.
    """

    def __init__(self, source: Source, folder: Path, recipe: Recipe) -> None:
        self.source, self.folder, self.recipe = source, folder, recipe
        image = load_image(source.path)
        self.scene = Scene(image, source.path)
        self.image = at_file_size(image, source, recipe)
        self.original = recipe.post_processing.apply(self.image)
        self._failed: dict[Key, ImageError] = {}

    def make(self) -> dict[Key, ImageError]:
        """Make what is missing and return why some schemas failed."""
        engine, original = self.recipe.engine, self.folder / self.recipe.original
        if not _is_readable(original):
            write_bytes(original, self.recipe.post_processing.encode(self.original))
        missing = self._missing()
        masks: Masks = {}
        for key, fakes in missing.items():
            with self._noting(key):
                masks[key] = self._draw(fakes[0].schema)
        keys = list(masks)
        size = engine.batch_size if engine.uses_mask else max(len(keys), 1)
        for start in range(0, len(keys), size):  # written batch by batch: a kill costs one at most
            batch = keys[start : start + size]
            for key, output in zip(batch, self._repaint(batch, masks), strict=True):
                with self._noting(key):
                    if isinstance(output, ImageError):
                        raise output
                    self._write(missing[key], masks[key], output)
        return self._failed

    @contextmanager
    def _noting(self, key: Key) -> Iterator[None]:
        try:
            yield
        except ImageError as error:
            self._failed[key] = error

    def _missing(self) -> dict[Key, list[Fake]]:
        by_schema: dict[Key, list[Fake]] = {}
        for fake in self.recipe.fakes:
            by_schema.setdefault(fake.key, []).append(fake)
        return {key: fakes for key, fakes in by_schema.items() if not self._is_done(fakes)}

    def _is_done(self, fakes: list[Fake]) -> bool:
        names = [name for fake in fakes for name in self.recipe.files_of(fake)]
        return all(_is_readable(self.folder / name) for name in names)

    def _draw(self, schema: MaskSchema | None) -> np.ndarray:
        height, width, _ = self.image.shape
        if schema is None:
            return np.ones((height, width), dtype=bool)
        seed = self.recipe.seed(self.source.sha256, schema.name)
        mask = schema(self.scene, np.random.default_rng(seed))  # as the source is, not the record
        if mask.shape != (height, width):
            grey = Image.fromarray(mask.astype(np.uint8))
            mask = np.asarray(grey.resize((width, height), Image.Resampling.NEAREST)) > 0
        return mask

    def _repaint(self, keys: list[Key], masks: Masks) -> list[np.ndarray | ImageError]:
        """Return the engine's whole output for each mask, at the size of the image."""
        recipe = self.recipe
        working = recipe.post_processing.to_working_size(self.image)
        blind = not recipe.engine.uses_mask  # one run serves all masks
        hole = np.ones(working.shape[:2], dtype=bool)
        tasks = []
        for key in keys[:1] if blind else keys:
            mask = hole if blind else _resize_hole(masks[key], hole.shape)
            seed = recipe.seed(self.source.sha256, "" if blind else key or "")
            prompt = recipe.prompt(self.source)
            tasks.append(Task(working, mask, seed, prompt, self.source.path))
        size = (self.image.shape[1], self.image.shape[0])
        native = [
            one if isinstance(one, ImageError) else recipe.post_processing.resize(one, size)
            for one in recipe.engine.repaint_all(tasks)
        ]
        return native * len(keys) if blind else native

    def _write(self, fakes: list[Fake], mask: np.ndarray, output: np.ndarray) -> None:
        alpha = blend_weights(mask, self.recipe.blur if "spliced" in self.recipe.variants else 0)
        core = alpha == 255
        if not core.any():
            raise ImageError(
                f"{self.source.path}: an edge of {self.recipe.blur:g} pixels leaves no pixel of "
                "the mask fully repainted. Choose a smaller one, or larger masks."
            )
        images = [("original", self.original), ("mask", core)]
        for fake in fakes:
            spliced = fake.variant == "spliced"
            pixels = blend(self.original, output, alpha) if spliced else output
            images.append((fake.variant, pixels))
            write_bytes(self.folder / fake.name, self.recipe.post_processing.encode(pixels))
        fake = fakes[0]
        if fake.variant == "spliced" and self.recipe.blur:
            write_bytes(self.folder / beside(fake, "blend"), _PNG.encode(alpha))
        if fake.mask:
            grey = core.astype(np.uint8) * 255
            write_bytes(self.folder / fake.mask, _PNG.encode(grey))
        else:
            images.pop(1)
        if self.recipe.panels:
            write_bytes(self.folder / beside(fake, "group"), _PNG.encode(draw_panel(images)))


def at_file_size(image: np.ndarray, source: Source, recipe: Recipe) -> np.ndarray:
    """Resize a source to its finished repainting, if the engine takes such files."""
    if recipe.engine.find_file is None:
        return image
    facts = describe_file(recipe.engine.find_file(source.path))
    return recipe.post_processing.resize(image, (facts["width"], facts["height"]))


def blend_weights(mask: np.ndarray, blur: float) -> np.ndarray:
    """Return the weight of the engine's output at each pixel when it is pasted in.

    ``blur`` is the standard deviation in pixels of the Gaussian that softens the edge; 0 keeps it
    hard. The result is uint8 (H, W): 255 where a pixel is fully repainted, 0 where it is untouched,
    with a ramp on both sides of the edge, as diffusion pipelines blur their masks.
    """
    weights: np.ndarray = np.where(mask, 255, 0).astype(np.float32)
    if blur:
        weights = cv2.GaussianBlur(weights, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    return np.rint(weights).astype(np.uint8)


def blend(original: np.ndarray, output: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Paste an output (H, W, 3) into its original with the weights of `blend_weights`.

    The result is bit for bit the output where alpha is 255 and the original where it is 0.
    """
    weight = alpha[:, :, None].astype(np.uint32)
    mixed = weight * output + (255 - weight) * original
    return ((mixed + 127) // 255).astype(np.uint8)


def _resize_hole(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.shape == shape:
        return mask
    grey = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    # whatever touches the hole is repainted, so that nothing of the source is left in it
    return np.asarray(grey.resize((shape[1], shape[0]), Image.Resampling.BOX)) > 0


def _format_of(path: Path) -> str | None:
    try:
        return read_header(path).coding
    except ImageError:  # a record that is finished does not need the file any more
        return None


def _is_readable(path: Path) -> bool:
    try:
        load_image(path)
    except ImageError:
        return False
    return True


def _make_rows(
    source: Source, folder: Path, recipe: Recipe, files: dict[str, Facts], fakes: list[Fake]
) -> Rows:
    facts = files[recipe.original]
    resized = source.size if (facts["width"], facts["height"]) != source.size else None
    shared = {"history": str(recipe.post_processing), "record": folder.name, **source.carried}
    shared["source_format"] = source.format
    if recipe.engine.find_file:
        shared["engine_format"] = _format_of(recipe.engine.find_file(source.path))
    shared["resized_from"] = "{}x{}".format(*resized) if resized else None
    shared |= dict.fromkeys(GENERATED_COLUMNS)
    rows = [make_row(folder / recipe.original, 0, source.source_id, facts, **shared)]
    engine = recipe.engine
    if engine.prompt is not None:
        shared["prompt"] = recipe.prompt(source)
    shared |= {"engine": engine.name, **engine.details}
    for fake in fakes:
        own: dict[str, Any] = {"variant": fake.variant, "mask_schema": fake.key}
        own["mask_path"] = str(folder / fake.mask) if fake.mask else None
        own["seed"] = recipe.seed(source.sha256, fake.key or "")
        values = {**shared, **own}
        path = folder / fake.name
        rows.append(make_row(path, 1, source.source_id, files[fake.name], **values))
    return rows


def draw_panel(images: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Draw images side by side, each under its label, as uint8 (H', W', 3), sides at most 768.

    Pixels are uint8 (H, W, 3) or a bool mask, drawn white where True.
    """
    font = ImageFont.load_default(_TEXT_SIZE)
    cells = []
    for label, pixels in images:
        shown = Image.fromarray(pixels).convert("RGB")
        shown.thumbnail((MAX_SIDE, MAX_SIDE))
        width = max(shown.width, int(np.ceil(font.getlength(label))) + 2 * _GAP)
        # a grey ground, so that the white of a mask and of the page can be told apart
        cell = Image.new("RGB", (width, shown.height + _STRIP), "#cccccc")
        draw = ImageDraw.Draw(cell)
        draw.rectangle((0, 0, width, _STRIP - 1), fill="#202020")
        draw.text((width / 2, _STRIP / 2), label, fill="white", font=font, anchor="mm")
        cell.paste(shown, ((width - shown.width) // 2, _STRIP))
        cells.append(cell)
    width = sum(cell.width for cell in cells) + _GAP * (len(cells) - 1)
    panel = Image.new("RGB", (width, max(cell.height for cell in cells)), "white")
    left = 0
    for cell in cells:
        panel.paste(cell, (left, 0))
        left += cell.width + _GAP
    return np.array(panel)
