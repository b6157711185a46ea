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
    safety_checker: bool = False,
) -> Path:
    """Save a pipeline with the shape of Stable Diffusion 2 inpainting, of 64x64 pixels.

    The safety checker withholds every image.
    """
    import diffusers

    folder = Path(folder)
    torch.manual_seed(seed)
    own = {"clip_sample": False} if scheduler == "DDIMScheduler" else {"skip_prk_steps": True}
    pipeline = diffusers.StableDiffusionInpaintPipeline(
        vae=make_tiny_vae(folder / "vae", seed),
        text_encoder=_make_text_encoder(),
        tokenizer=make_tiny_tokenizer(folder / "tokenizer"),
        unet=_make_unet(channels),
        scheduler=getattr(diffusers, scheduler)(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, **own
        ),
        safety_checker=_make_safety_checker() if safety_checker else None,
        feature_extractor=_make_feature_extractor() if safety_checker else None,
        requires_safety_checker=safety_checker,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def make_tiny_xl_pipeline(folder: str | Path, seed: int = 0) -> Path:
    """Save a pipeline with the shape of Stable Diffusion XL inpainting, of 64x64 pixels."""
    import diffusers

    folder = Path(folder)
    torch.manual_seed(seed)
    pipeline = diffusers.StableDiffusionXLInpaintPipeline(
        vae=make_tiny_vae(folder / "vae", seed),
        text_encoder=_make_text_encoder(num_hidden_layers=2),
        text_encoder_2=_make_text_encoder("CLIPTextModelWithProjection", num_hidden_layers=2),
        tokenizer=make_tiny_tokenizer(folder / "tokenizer"),
        tokenizer_2=make_tiny_tokenizer(folder / "tokenizer_2"),
        unet=_make_unet(
            9, cross_attention_dim=32, addition_embed_type="text_time",
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
        ),
        scheduler=diffusers.EulerAncestralDiscreteScheduler(beta_schedule="scaled_linear"),
        add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
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


def _make_text_encoder(kind: str = "CLIPTextModel", **changes: Any) -> Any:
    import transformers

    values = {"vocab_size": 200, "hidden_size": 16, "intermediate_size": 16, "projection_dim": 16}
    values |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 77}
    values |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return getattr(transformers, kind)(transformers.CLIPTextConfig(**(values | changes))).eval()


def _make_unet(channels: int, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    values: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "attention_head_dim": (2, 4),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "use_linear_projection": True,
    }
    unet = UNet2DConditionModel(**(values | changes))
    _contrast(unet.conv_out)
    return unet.eval()


def _make_safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 32}
    vision |= {"num_attention_heads": 2, "patch_size": 16, "projection_dim": 16}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16))
    checker.concept_embeds_weights.data.fill_(-2.0)  # no similarity is below this threshold
    return checker.eval()


def _make_feature_extractor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _contrast(layer: torch.nn.Conv2d) -> None:
    """Let what an untrained network makes of its input show after rounding."""
    with torch.no_grad():
        layer.weight *= 4
