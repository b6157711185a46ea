"""CLIP's vision transformer in plain torch, for saved detectors: transformers imports for seconds.

Names of parameters and results are those of transformers' ``CLIPVisionModel``, after Radford et
al., "Learning transferable visual models from natural language supervision" (ICML 2021).
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional


def _quick_gelu(values: torch.Tensor) -> torch.Tensor:
    return values * torch.sigmoid(1.702 * values)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "quick_gelu": _quick_gelu,
}
_SIZES = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size"),
)


class Found(NamedTuple):
    """What the model says: float (N, n_tokens, d), one before and one after each layer, (N, d)."""

    last_hidden_state: torch.Tensor
    hidden_states: list[torch.Tensor]
    pooler_output: torch.Tensor


def is_clip_vision(config: dict[str, Any]) -> bool:
    """Whether `ClipVision` builds what a configuration of transformers describes."""
    return (
        config.get("model_type") == "clip_vision_model"
        and config.get("hidden_act") in _ACTIVATIONS
        and config.get("attention_dropout", 0.0) == 0
        and isinstance(config.get("layer_norm_eps"), float)
        and all(type(config.get(name)) is int and config[name] > 0 for name in _SIZES)
        and config["hidden_size"] % config["num_attention_heads"] == 0
    )


class ClipVision(nn.Module):
    """The model that a configuration describes (see `is_clip_vision`)."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        dim, eps = config["hidden_size"], config["layer_norm_eps"]
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(dim, eps)  # sic: the name in the published weights
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            _Layer(config) for _ in range(config["num_hidden_layers"])
        )
        self.post_layernorm = nn.LayerNorm(dim, eps)

    def forward(
        self, values: torch.Tensor, *, output_hidden_states: bool = True, depth: int | None = None
    ) -> Found:
        """Run the first ``depth`` layers, or all, on normalised images, float (N, 3, H, W)."""
        states = [self.pre_layrnorm(self.embeddings(values))]
        layers: Any = self.encoder.layers
        for layer in layers[:depth]:
            states.append(layer(states[-1]))
        return Found(states[-1], states, self.post_layernorm(states[-1][:, 0]))


class _Embeddings(nn.Module):
    """The class's token, and one of each patch."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim, patch, side = config["hidden_size"], config["patch_size"], config["image_size"]
        self.side = side
        self.class_embedding = nn.Parameter(torch.empty(dim).normal_())
        self.patch_embedding = nn.Conv2d(config["num_channels"], dim, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((side // patch) ** 2 + 1, dim)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.shape[2:] != (self.side, self.side):
            raise ValueError(
                f"this model takes images of {self.side}x{self.side} pixels, got "
                f"{values.shape[3]}x{values.shape[2]}. Set crop_size={self.side}."
            )
        patches = self.patch_embedding(values).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(values.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class _Layer(nn.Module):
    """Attention and two linear layers, each added to what it is given."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim, inner, eps = (
            config[k] for k in ("hidden_size", "intermediate_size", "layer_norm_eps")
        )
        self.n_heads = config["num_attention_heads"]
        self.activation = _ACTIVATIONS[config["hidden_act"]]
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(dim, dim) for name in ("k_proj", "v_proj", "q_proj", "out_proj")}
        )
        self.layer_norm1 = nn.LayerNorm(dim, eps)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, inner), "fc2": nn.Linear(inner, dim)})
        self.layer_norm2 = nn.LayerNorm(dim, eps)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        entered = self.layer_norm1(state)
        query, key, value = (
            self.self_attn[name](entered).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        seen = functional.scaled_dot_product_attention(query, key, value)
        state = state + self.self_attn["out_proj"](seen.transpose(1, 2).flatten(2))
        return state + self.mlp["fc2"](self.activation(self.mlp["fc1"](self.layer_norm2(state))))
