"""Engines: what repaints the masked part of an image.

An engine is named ``kind`` or ``kind:argument``. `ENGINES` maps each kind to a factory that turns
the argument (empty if there is none) into an `Engine`. A new kind is a module here and a line of
that table; its module is imported when it is first used.
"""

import importlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cnnsvm.data.images import ImageError

logger = logging.getLogger(__name__)


class EngineError(ValueError):
    """An engine that does not exist, cannot be loaded or does not keep to its contract."""


@dataclass(frozen=True)
class Task:
    """One image to repaint, uint8 RGB (H, W, 3) at the working size.

    ``mask`` is bool (H, W), True where to repaint. The same task, ``seed`` in [0, 2**32) included,
    must give the same output. ``prompt`` (what to paint) and ``path`` (the file of the image) are
    for engines that use them.
    """

    image: np.ndarray
    mask: np.ndarray
    seed: int = 0
    prompt: str | None = None
    path: str | None = None


Repaint = Callable[[Sequence[Task]], Sequence[np.ndarray | ImageError]]


@dataclass(frozen=True)
class Engine:
    """A named way to repaint the masked part of images.

    Parameters
    ----------
    name : str
        What the manifest's ``engine`` column says.
    repaint : callable ``(tasks) -> outputs``
        Gets at most ``batch_size`` tasks whose images have one size, and returns the whole output
        for each: uint8 of the shape of its image. An `ImageError` in place of an output (or
        raised, for all of them), or any exception but an `EngineError`, costs these images only;
        an `EngineError` stops a build. See `one_by_one`. Called by one thread at a time unless
        ``parallel``.
    details : mapping of str to str
        More columns for the manifest, such as ``model_id`` and ``model_revision``.
    prompt : str or None
        Used where a source brings none; None for an engine that takes no prompt.
    batch_size : int
    size : tuple of int (width, height), or None
        Working size where the post-processing names none.
    uses_mask : bool
        False if the output is the same whatever the mask, so that one run serves every mask.
    parallel : bool
        Whether several threads may call it at once.
    find_file : callable ``(path) -> path``, or None
        For an engine that takes finished files: the one of a source. The whole record, original
        and all, is brought to its size first.
    find_problem : callable ``(prompt) -> str or None``, or None
        Says what is wrong with a prompt.
    variants : tuple of str
        The variants of fakes that its output makes sense for.
    """

    name: str
    repaint: Repaint
    details: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    batch_size: int = 1
    size: tuple[int, int] | None = None
    uses_mask: bool = True
    parallel: bool = False
    find_file: Callable[[str], Path] | None = None
    find_problem: Callable[[str], str | None] | None = None
    variants: tuple[str, ...] = ("regenerated", "spliced")
    _lock: Any = field(default_factory=threading.Lock, compare=False, repr=False)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int = 0, prompt: str | None = None
    ) -> np.ndarray:
        """Repaint one image, see `repaint_all`; raises its `ImageError`."""
        output = self.repaint_all([Task(image, mask, seed, prompt)])[0]
        if isinstance(output, ImageError):
            raise output
        return output

    def repaint_all(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        """Repaint tasks in batches and check the outputs.

        Their images have one size and are not changed. Each output is uint8 (H, W, 3) or an
        ImageError. An EngineError is raised if a mask does not fit its image, or the engine breaks
        its contract.
        """
        outputs: list[np.ndarray | ImageError] = []
        for start in range(0, len(tasks), self.batch_size):
            batch = [_checked(task) for task in tasks[start : start + self.batch_size]]
            made = self._try(batch)
            if len(made) != len(batch):
                raise EngineError(
                    f"engine {self.name!r} returned {len(made)} images for {len(batch)} tasks. "
                    "Correct the engine."
                )
            for task, output in zip(batch, made, strict=True):
                if not isinstance(output, ImageError):
                    self._check_output(output, task.image.shape)
            outputs += made
        return outputs

    def _try(self, batch: Sequence[Task]) -> list[np.ndarray | ImageError]:
        try:
            with nullcontext() if self.parallel else self._lock:
                return list(self.repaint(batch))
        except EngineError:
            raise
        except ImageError as error:
            return [error] * len(batch)
        except Exception as error:  # whatever it is, other images may do
            logger.debug("engine %s", self.name, exc_info=True)
            failed = ImageError(f"engine {self.name!r} failed: {type(error).__name__}: {error}")
            return [failed] * len(batch)

    def _check_output(self, output: object, shape: tuple[int, ...]) -> None:
        got = (getattr(output, "shape", None), getattr(output, "dtype", type(output).__name__))
        if got != (shape, np.uint8):
            raise EngineError(
                f"engine {self.name!r} must return uint8 {shape}, got {got[1]} {got[0]}. "
                "Correct the engine."
            )


def get_engine(name: str | Engine) -> Engine:
    """Make the engine ``kind`` or ``kind:argument``; an `Engine` is returned as is.

    An `EngineError` is raised if `ENGINES` has no such kind or the factory refuses the argument.
    """
    if isinstance(name, Engine):
        return name
    kind, _, argument = name.partition(":")
    if kind not in ENGINES:
        raise EngineError(f"no engine {name!r}. There is: {', '.join(sorted(ENGINES))}.")
    factory = ENGINES[kind]
    if isinstance(factory, str):
        module, _, function = factory.partition(":")
        factory = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return factory(argument)


def one_by_one(function: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> Repaint:
    """Turn a function ``(image, mask, seed) -> image`` into what an `Engine` calls.

    The image it gets is its own copy.
    """

    def repaint(tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        outputs: list[np.ndarray | ImageError] = []
        for task in tasks:
            try:
                outputs.append(function(task.image.copy(), task.mask, task.seed))
            except ImageError as error:
                outputs.append(error)
        return outputs

    return repaint


def _checked(task: Task) -> Task:
    if task.mask.dtype != np.bool_ or task.mask.shape != task.image.shape[:2]:
        raise EngineError(
            f"a mask for an image {task.image.shape} is bool {task.image.shape[:2]}, "
            f"got {task.mask.dtype} {task.mask.shape}."
        )
    return task


#: Factories of engines by kind, as ``module:function`` in this package. ``opencv-telea[:radius]``
#: and ``opencv-ns[:radius]``, the width in pixels of the rim that each new pixel is computed from
#: (default 3); ``self-blend``, the image itself, warped;
#: ``file:<pattern>``, finished files; ``diffusion[:<model>]`` and ``vae:<model>``, an id or folder;
#: ``decoder:<folder>``, a small generator trained by ``experiments/train_decoders.py``.
ENGINES: dict[str, str | Callable[[str], Engine]] = {
    "opencv-telea": "opencv:telea_engine",
    "opencv-ns": "opencv:navier_stokes_engine",
    "self-blend": "opencv:self_blend_engine",
    "file": "file:file_engine",
    "diffusion": "diffusion:engine_from_text",
    "vae": "vae:engine_from_text",
    "decoder": "decoder:engine_from_text",
}
