"""The ``diffusion`` engine: Stable Diffusion inpainting (Rombach et al., CVPR 2022).

What it returns is what the decoder made of the latents, every pixel of it: the original is not
pasted back outside the mask, which is the difference between *regenerated* and *spliced*.
"""

import functools
import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.generation.engines import Engine, EngineError, Task
from cnnsvm.generation.engines.pretrained import (
    DEFAULT_MODEL,
    Model,
    check_number,
    choose_place,
    find_model,
    hash_files,
    load_network,
    make_from_text,
    move,
    quiet,
    read_config,
    require_packages,
    shorten,
    weights_problem,
)
from cnnsvm.generation.engines.vae import as_output, pad_to, run_in_halves

logger = logging.getLogger(__name__)

#: The prompt of the DeepfakeArt challenge set.
DEFAULT_PROMPT = "generate a painting compatible with the rest of the image"
_CUDA_BATCH = 5  # the five masks of a source
#: Pipelines whose parts `AutoPipelineForInpainting` puts into an inpainting one with a U-Net.
_CLASSES = tuple(
    f"StableDiffusion{xl}{task}Pipeline" for xl in ("", "XL") for task in ("", "Img2Img", "Inpaint")
)
_FILES = ("json", "safetensors", "txt")
_REQUIRED = ("unet", "vae", "scheduler")
_NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2", "image_encoder", "safety_checker")


def diffusion_engine(
    model: str = DEFAULT_MODEL,
    *,
    revision: str | None = None,
    prompt: str = DEFAULT_PROMPT,
    negative_prompt: str | None = None,
    steps: int = 50,
    guidance: float = 7.5,
    strength: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Engine:
    """Make an engine that repaints the mask as a prompt says.

    Every image has its own generator on the CPU, so what is drawn does not depend on the device or
    the batch, up to rounding. Sides that are no multiple of the model's stride are mirrored up to
    one, image and mask alike, and cropped back. A U-Net of 9 channels sees the mask; for one of 4,
    the rest of the image is put back into its latents after every step (blended latent diffusion,
    Avrahami et al., ACM TOG 42(4), 2023). ``details["unet_channels"]`` says which it was. The
    engine is named ``diffusion:<id or name of the folder>``, its size is that of the model's
    training. An EngineError is raised if a setting is wrong, a package is missing, or the model
    cannot be had.

    ``model`` is the id on the hub (``revision``: branch, tag or commit) or folder of a Stable
    Diffusion 1, 2 or XL pipeline with safetensors. ``prompt`` is for tasks without one,
    ``negative_prompt`` what not to paint, which needs a ``guidance``, 0-100, above 1; up to 1 turns
    classifier-free guidance off. ``steps`` are 1-1000. ``strength``, in (0, 1], is the share of the
    noise that the image starts from, and so of the steps; None takes the default of diffusers: 1
    for Stable Diffusion 1 and 2, and 0.9999, one step less, for XL. ``batch_size`` None takes 5 on
    CUDA and 1 on the CPU; ``precision`` "auto" is float16 on CUDA and float32 on the CPU.
    """
    _check_settings(steps, guidance, strength, negative_prompt)
    place, dtype, batch_size = choose_place(device, precision, batch_size, _CUDA_BATCH)
    require_packages()
    found = find_model(
        "diffusion", model or DEFAULT_MODEL, revision, ["model_index.json"], _part_patterns
    )
    with quiet():
        pipeline = move(_load(found.folder, dtype), place)
    pipeline.set_progress_bar_config(disable=True)
    if strength is None:
        strength = float(inspect.signature(type(pipeline).__call__).parameters["strength"].default)
    settings = {"num_inference_steps": steps, "guidance_scale": guidance, "strength": strength}
    painter = _Painter(pipeline, prompt, negative_prompt, settings)
    painter.check()
    details = _describe(painter, found)
    name = f"diffusion:{found.name}"
    logger.info("%s: %s on %s", name, details, place)
    return Engine(
        name,
        painter.repaint,
        details,
        prompt,
        batch_size,
        size=_size_of(pipeline),
        find_problem=painter.find_problem,
    )


def _size_of(pipeline: Any) -> tuple[int, int]:
    """Return width and height that the model was trained at."""
    side = pipeline.unet.config.sample_size
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return width * pipeline.vae_scale_factor, height * pipeline.vae_scale_factor


def _check_settings(
    steps: int, guidance: float, strength: float | None, negative_prompt: str | None
) -> None:
    check_number("steps", steps, 1, 1000, whole=True)
    check_number("guidance", guidance, 0, 100)
    if strength is not None:
        check_number("strength", strength, 0, 1)
    if negative_prompt and guidance <= 1:
        raise EngineError(
            f"a negative_prompt needs a guidance above 1, got {guidance}. Raise it or leave the "
            "negative_prompt out."
        )


#: Make the engine of ``[MODEL][@REVISION][?option=value&...]``, as ``/folder?steps=20``.
engine_from_text = functools.partial(make_from_text, diffusion_engine)


@dataclass(frozen=True, repr=False)  # the pipeline would be printed too
class _Painter:
    pipeline: Any
    prompt: str
    negative_prompt: str | None
    settings: dict[str, Any]

    def check(self) -> None:
        """Refuse settings that this model cannot follow."""
        steps, strength = self.settings["num_inference_steps"], self.settings["strength"]
        trained = self.pipeline.scheduler.config.get("num_train_timesteps", steps)
        if steps > trained or int(steps * strength) < 1:
            raise EngineError(
                f"steps={steps} at strength={strength:g}: this model takes at most {trained}, and "
                f"{steps} x {strength:g}, rounded down, must leave one. Change the steps."
            )
        for prompt in (self.prompt, self.negative_prompt):
            if problem := self.find_problem(prompt or ""):
                raise EngineError(problem)

    def repaint(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        problems = [self.find_problem(self._prompt_of(task)) for task in tasks]
        good = [task for task, problem in zip(tasks, problems, strict=True) if not problem]
        painted = iter(run_in_halves(self._paint, good))
        return [ImageError(problem) if problem else next(painted) for problem in problems]

    def _paint(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        stride = self.pipeline.vae_scale_factor
        images = [pad_to(stride, task.image) for task in tasks]
        masks = [pad_to(stride, task.mask).astype(np.uint8) * 255 for task in tasks]
        negative = self.negative_prompt
        with quiet():
            result = self.pipeline(
                prompt=[self._prompt_of(task) for task in tasks],
                negative_prompt=None if negative is None else [negative] * len(tasks),
                image=[Image.fromarray(image) for image in images],
                mask_image=[Image.fromarray(mask) for mask in masks],
                height=images[0].shape[0],
                width=images[0].shape[1],
                # on the CPU, so that every device draws the same numbers
                generator=[torch.Generator("cpu").manual_seed(task.seed) for task in tasks],
                output_type="np",  # floats: 8 bits would hide values that are not finite
                **self.settings,
            )
        withheld = getattr(result, "nsfw_content_detected", None) or [False] * len(tasks)
        problem = (
            "the model's safety checker withheld this image and returned black. Use another "
            "source, seed or prompt, or a model without a checker if its licence allows that."
        )
        return [
            ImageError(problem) if flag else as_output(values, task.image)
            for values, flag, task in zip(result.images, withheld, tasks, strict=True)
        ]

    def _prompt_of(self, task: Task) -> str:
        return self.prompt if task.prompt is None else task.prompt

    def find_problem(self, prompt: str) -> str | None:
        """Say what is wrong with a prompt."""
        # the pipelines cut off what their text encoders cannot read and go on
        for name in ("tokenizer", "tokenizer_2"):
            tokenizer = getattr(self.pipeline, name, None)
            if tokenizer is None:
                continue
            limit = tokenizer.model_max_length
            count = len(tokenizer(prompt, truncation=False, verbose=False).input_ids)
            if count > limit:
                return (
                    f"the prompt {prompt:.40}... is {count} tokens long, and this model reads "
                    f"{limit}, two of which mark its ends. Shorten it."
                )
        return None


def _describe(painter: _Painter, found: Model) -> dict[str, str]:
    pipeline, settings = painter.pipeline, painter.settings
    negative = painter.negative_prompt
    # not the checkpoints beside the parts
    parts = [file for kind in _FILES for file in found.folder.glob(f"[!.]*/*.{kind}")]
    files = [found.folder / "model_index.json", *parts]
    return {
        "model_id": found.name,
        "model_revision": found.revision or hash_files(found.folder, files),
        "pipeline": type(pipeline).__name__,
        "unet_channels": str(pipeline.unet.config.in_channels),
        "scheduler": type(pipeline.scheduler).__name__,
        "steps": str(settings["num_inference_steps"]),
        "guidance": f"{settings['guidance_scale']:g}",
        "strength": f"{settings['strength']:g}",
        "precision": str(pipeline.unet.dtype).removeprefix("torch."),
        **({} if negative is None else {"negative_prompt": negative}),
    }


def _part_patterns(folder: Path) -> list[str]:
    """Say which files of a snapshot, of which the index is there, make up the pipeline."""
    return [f"{part}/*.{kind}" for part in _read_index(folder) for kind in _FILES]


def _load(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import AutoPipelineForInpainting

    parts = {
        # one by one, so that an error names the part, and a missing weight is one
        name: load_network(folder / name, library, kind, dtype=dtype)
        for name, (library, kind) in _read_parts(folder).items()
        if name in _NETWORKS and library in ("diffusers", "transformers")
    }
    try:
        pipeline = AutoPipelineForInpainting.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, **parts
        )
    except Exception as error:  # these libraries raise whatever their file readers do
        raise EngineError(
            f"{folder} cannot be loaded ({shorten(error)}). Download the folder again."
        ) from error
    _check_unet(pipeline, folder)
    if hasattr(pipeline, "watermark"):
        # XL marks its images where a certain package is installed; a detector would find that
        pipeline.watermark = None
    return pipeline


def _read_index(folder: Path) -> dict[str, tuple[str, str]]:
    """Read the parts of a pipeline, name -> (library, class), out of its index."""
    file = folder / "model_index.json"
    remedy = f"Name what 'hf download {DEFAULT_MODEL} --local-dir FOLDER' writes."
    index = read_config(file, f", so {folder} is no diffusers pipeline. {remedy}")
    if index.get("_class_name") not in _CLASSES:
        raise EngineError(
            f"{folder} is a {index.get('_class_name')!r}. This engine runs the Stable Diffusion 1, "
            f"2 and XL pipelines ({', '.join(_CLASSES)}), such as diffusion:{DEFAULT_MODEL}."
        )
    pairs = {name: tuple(value) for name, value in index.items() if isinstance(value, list)}
    return {name: pair for name, pair in pairs.items() if len(pair) == 2 and pair[0] is not None}


def _read_parts(folder: Path) -> dict[str, tuple[str, str]]:
    """Read the index and check that the parts are there."""
    parts = _read_index(folder)
    problems = [f"its index names no {name}." for name in _REQUIRED if name not in parts]
    for name in parts:
        if not (folder / name).is_dir():
            problems.append(f"it has no {name}. Download the folder again.")
        elif name in _NETWORKS and (problem := weights_problem(folder / name)):
            problems.append(problem)
    if problems:
        raise EngineError(f"diffusion model {folder} is not complete: {' '.join(problems)}")
    return parts


def _check_unet(pipeline: Any, folder: Path) -> None:
    channels = pipeline.unet.config.in_channels
    if channels not in (4, 9):
        raise EngineError(
            f"{folder}: the U-Net of an inpainting model has 9 input channels, or 4 if it does not "
            f"see the mask, got {channels}. Name an inpainting model, such as {DEFAULT_MODEL}."
        )
    if channels == 4:
        logger.warning(
            "%s is no inpainting model: its U-Net does not see the mask. The rest of the image is "
            "put back into its latents after every step.", folder.name
        )  # fmt: skip
