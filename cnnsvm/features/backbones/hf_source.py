"""Vision models of transformers (``"hf:ID-or-folder"``), CLIP's and DINO's among them."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnsvm.features.backbones import Body
from cnnsvm.features.backbones.clip_vision import ClipVision, is_clip_vision
from cnnsvm.features.backbones.stems import check_native
from cnnsvm.features.backbones.weights import WeightsError, load_state, read_state
from cnnsvm.features.preprocessing import PREPROCESSING, Preprocessing


def build(
    name: str,
    weights: str | os.PathLike[str] | None,
    *,
    n_channels: int,
    stem: str,
    truncate_at: Any,
) -> Body:
    """Build a vision model, such as CLIP's or DINO's (see `build_backbone`).

    Of a model of text and images, such as CLIP, the image tower is taken.
    """
    check_native(f"hf:{name}", stem)
    if n_channels != 3:
        raise ValueError(
            f"hf:{name} takes RGB images, but this preprocessing makes {n_channels} channels. Use "
            "preprocessing='auto' with weights, or 'imagenet'."
        )
    layers = (truncate_at,) if isinstance(truncate_at, int) else truncate_at
    if name.startswith("{") and weights is None:  # a configuration, as a saved detector has it
        config = json.loads(name)
        if is_clip_vision(config):
            return Body(_Tower(ClipVision(config), layers), offline_name=f"hf:{name}")
    import transformers

    try:
        config = _read_config(name)
        _leave_out_layers(config, layers)
        if weights == "imagenet":
            model = transformers.AutoModel.from_pretrained(name, config=config)
        else:
            model = transformers.AutoModel.from_config(config)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"backbone 'hf:{name}' cannot be had ({str(error)[:300]}). Name a folder that "
            "`save_pretrained` of transformers wrote, or an id of the hub while it can be reached."
        ) from error
    model = getattr(model, "vision_model", model)
    if weights is not None and weights != "imagenet":
        load_state(model, f"hf:{name}", weights, read_state(weights))
    known = PREPROCESSING["imagenet"] if name.startswith("{") else _preprocessing(name)
    own = {key: value for key, value in config.to_dict().items() if not key.startswith("_")}
    return Body(_Tower(model, layers), known, offline_name=f"hf:{json.dumps(own)}")


def _read_config(name: str) -> Any:
    """Return the configuration of a vision model, of text and images too."""
    from transformers import AutoConfig

    if name.startswith("{"):
        config = AutoConfig.for_model(**json.loads(name))
    else:
        config = AutoConfig.from_pretrained(name)
    return getattr(config, "vision_config", config)


def _leave_out_layers(config: Any, layers: tuple[int, ...] | None) -> None:
    """Shorten a model to the last layer that is asked for: no weights or time for the others."""
    depth = getattr(config, "num_hidden_layers", 0)
    if layers and min(layers) >= 0 and max(layers) < depth:
        config.num_hidden_layers = max(*layers, 1)


def _preprocessing(name: str) -> Preprocessing:
    """Read mean and deviation of the processor's description; ImageNet's if there is none."""
    from transformers.utils import cached_file

    file = cached_file(
        name, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False
    )
    said = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    if "image_mean" not in said:
        return PREPROCESSING["imagenet"]
    return Preprocessing(tuple(said["image_mean"]), tuple(said["image_std"]))


class _Tower(nn.Module):
    """The pooled output of a model, or the class tokens of some of its layers."""

    def __init__(self, model: nn.Module, layers: tuple[int, ...] | None) -> None:
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.layers is not None:
            states = self.model(values, output_hidden_states=True).hidden_states
            if not all(-len(states) <= layer < len(states) for layer in self.layers):
                raise ValueError(
                    f"truncate_at={self.layers!r} is out of range: this model has layers 0 "
                    f"(embeddings) to {len(states) - 1}."
                )
            return torch.cat([_token(states[layer]) for layer in self.layers], dim=1)
        found = self.model(values)
        pooled = getattr(found, "pooler_output", None)
        return _token(found.last_hidden_state) if pooled is None else pooled.flatten(1)

    def patches(self, values: torch.Tensor, layer: int) -> torch.Tensor:
        """Return what a layer says of each patch, (N, h, w, d): all tokens but the class's."""
        self.check_layer(layer)
        # the layers behind it are for nothing, and transformers does not leave them out
        how = {"depth": layer} if isinstance(self.model, ClipVision) else {}
        found = self.model(values, output_hidden_states=True, **how).hidden_states
        state = found[layer][:, 1:]
        side = round(state.shape[1] ** 0.5)
        return state.unflatten(1, (side, side))

    def check_layer(self, layer: int, n_features: int | None = None) -> None:
        """Refuse a layer of patches, or a number of their features, that the model has not."""
        config: Any = self.model.config
        depth, width = config.num_hidden_layers, config.hidden_size
        if not 0 <= layer <= depth or n_features not in (None, width):
            raise ValueError(
                f"layer {layer} of {n_features or 'any number of'} features; this model has "
                f"layers 0 to {depth} of {width}."
            )


def _token(state: torch.Tensor) -> torch.Tensor:
    """Return the class token of (N, n_tokens, d), or the mean of a map (N, d, h, w)."""
    return state.mean(dim=(2, 3)) if state.ndim == 4 else state[:, 0]
