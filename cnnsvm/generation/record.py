"""One record: an original and its fakes, in a folder of their own."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
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
    """Make what is missing of a record.

    Parameters
    ----------
    source : Source
    root : Path
        Folder of the records.
    recipe : Recipe

    Returns
    -------
    rows : list of dict
        The manifest rows: the original, then its fakes in the order of ``recipe.fakes``.
    problems : list of str
        Why some of the fakes could not be made. The record is not marked as finished then, so
        that a later call tries again.

    Raises
    ------
    ImageError
        If the source cannot be used or none of its fakes can be made.
    """
    folder = root / source.record
    made_of = recipe.made_of(source)
    files = read_record(folder, made_of)
    if files is not None:
        return _make_rows(source, folder, recipe, files, recipe.fakes), []
    clear_partials(folder)
    start_record(folder, recipe.names, made_of)
    work = _Work(source, folder, recipe)
    problems = work.make()
    made = [fake for fake in recipe.fakes if not work.failed(fake)]
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
        self._failed: set[Key] = set()

    def failed(self, fake: Fake) -> bool:
        """Tell whether a fake could not be made."""
        return fake.key in self._failed

    def make(self) -> list[str]:
        """Make what is missing and return why some fakes could not be made."""
        original = self.folder / self.recipe.original
        if not _is_readable(original):
            write_bytes(original, self.recipe.post_processing.encode(self.original))
        by_schema: dict[Key, list[Fake]] = {}
        for fake in self.recipe.fakes:
            by_schema.setdefault(fake.key, []).append(fake)
        missing = {name: fakes for name, fakes in by_schema.items() if not self._is_done(fakes)}
        problems, masks = self._draw(missing)
        for batch in self._batches(masks):  # written batch by batch: a kill costs one at most
            for key, output in self._repaint(batch).items():
                try:
                    if isinstance(output, ImageError):
                        raise output
                    self._write(missing[key], batch[key], output)
                except ImageError as error:
                    self._failed.add(key)
                    problems.append(f"{key or 'regenerated'}: {error}")
        return problems

    def _batches(self, masks: Masks) -> Iterator[Masks]:
        size = self.recipe.engine.batch_size if self.recipe.engine.uses_mask else len(masks)
        keys = list(masks)
        for start in range(0, len(keys), max(size, 1)):
            yield {key: masks[key] for key in keys[start : start + size]}

    def _is_done(self, fakes: list[Fake]) -> bool:
        paths = [self.folder / name for fake in fakes for name in self.recipe.files_of(fake)]
        return all(_is_readable(path) for path in paths)

    def _draw(self, missing: dict[Key, list[Fake]]) -> tuple[list[str], Masks]:
        problems: list[str] = []
        masks: Masks = {}
        for name, fakes in missing.items():
            schema = fakes[0].schema
            try:
                masks[name] = self._draw_one(schema)
            except ImageError as error:
                self._failed.add(name)
                problems.append(f"{name}: {error}")
        return problems, masks

    def _draw_one(self, schema: MaskSchema | None) -> np.ndarray:
        height, width, _ = self.image.shape
        if schema is None:
            return np.ones((height, width), dtype=bool)
        seed = self.recipe.seed(self.source.sha256, schema.name)
        mask = schema(self.scene, np.random.default_rng(seed))  # as the source is, not the record
        if mask.shape != (height, width):
            grey = Image.fromarray(mask.astype(np.uint8))
            mask = np.asarray(grey.resize((width, height), Image.Resampling.NEAREST)) > 0
        return mask

    def _repaint(self, masks: Masks) -> dict[Key, np.ndarray | ImageError]:
        """Return the engine's whole output for each mask, at the size of the image."""
        recipe = self.recipe
        working = recipe.post_processing.to_working_size(self.image)
        keys: list[Key] = list(masks) if recipe.engine.uses_mask else [None]
        tasks = [self._task(name, working, masks.get(name)) for name in keys]
        with nullcontext() if recipe.engine.parallel else recipe.lock:
            outputs = recipe.engine.repaint_all(tasks)
        size = (self.image.shape[1], self.image.shape[0])
        native = [
            output
            if isinstance(output, ImageError)
            else recipe.post_processing.resize(output, size)
            for output in outputs
        ]
        if recipe.engine.uses_mask:
            return dict(zip(keys, native, strict=True))
        return dict.fromkeys(masks, native[0])

    def _task(self, name: Key, working: np.ndarray, mask: np.ndarray | None) -> Task:
        shape = working.shape[:2]
        hole = np.ones(shape, dtype=bool) if mask is None else _resize_hole(mask, shape)
        prompt = self.recipe.prompt(self.source)
        seed = self.recipe.seed(self.source.sha256, name or "")
        return Task(working, hole, seed, prompt, self.source.path)

    def _write(self, fakes: list[Fake], mask: np.ndarray, output: np.ndarray) -> None:
        alpha = blend_weights(mask, self.recipe.blur if "spliced" in self.recipe.variants else 0)
        core = alpha == 255
        if not core.any():
            raise ImageError(
                f"{self.source.path}: an edge of {self.recipe.blur:g} pixels leaves no pixel of "
                "the mask fully repainted. Choose a smaller one, or larger masks."
            )
        pictures = [("original", self.original), ("mask", core)]
        for fake in fakes:
            spliced = fake.variant == "spliced"
            pixels = blend(self.original, output, alpha) if spliced else output
            pictures.append((fake.variant, pixels))
            write_bytes(self.folder / fake.name, self.recipe.post_processing.encode(pixels))
        fake = fakes[0]
        if fake.variant == "spliced" and self.recipe.blur:
            write_bytes(self.folder / beside(fake, "blend"), _PNG.encode(alpha))
        if fake.mask:
            grey = np.where(core, 255, 0).astype(np.uint8)
            write_bytes(self.folder / fake.mask, _PNG.encode(grey))
        else:
            pictures.pop(1)
        if self.recipe.panels:
            write_bytes(self.folder / beside(fake, "group"), _PNG.encode(draw_panel(pictures)))


def at_file_size(image: np.ndarray, source: Source, recipe: Recipe) -> np.ndarray:
    """Resize a source to its finished repainting, if the engine takes such files."""
    if recipe.engine.find_file is None:
        return image
    facts = describe_file(recipe.engine.find_file(source.path))
    return recipe.post_processing.resize(image, (facts["width"], facts["height"]))


def blend_weights(mask: np.ndarray, blur: float) -> np.ndarray:
    """Return the weight of the engine's output at each pixel when it is pasted in.

    Parameters
    ----------
    mask : ndarray of bool, shape (H, W)
    blur : float
        Standard deviation in pixels of the Gaussian that softens the edge; 0 keeps it hard.

    Returns
    -------
    ndarray of uint8, shape (H, W)
        255 where a pixel is fully repainted, 0 where it is untouched. The ramp lies on both sides
        of the edge, as diffusion pipelines blur their masks.
    """
    weights: np.ndarray = np.where(mask, 255, 0).astype(np.float32)
    if blur:
        weights = cv2.GaussianBlur(weights, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    return np.rint(weights).astype(np.uint8)


def blend(original: np.ndarray, output: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Paste an output into its original.

    Parameters
    ----------
    original, output : ndarray of uint8, shape (H, W, 3)
    alpha : ndarray of uint8, shape (H, W)
        As `blend_weights` gives it.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        Bit for bit the output where alpha is 255 and the original where it is 0.
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
    def row(name: str, label: int, **values: Any) -> dict[str, Any]:
        return make_row(folder / name, label, source.source_id, facts=files[name], **values)

    facts = files[recipe.original]
    resized = source.size if (facts["width"], facts["height"]) != source.size else None
    shared = {"history": str(recipe.post_processing), "record": folder.name, **source.carried}
    shared["source_format"] = source.format
    if recipe.engine.find_file:
        shared["engine_format"] = _format_of(recipe.engine.find_file(source.path))
    shared["resized_from"] = "{}x{}".format(*resized) if resized else None
    shared |= dict.fromkeys(GENERATED_COLUMNS)
    rows = [row(recipe.original, 0, **shared)]
    engine = recipe.engine
    if engine.prompt is not None:
        shared["prompt"] = recipe.prompt(source)
    shared |= {"engine": engine.name, **engine.details}
    for fake in fakes:
        own: dict[str, Any] = {"variant": fake.variant, "mask_schema": fake.key}
        own["mask_path"] = str(folder / fake.mask) if fake.mask else None
        own["seed"] = recipe.seed(source.sha256, fake.key or "")
        rows.append(row(fake.name, 1, **{**shared, **own}))
    return rows


def draw_panel(pictures: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Draw images side by side, each under its label.

    Parameters
    ----------
    pictures : sequence of (label, pixels)
        Pixels are uint8 (H, W, 3) or a bool mask (H, W), drawn white where True. Sides of more
        than 768 pixels are reduced.

    Returns
    -------
    ndarray of uint8, shape (H', W', 3)
    """
    font = ImageFont.load_default(_TEXT_SIZE)
    cells = [_draw_cell(label, _to_picture(pixels), font) for label, pixels in pictures]
    width = sum(cell.width for cell in cells) + _GAP * (len(cells) - 1)
    panel = Image.new("RGB", (width, max(cell.height for cell in cells)), "white")
    left = 0
    for cell in cells:
        panel.paste(cell, (left, 0))
        left += cell.width + _GAP
    return np.array(panel)


def _to_picture(pixels: np.ndarray) -> Image.Image:
    values = np.where(pixels, 255, 0).astype(np.uint8) if pixels.dtype == np.bool_ else pixels
    picture = Image.fromarray(values).convert("RGB")
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture


def _draw_cell(
    label: str, picture: Image.Image, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image.Image:
    # a grey ground, so that the white of a mask and of the page can be told apart
    text_width = int(np.ceil(font.getlength(label))) + 2 * _GAP
    cell = Image.new("RGB", (max(picture.width, text_width), picture.height + _STRIP), "#cccccc")
    draw = ImageDraw.Draw(cell)
    draw.rectangle((0, 0, cell.width, _STRIP - 1), fill="#202020")
    draw.text((cell.width / 2, _STRIP / 2), label, fill="white", font=font, anchor="mm")
    cell.paste(picture, ((cell.width - picture.width) // 2, _STRIP))
    return cell
