"""The engine ``file:<pattern>``: repainted images that are on disk already."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnnsvm.generation.engines import Engine, EngineError, Task
from cnnsvm.images import ImageError, load_image
from cnnsvm.records import describe_file


def file_engine(pattern: str) -> Engine:
    """Take the repainted image from a file, such as one that another program made.

    Parameters
    ----------
    pattern : str
        Path of the repainted image, relative to the folder of its source; ``{stem}`` stands for
        the source's name without its ending, ``{folder}`` for the name of its folder. For
        example ``inpainting.webp`` beside ``original.jpg``, or ``../fakes/{stem}.png``.

    Returns
    -------
    Engine
        Its output is the same whatever the mask. Where it has another size than the source, the
        whole record is made at its size: the source is brought to it by the history's kernel.

    Raises
    ------
    EngineError
        If the pattern is empty or has other placeholders.
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

    def find(path: str | None) -> Path:
        if path is None:
            raise ImageError("the engine 'file' repaints images that come from a file only.")
        source = Path(path)
        return source.parent / pattern.format(stem=source.stem, folder=source.parent.name)

    def find_size(path: str, size: tuple[int, int]) -> tuple[int, int]:
        facts = describe_file(find(path))
        return facts["width"], facts["height"]

    def repaint(tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        return [_read(find(task.path), task.image.shape) for task in tasks]

    # slashes and dots of a pattern say where files lie on one machine, not what repainted
    name = f"file:{os.path.basename(pattern)}"
    return Engine(name, repaint, uses_mask=False, parallel=True, find_size=find_size)


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | ImageError:
    try:
        image = load_image(path)
    except ImageError as error:
        return error
    if image.shape != shape:
        return ImageError(
            f"{path}: is {image.shape[1]}x{image.shape[0]}, the working size is "
            f"{shape[1]}x{shape[0]}. Leave the size out of the history."
        )
    return image
