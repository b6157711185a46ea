"""Small models in the place of those that ship: they load and judge in a moment."""

import numpy as np
import torch
from textures import repaint, texture
from tiny_detector import detector, statistics, tuning
from transformers import CLIPVisionConfig, CLIPVisionModel

from cnnsvm import CNNEmbedder, RegionDetector
from cnnsvm.io.bundle import SHIPPED

N_SOURCES = 6


def make_shipped(folder):
    """Save a detector of each kind, fitted on noise, below ``folder``."""
    real = [texture(seed) for seed in range(N_SOURCES)]
    images, sources = real + [repaint(image) for image in real], [*range(N_SOURCES)] * 2
    tower = _tower(folder / "tower")
    whole = detector(tower).fit(images, np.repeat(["original", "generated"], N_SOURCES), sources)
    whole.save_pretrained(folder / "generated", bits=32)
    more = [*images, *(repaint(image)[:, ::-1].copy() for image in real)]
    kinds = np.repeat(["original", "spliced", "regenerated"], N_SOURCES)
    trace = detector(statistics(finetune=tuning(epochs=1)))
    trace.fit(more, kinds, [*sources, *range(N_SOURCES)]).save_pretrained(folder / "cnnsvm")
    half = np.arange(real[0].shape[1]) < real[0].shape[1] // 2
    masks = [None if kind == "original" else np.tile(half, (len(real[0]), 1)) for kind in kinds]
    parts = RegionDetector(tower, layer=1, side=64, random_state=0)
    parts.fit(more, masks, [*sources, *range(N_SOURCES)], kinds).save_pretrained(folder / "region")


def use_shipped(monkeypatch, folder):
    """Let the names of the detectors that ship mean those of `make_shipped`."""
    for name in ("cnnsvm", "generated"):
        monkeypatch.setitem(SHIPPED, name, folder / name)
    load = RegionDetector.from_pretrained.__func__
    monkeypatch.setattr(load, "__defaults__", (folder / "region",))


def _tower(folder):
    """Save a transformer of random weights, as a frozen embedder of crops of 32 pixels."""
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    torch.manual_seed(0)
    CLIPVisionModel(config).save_pretrained(folder)
    own = {"device": "cpu", "precision": "float32"}
    return CNNEmbedder(f"hf:{folder}", finetune="none", crop_size=32, n_crops=1, **own)
