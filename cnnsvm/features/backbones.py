"""torchvision networks, each cut at its pooled embedding."""

import logging
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

logger = logging.getLogger(__name__)

PROJECTION_DIM = 256
#: torchvision's DenseNet files still have the names of 2017: ``norm.1`` for today's ``norm1``.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class WeightsError(OSError, ValueError):
    """Weights that cannot be had or do not fit; the message names the remedies."""


@dataclass(frozen=True)
class Preprocessing:
    """How pixels 0-255 become a network's input: ``(pixels * scale - mean) / std``.

    Parameters
    ----------
    mean, std : tuple of 3 floats
        In the network's own channel order and scale.
    scale : float
    channels : {"rgb", "bgr"}
    residual : float or None
        If given, each channel is first replaced by its high-pass residual, clamped to plus or
        minus this many grey levels: the 3x3 "square" filter of the spatial rich model (Fridrich
        & Kodovsky, IEEE TIFS 7(3), 2012). What a picture shows goes, what made it stays.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    channels: str = "rgb"
    residual: float | None = None


#: "imagenet" is torchvision's; "caffe" is that of networks converted from Caffe; "residual" is for
#: networks that are trained from scratch, as no pretrained one has seen residuals.
PREPROCESSING = {
    "imagenet": Preprocessing(),
    "caffe": Preprocessing((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), 1.0, "bgr"),
    "residual": Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 4, residual=8.0),
}
_SQUARE = ((-1.0, 2.0, -1.0), (2.0, -4.0, 2.0), (-1.0, 2.0, -1.0))


def _cut_fc(network: Any) -> nn.Module:
    network.fc = nn.Identity()
    return network


def _cut_features(network: Any) -> nn.Module:
    return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _cut_densenet(network: Any) -> nn.Module:
    # its feature stack ends in a batch norm whose ReLU torchvision applies in forward
    return nn.Sequential(network.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


_FC = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")
_FEATURES = (
    *("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"),
    *("squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "efficientnet_b0", "efficientnet_b2"),
)

#: Name of each torchvision network -> function that cuts it at its pooled embedding.
BACKBONES: dict[str, Callable[[nn.Module], nn.Module]] = {
    **dict.fromkeys(_FC, _cut_fc),
    **dict.fromkeys(_FEATURES, _cut_features),
    **dict.fromkeys(("densenet121", "densenet169"), _cut_densenet),
}


class Backbone(nn.Module):
    """A network from pixels to embeddings, with its preprocessing inside.

    Parameters
    ----------
    body : nn.Module
        From a normalised (N, 3, H, W) batch to (N, d).
    preprocessing : Preprocessing
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, body: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.body = body
        self.projection: nn.Module = nn.Identity()
        self.preprocessing = preprocessing
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(shape), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a uint8 batch of shape (N, 3, H, W), RGB, 0-255, as float (N, d)."""
        values = pixels.float()
        if self.preprocessing.residual is not None:
            values = high_pass(values, self.preprocessing.residual)
        scaled = values * self.preprocessing.scale
        if self.preprocessing.channels == "bgr":
            scaled = scaled.flip(1)
        normalised = (scaled - self.mean) / self.std
        return self.projection(self.body(normalised.contiguous(memory_format=torch.channels_last)))


def high_pass(pixels: torch.Tensor, limit: float) -> torch.Tensor:
    """Filter each channel with the "square" kernel over 4 and clamp.

    Parameters
    ----------
    pixels : float tensor, shape (N, 3, H, W)
        Grey levels 0-255.
    limit : float
        Largest residual kept, in grey levels.

    Returns
    -------
    float tensor, shape (N, 3, H, W), values in [-limit, limit]
    """
    kernel = torch.tensor(_SQUARE, device=pixels.device, dtype=pixels.dtype) / 4
    padded = nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(pixels.device.type, enabled=False):  # bfloat16 has 8 bits of mantissa
        residual = nn.functional.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)
    return residual.clamp(-limit, limit)


def build_backbone(
    name: str,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | dict[str, Any] = "imagenet",
    random_state: int = 0,
    projection: bool = False,
) -> Backbone:
    """Build a backbone.

    Parameters
    ----------
    name : str
        A key of `BACKBONES`.
    weights : None, "imagenet" or path
        None draws random weights from ``random_state``; "imagenet" loads torchvision's; a path
        names a .safetensors, .pth or .pt file with torchvision's parameter names. Parameters of
        the classifier that is cut off may be missing.
    preprocessing : str or dict
        A key of `PREPROCESSING`, or the fields of a `Preprocessing`.
    random_state : int
        Seed of the random weights.
    projection : bool
        Put a linear layer of 256 features and a ReLU on top, whose output is the embedding: the
        part that ``finetune="head"`` trains.

    Returns
    -------
    Backbone
        In float32 on the CPU, with gradients on.

    Raises
    ------
    ValueError
        If the name is not known.
    WeightsError
        If the weights cannot be had or do not fit the network.
    """
    if name not in BACKBONES:
        raise ValueError(
            f"backbone {name!r} is not known. Choose one of {', '.join(sorted(BACKBONES))}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        network = torchvision.models.get_model(name, weights=None)
        if weights is not None:
            _load_into(network, name, weights)
        backbone = Backbone(BACKBONES[name](network), as_preprocessing(preprocessing))
        if projection:
            dim = embedding_dim(backbone)
            backbone.projection = nn.Sequential(nn.Linear(dim, PROJECTION_DIM), nn.ReLU())
    return backbone.to(memory_format=torch.channels_last)


def as_preprocessing(value: str | dict[str, Any] | Preprocessing) -> Preprocessing:
    """Look up a `Preprocessing` by name, or make one of its fields."""
    if isinstance(value, Preprocessing):
        return value
    if isinstance(value, dict):
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in value.items()
        }
        return Preprocessing(**fields)
    if value not in PREPROCESSING:
        raise ValueError(
            f"preprocessing {value!r} is not known. Choose one of {', '.join(PREPROCESSING)}, or "
            f"give a dict with {', '.join(asdict(Preprocessing()))}."
        )
    return PREPROCESSING[value]


def embedding_dim(network: nn.Module, crop_size: int = 64) -> int:
    """Find the length of a network's embedding by one forward pass on a black crop.

    Raises
    ------
    ValueError
        If the network cannot take crops of that size.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            crop = torch.zeros(1, 3, crop_size, crop_size, dtype=torch.uint8)
            return int(network(crop).shape[1])
    except RuntimeError as error:
        raise ValueError(
            f"crop_size={crop_size} is too small for this backbone ({error}). Try 64 or more."
        ) from error
    finally:
        network.train(was_training)


def _load_into(network: nn.Module, name: str, weights: str | os.PathLike[str]) -> None:
    found = _imagenet_state(name) if weights == "imagenet" else _file_state(Path(weights))
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in found.items()}
    own = network.state_dict()
    head = ("fc.", "classifier.")
    fitting = {key: value for key, value in state.items() if key in own}
    wrong = [k for k, v in fitting.items() if v.shape != own[k].shape and not k.startswith(head)]
    optional = (*head, "num_batches_tracked")  # files older than torch 0.4.1 lack the latter
    missing = [k for k in own if k not in state and not k.startswith(head)]
    missing = [k for k in missing if not k.endswith(optional)]
    if wrong or missing:
        raise WeightsError(
            f"weights {os.fspath(weights)!r} do not fit {name}: {len(missing)} parameter(s) "
            f"missing ({', '.join(missing[:3])}), {len(wrong)} of another shape "
            f"({', '.join(wrong[:3])}). The file must hold torchvision's {name}."
        )
    unknown = [key for key in state if key not in own]
    if unknown:
        logger.warning(
            "weights: %d unknown parameter(s) ignored, such as %s", len(unknown), unknown[0]
        )
    shaped = {k: v for k, v in fitting.items() if v.shape == own[k].shape}
    network.load_state_dict(shaped, strict=False)


def _imagenet_state(name: str) -> dict[str, torch.Tensor]:
    choice = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return choice.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(choice.url).name
        raise WeightsError(
            f"weights='imagenet' for {name} cannot be downloaded ({error}). Either copy "
            f"{Path(choice.url).name} to {file.parent} from a machine that has it, or pass "
            "weights='/path/to/file.safetensors' (or .pth). weights=None starts from random ones."
        ) from error


def _file_state(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise WeightsError(
            f"weights {str(file)!r}: no such file. Give 'imagenet', an existing .safetensors, .pth "
            "or .pt file, or None for random weights."
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        return state.get("state_dict", state)
    except (OSError, RuntimeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"weights {str(file)!r} cannot be read: {error}") from error
    except Exception as error:  # safetensors raises a class of its own
        raise WeightsError(f"weights {str(file)!r} are not a weights file: {error}") from error
