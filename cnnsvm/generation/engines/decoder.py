"""The ``decoder`` engine: images through the generators of `decoder_networks`.

A saved generator is a bundle (`cnnsvm.io.bundle`). It always computes in float32: the coarser grey
levels of bfloat16 would be a fingerprint of the arithmetic, not of the decoder.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnnsvm.data.images import ImageError
from cnnsvm.features.devices import autocast
from cnnsvm.generation.engines import Engine, EngineError, Task
from cnnsvm.generation.engines.decoder_networks import (
    Autoencoder,
    DecoderSpec,
    Denoiser,
    signal_and_noise,
)
from cnnsvm.generation.engines.pretrained import (
    check_number,
    choose_place,
    move,
    option_types,
    parse_model,
    shorten,
)
from cnnsvm.generation.engines.vae import MAX_PIXELS, run_in_passes, run_network
from cnnsvm.io.bundle import holds_model, read_bundle, read_config, write_bundle

logger = logging.getLogger(__name__)

KIND = "decoder"
WEIGHTS = "weights"
STRIDE = 8
#: Noise levels that an image is brought to before it is denoised.
LEVELS = (0.12, 0.4)
N_STEPS = 6
_CUDA_BATCH = 4
_HOW = (
    "Name a folder that save_decoder or experiments/train_decoders.py wrote, or train it again "
    "with that script."
)


def save_decoder(
    model: Autoencoder | Denoiser,
    folder: str | os.PathLike[str],
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Save a generator, all or nothing, and return the folder.

    A generator that is there already is replaced. ``training`` holds plain JSON values, see
    `read_training`. An `EngineError` is raised if the folder holds something else, or a weight is
    not finite.
    """
    state = model.state_dict()
    arrays = {key: value.detach().cpu().float().numpy() for key, value in state.items()}
    _check_finite(arrays, f"the {model.name} to save")
    if isinstance(model, Autoencoder):
        described: dict[str, Any] = {"model": asdict(model.spec)}
    else:
        described = {"model": Denoiser.name, "width": model.width}
    config = {"kind": KIND, **described, "training": dict(training or {})}
    try:
        if holds_model(folder) and read_config(folder).get("kind") != KIND:
            raise EngineError(f"{folder} holds another kind of model. Choose a new folder.")
        return write_bundle(folder, config, {WEIGHTS: arrays})
    except OSError as error:
        raise EngineError(f"the {model.name} cannot be saved: {error}") from error


def load_decoder(folder: str | os.PathLike[str]) -> Autoencoder | Denoiser:
    """Load what `save_decoder` wrote: on the CPU, in float32, for evaluation, without gradients.

    No random number is drawn. An `EngineError` is raised if a file is missing, changed or
    malformed, or the folder holds something else.
    """
    return _load(folder)[0]


def read_training(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the ``training`` values of a saved generator (`EngineError` if there is none)."""
    try:
        return dict(_of_decoder(folder, read_config(folder))["training"])
    except OSError as error:
        raise EngineError(f"no generator in {folder}: {error} {_HOW}") from error


def engine_from_text(argument: str) -> Engine:
    """Make the engine of ``FOLDER[?option=value&...]`` with the options of `decoder_engine`."""
    folder, options = parse_model(argument, option_types(decoder_engine))
    revision = options.pop("revision")
    return decoder_engine(folder if revision is None else f"{folder}@{revision}", **options)


def decoder_engine(
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    batch_size: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Engine:
    """Make an engine of a saved generator; its output is the same whatever the mask.

    An autoencoder encodes the image and decodes it again, with the posterior's mode or the
    codebook's vectors, so nothing is random. A denoiser adds noise, drawn from the task's seed at a
    level out of `LEVELS`, and takes it off again in `N_STEPS` steps (see `renoise`). Sides that are
    no multiples of 8 are mirrored up to one and cropped back.

    ``folder`` is one of `save_decoder`. For ``device`` see `choose_device`; another device or batch
    may change a grey level by one. A batch size of None is 4 on CUDA and 1 on the CPU.
    ``max_pixels`` go through in one pass, which bounds the memory (0.4 kB a pixel, 0.8 kB for a
    denoiser): a batch is split to stay below it, and a larger image is refused. The engine is named
    after the model, as ``decoder:nearest-8-kl-pyramid`` or ``decoder:denoiser``; its
    ``model_revision`` is a hash of the weights. An EngineError is raised if a setting is wrong or
    the generator cannot be loaded.
    """
    if not os.fspath(folder):
        raise EngineError(f"decoder needs a folder, as in decoder:/path/to/FOLDER. {_HOW}")
    place, _, batch_size = choose_place(device, "float32", batch_size, _CUDA_BATCH)
    check_number("max_pixels", max_pixels, 1, 10**10, whole=True)
    model, revision = _load(folder)
    details = {
        "model_id": model.name,
        "model_revision": revision,
        "pipeline": type(model).__name__,
        "precision": "float32",
    }
    name = f"{KIND}:{model.name}"
    logger.info("%s: %s on %s", name, revision, place)
    model = move(model, place).to(memory_format=torch.channels_last)  # a third faster on a CPU
    runner = _Runner(model, place, max_pixels)
    return Engine(name, runner.repaint, details, batch_size=batch_size, uses_mask=False)


@dataclass(frozen=True, repr=False)  # the network would be printed too
class _Runner:
    model: Autoencoder | Denoiser
    place: torch.device
    max_pixels: int

    def repaint(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        return run_in_passes(self._pass, tasks, self.max_pixels, "decoder")

    def _pass(self, tasks: Sequence[Task]) -> list[np.ndarray | ImageError]:
        # without these, a GPU's float32 has 10 bits of mantissa, and a caller's autocast rules
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with exact, autocast(self.place, torch.float32):
            return run_network(self._made, tasks, self.place, STRIDE)

    def _made(self, pixels: torch.Tensor, tasks: Sequence[Task]) -> torch.Tensor:
        if isinstance(self.model, Denoiser):
            return renoise(self.model, pixels, [task.seed for task in tasks])
        return self.model(pixels)[0]


def renoise(model: Denoiser, pixels: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
    """Add noise to images and take it off again: SDEdit (Meng et al., ICLR 2022).

    Each step predicts the noise and from it the image, and goes on to the next level with half of
    the noise's variance predicted and half fresh, between DDIM and DDPM (Song et al., ICLR 2021,
    eq. 12). What is drawn for an image depends on its seed alone. ``pixels`` are float32
    (N, 3, H, W) in [-1, 1], their sides multiples of 4; the result is alike.
    """
    draws = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    low, high = LEVELS
    start = torch.stack([low + (high - low) * torch.rand((), generator=draw) for draw in draws])
    levels = [start.to(pixels.device) * left / N_STEPS for left in range(N_STEPS, 0, -1)]

    def noise() -> torch.Tensor:
        drawn = [torch.randn(pixels.shape[1:], generator=draw) for draw in draws]
        return torch.stack(drawn).to(pixels.device)

    clean, mixed = pixels, noise()
    for level in levels:
        signal, sigma = signal_and_noise(level)
        values = signal * clean + sigma * mixed
        found = model(values, level)
        clean = ((values - sigma * found) / signal).clamp(-1, 1)
        if level is not levels[-1]:
            mixed = 0.5**0.5 * (found + noise())
    return clean


def _load(folder: str | os.PathLike[str]) -> tuple[Autoencoder | Denoiser, str]:
    """Return a saved generator and the hash of its weights."""
    place = Path(folder).expanduser()
    try:
        config, arrays = read_bundle(place)
        kind = _of_decoder(place, config)["model"]
        with torch.device("meta"):  # no weights to draw
            is_denoiser = kind == Denoiser.name
            model = Denoiser(config["width"]) if is_denoiser else Autoencoder(DecoderSpec(**kind))
        weights = arrays[WEIGHTS]
        _check_finite(weights, str(place))
        state = {key: torch.tensor(value, dtype=torch.float32) for key, value in weights.items()}
        model.load_state_dict(state, assign=True)
    except EngineError:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise EngineError(f"no generator in {place}: {shorten(error, 400)} {_HOW}") from error
    revision = config["files"][f"{WEIGHTS}.safetensors"][:16]
    return model.eval().requires_grad_(False), f"sha256:{revision}"


def _of_decoder(folder: str | os.PathLike[str], config: dict[str, Any]) -> dict[str, Any]:
    if config.get("kind") != KIND:
        raise EngineError(
            f"{folder} holds a model of kind {config.get('kind')!r}, not {KIND!r}. {_HOW}"
        )
    return config


def _check_finite(weights: Mapping[str, np.ndarray], what: str) -> None:
    bad = [key for key, value in weights.items() if not np.isfinite(value).all()]
    if bad:
        raise EngineError(
            f"{what}: {len(bad)} weight(s) are not finite, such as {bad[0]}. Training went astray; "
            "train it again with another seed or in float32."
        )
