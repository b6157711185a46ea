"""The engine ``file:<pattern>``: repainted images that are on disk already."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.generation.engines import Engine, EngineError, Task


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
        return [_repaint(task, find) for task in tasks]

    # what leads to the folder says where files lie on one machine, not what repainted
    name = "/".join(part for part in Path(pattern).parts[-2:] if part not in ("..", "/"))
    return Engine(f"file:{name}", repaint, uses_mask=False, parallel=True, find_file=find)


def _repaint(task: Task, find: Callable[[str], Path]) -> np.ndarray | ImageError:
    if task.path is None:
        return ImageError("the engine 'file' repaints images that come from a file only.")
    return _read(find(task.path), task.image.shape)


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
