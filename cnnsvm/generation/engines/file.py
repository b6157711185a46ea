"""The engine ``file:<pattern>``: repainted images that are on disk already."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.generation.engines import Engine, EngineError, Task


def file_engine(pattern: str) -> Engine:
    """Take the repainted image from a file, such as one that another program made.

    ``pattern`` is its path relative to the folder of the source; ``{stem}`` stands for the source's
    name without its ending, ``{folder}`` for the name of its folder, as in ``inpainting.webp``
    beside ``original.jpg``, or ``../fakes/{stem}.png``. An EngineError is raised if it is empty or
    has other placeholders. The output is the same whatever the mask. Where it has another size than
    the source, the whole record is made at its size: the source is resized to it.
    """
    try:
        named = pattern.format(stem="a", folder="b")
    except (KeyError, IndexError, ValueError) as error:
        raise EngineError(
            f"file:{pattern}: only {{stem}} and {{folder}} can stand in the pattern ({error}). "
            "Write for example file:../fakes/{stem}.png."
        ) from error
    if not named.strip():
        raise EngineError(
            "the engine 'file' needs a pattern that finds the repainted image of a source. Write "
            "for example file:inpainting.png."
        )

    def find(path: str) -> Path:
        source = Path(path)
        found = source.parent / pattern.format(stem=source.stem, folder=source.parent.name)
        if os.path.normpath(found) == os.path.normpath(source):
            raise ImageError(
                f"{source}: by the pattern {pattern!r} it is its own repainted image. Name another "
                "file."
            )
        return found

    def repaint(tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        pathless = ImageError("the engine 'file' repaints images that come from a file only.")
        return [_read(find(task.path), task) if task.path else pathless for task in tasks]

    # the last two parts only: where files lie on one machine does not matter
    name = "/".join(part for part in Path(pattern).parts[-2:] if part not in ("..", "/"))
    return Engine(f"file:{name}", repaint, uses_mask=False, parallel=True, find_file=find)


def _read(path: Path, task: Task) -> np.ndarray | ImageError:
    try:
        image = load_image(path)
    except ImageError as error:
        return error
    if image.shape != task.image.shape:
        height, width, _ = task.image.shape
        return ImageError(
            f"{path}: is {image.shape[1]}x{image.shape[0]}, the working size is {width}x{height}. "
            "Leave the size out of the post-processing."
        )
    return image
