"""Diffusers models that are real in every part and small in every number, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch

#: What the vocabulary spells besides single letters.
_WORDS = ("a", "cat", "dog", "painting", "generate", "compatible", "with", "the", "rest", "of")


def make_tiny_vae(folder: str | Path, seed: int = 0, tiny: bool = False, **changes: Any) -> Any:
    """Save an autoencoder of stride 8: a KL one, or the kind called tiny by diffusers."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    torch.manual_seed(seed)
    if tiny:
        widths: dict[str, Any] = dict.fromkeys(
            ("encoder_block_out_channels", "decoder_block_out_channels"), (8, 8, 8, 8)
        )
        depths = dict.fromkeys(("num_encoder_blocks", "num_decoder_blocks"), (1, 1, 1, 1))
        vae = AutoencoderTiny(**(widths | depths | changes))
    else:
        values: dict[str, Any] = {
            "block_out_channels": (8, 8, 8, 8),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "sample_size": 64,
        }
        vae = AutoencoderKL(**(values | changes))
        _contrast(vae.decoder.conv_out)
    vae.eval().save_pretrained(folder)
    return vae


def make_tiny_pipeline(
    folder: str | Path,
    seed: int = 0,
    *,
    channels: int = 9,
    scheduler: str = "DDIMScheduler",
    variant: str | None = None,
) -> Path:
    """Save a pipeline with the shape of Stable Diffusion 2 inpainting, of 64x64 pixels."""
    import diffusers

    folder = Path(folder)
    torch.manual_seed(seed)
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        vae=make_tiny_vae(folder / "vae", seed),
        text_encoder=_make_text_encoder(),
        tokenizer=make_tiny_tokenizer(folder / "tokenizer"),
        unet=_make_unet(channels),
        scheduler=getattr(diffusers, scheduler)(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
            **({"clip_sample": False} if scheduler == "DDIMScheduler" else {"skip_prk_steps": True}),
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True, variant=variant)
    return folder


def make_tiny_tokenizer(folder: str | Path) -> Any:
    """Make a CLIP tokenizer of letters and a few words; 77 tokens at most."""
    from transformers import CLIPTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789,.'\"-")
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges = []
    for word in _WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            if (pair := f"{pieces[0]} {pieces[1]}") not in merges:
                merges.append(pair)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens += [pieces[0]] if pieces[0] not in tokens else []
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)


def _make_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=200, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=77, projection_dim=16,
        )
    ).eval()  # fmt: skip


def _make_unet(channels: int) -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, use_linear_projection=True,
    )  # fmt: skip
    _contrast(unet.conv_out)
    return unet.eval()


def _contrast(layer: torch.nn.Conv2d) -> None:
    """Let what an untrained network makes of its input show after rounding."""
    with torch.no_grad():
        layer.weight *= 4
