"""The ``vae`` engine: an image through a variational autoencoder and back.

This is what a latent diffusion model does to every pixel, without the diffusion. Pasted in inside
a mask it shows what was there before, so a detector can find the decoder's trace only.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnsvm.data.images import ImageError
from cnnsvm.generation.engines import Engine, EngineError, Repaint, Task
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
from cnnsvm.io.memory import is_short_of_memory

logger = logging.getLogger(__name__)

#: Stable Diffusion's autoencoder takes 4.4 kB a pixel in float32: 18 GB at this.
MAX_PIXELS = 2048 * 2048
_CUDA_BATCH = 4
#: Class of an autoencoder -> key of its config with one entry a level; each level but the first
#: halves the sides.
_LEVELS = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
}
_BLACK = 16  # an image with a pixel this bright does not come back black throughout


def vae_engine(
    model: str,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> Engine:
    """Make an engine that encodes an image and decodes it again, whatever the mask.

    The pixels go in as [-1, 1], the latents are the posterior's mode (Kingma & Welling, ICLR 2014),
    so nothing is random, and sides that are no multiple of the autoencoder's stride are mirrored up
    to one and cropped back. The engine is named ``vae:<id or name of the folder>``. An EngineError
    is raised if a setting is wrong, a package is missing, or the model cannot be had.

    ``model`` is the folder, or id on the hub, of a diffusers ``AutoencoderKL`` or
    ``AutoencoderTiny``, or of a pipeline with one in its subfolder ``vae``; ``subfolder`` None
    looks at the top and then there; ``revision`` is a branch, tag or commit. ``batch_size`` None
    takes 4 on CUDA and 1 on the CPU. ``precision`` "auto" is float16 on CUDA unless the model's
    config says ``force_upcast``, which most do, and float32 everywhere else. ``max_pixels`` are the
    most in one pass, which bounds the memory: a batch is split to stay below it, and a larger image
    is refused. (Tiles, normalised one by one, would leave another trace.)
    """
    if not model:
        raise EngineError(
            f"vae needs a model: an id of the hub or a folder. Write for example "
            f"vae:{DEFAULT_MODEL} or vae:/path/to/FOLDER."
        )
    place, dtype, batch_size = choose_place(device, precision, batch_size, _CUDA_BATCH)
    check_number("max_pixels", max_pixels, 1, 10**10, whole=True)
    require_packages()
    configs = [f"{subfolder}/config.json"] if subfolder else ["config.json", "vae/config.json"]
    choose = functools.partial(_weights_patterns, subfolder=subfolder)
    found = find_model("vae", model, revision, configs, choose)
    folder = _find_folder(found.folder, subfolder)
    config = _read_config(folder)
    kind = config["_class_name"]
    # the default of diffusers where the config is silent
    if precision == "auto" and config.get("force_upcast", kind != "AutoencoderTiny"):
        dtype = torch.float32
    if problem := weights_problem(folder):
        raise EngineError(f"vae model {model!r}: {problem}")
    with quiet():
        network = load_network(folder, "diffusers", kind, dtype=dtype)
    details = _describe(found, folder, kind, dtype)
    name = f"vae:{found.name}"
    logger.info("%s: %s on %s, %s", name, details["model_revision"], place, details["precision"])
    stride = 2 ** (len(network.config[_LEVELS[kind]]) - 1)  # pixels a side of one latent
    coder = _Autoencoder(move(network, place), stride, max_pixels)
    return Engine(name, coder.repaint, details, batch_size=batch_size, uses_mask=False)


#: Make the engine of ``MODEL[@REVISION][?option=value&...]``.
engine_from_text = functools.partial(make_from_text, vae_engine)


def _describe(found: Model, folder: Path, kind: str, dtype: torch.dtype) -> dict[str, str]:
    files = [*folder.glob("*.json"), *folder.glob("*.safetensors")]
    return {
        "model_id": found.name,
        "model_revision": found.revision or hash_files(folder, files),
        "pipeline": kind,
        "precision": str(dtype).removeprefix("torch."),
    }


def pad_to(stride: int, pixels: np.ndarray) -> np.ndarray:
    """Mirror an (H, W) or (H, W, C) array at its bottom and right up to multiples of a stride.

    An image and its mask must be padded alike: a mirrored hole left out of the mask would show
    the network what the hole hides.
    """
    margins = [(0, -side % stride) for side in pixels.shape[:2]]
    return np.pad(pixels, margins + [(0, 0)] * (pixels.ndim - 2), mode="symmetric")


def as_output(values: np.ndarray, image: np.ndarray) -> np.ndarray | ImageError:
    """Round a decoder's output to grey levels and crop off what `pad_to` added.

    ``values`` are float (H', W', 3), nominally in [0, 1], ``image`` the input before it was padded.
    The output is an `ImageError` if a value is not finite, or all is black though the image is not,
    as when half precision overflows.
    """
    height, width = image.shape[:2]
    if not np.isfinite(values).all():
        problem = "values that are not finite"
    else:
        pixels = np.rint(np.clip(values[:height, :width], 0, 1) * 255).astype(np.uint8)
        if pixels.any() or image.max() < _BLACK:
            return pixels
        problem = "a black image"
    return ImageError(f"the model returned {problem}. Use precision='float32' or 'bfloat16'.")


def run_in_passes(
    run: Repaint, tasks: Sequence[Task], max_pixels: int, what: str
) -> list[np.ndarray | ImageError]:
    """Run tasks of one size as many at a time as pixels allow (see `run_in_halves`).

    An `ImageError` is raised if one image alone has more than ``max_pixels``; ``what`` is the
    network's name for it.
    """
    height, width = tasks[0].image.shape[:2]
    at_once = max_pixels // (height * width)
    if at_once == 0:
        raise ImageError(
            f"{width}x{height} is {height * width:,} pixels, more than the {what} takes in one "
            f"pass ({max_pixels:,}). Name a working size in the post-processing, such as "
            "'2048x2048,png', or raise max_pixels if there is memory for it."
        )
    outputs: list[np.ndarray | ImageError] = []
    for start in range(0, len(tasks), at_once):
        outputs += run_in_halves(run, tasks[start : start + at_once])
    return outputs


def run_in_halves(run: Repaint, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
    """Run a batch, or its halves one after the other if it does not fit into the memory.

    A single image that does not fit gives an `ImageError` as its output; an `EngineError` is raised
    if the model fails otherwise.
    """
    if not tasks:
        return []
    height, width = tasks[0].image.shape[:2]
    try:
        return list(run(tasks))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        if not is_short_of_memory(error):
            raise EngineError(
                f"the model fails on {width}x{height} pixels ({shorten(error)}). Check that its "
                "parts belong together, or name another model."
            ) from error
    # only after that block has let go of the tensors can they be given back
    torch.cuda.empty_cache()
    if len(tasks) == 1:
        return [
            ImageError(
                f"one image of {width}x{height} pixels does not fit into the memory. Name a "
                "smaller working size, such as '512x512,png', free some memory, or "
                "use device='cpu' where it was the GPU's."
            )
        ]
    half = len(tasks) // 2
    logger.warning(
        "%d images of %dx%d do not fit into the memory; trying %d. A smaller batch_size "
        "saves the attempt.", len(tasks), width, height, half
    )  # fmt: skip
    return run_in_halves(run, tasks[:half]) + run_in_halves(run, tasks[half:])


def run_network(
    network: Callable[[torch.Tensor, Sequence[Task]], torch.Tensor],
    tasks: Sequence[Task],
    device: torch.device,
    stride: int,
) -> list[np.ndarray | ImageError]:
    """Run a network that maps pixels (N, 3, H, W) in [-1, 1] to such pixels."""
    batch = np.stack([pad_to(stride, task.image) for task in tasks])
    pixels = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        made = network(pixels, tasks).float()
    values = (made / 2 + 0.5).permute(0, 2, 3, 1).cpu().numpy()
    return [as_output(one, task.image) for one, task in zip(values, tasks, strict=True)]


@dataclass(frozen=True, repr=False)  # the network would be printed too
class _Autoencoder:
    network: Any
    stride: int
    max_pixels: int

    def repaint(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        return run_in_passes(self._pass, tasks, self.max_pixels, "autoencoder")

    def _pass(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        return run_network(self._round_trip, tasks, self.network.device, self.stride)

    def _round_trip(self, pixels: torch.Tensor, tasks: Sequence[Task]) -> torch.Tensor:
        encoded = self.network.encode(pixels.to(self.network.dtype))
        # the mode, not a sample; the tiny autoencoder has no distribution over its latents
        exact = hasattr(encoded, "latents")
        return self.network.decode(encoded.latents if exact else encoded.latent_dist.mode()).sample


def _weights_patterns(folder: Path, subfolder: str | None) -> list[str]:
    """Say which files of a snapshot, of which the configs are there, hold the weights."""
    place = _find_folder(folder, subfolder).relative_to(folder)
    ends = ("safetensors", "index.json")
    return [(place / f"diffusion_pytorch_model*.{end}").as_posix() for end in ends]


def _find_folder(folder: Path, subfolder: str | None) -> Path:
    places = [folder / subfolder] if subfolder else [folder, folder / "vae"]
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise EngineError(
        f"no config.json in {' or '.join(map(str, places))}, so there is no autoencoder. Name the "
        "folder that a diffusers autoencoder was saved to, or its subfolder (?subfolder=...)."
    )


def _read_config(folder: Path) -> dict[str, Any]:
    """Read the config of an autoencoder and check that it is one of RGB images."""
    file = folder / "config.json"
    config = read_config(file, ". Download it again.")
    name = config.get("_class_name")
    if name not in _LEVELS:
        raise EngineError(
            f"{file} is the config of {name!r}. This engine runs {' and '.join(_LEVELS)}; name "
            "the folder of one, or its subfolder (?subfolder=...)."
        )
    channels = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels != (3, 3):
        raise EngineError(
            f"{file}: an autoencoder of RGB images has 3 channels in and out, got {channels}. "
            "Name another model."
        )
    return config
