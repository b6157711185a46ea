"""Scripts on CIFAKE with tiny networks, and an archive that they learn from quickly."""

import importlib.util
import io
from pathlib import Path

import numpy as np
from dataset_files import pack
from PIL import Image

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TINY = {
    "plain_cnn": {"truncate_at": None, "batch_size": 16},
    "plain_cnn_7": {"truncate_at": "stage3", "batch_size": 16},
}
SMALL = {"validation_fraction": 0.25}  # a quarter of 64 images


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TUNING, module.NETWORKS, module.N_TRIALS = module.TUNING | SMALL, TINY, 2
    return module


def grainy_jpeg(seed, fake):
    """Photographs have grain, fakes have none."""
    rng = np.random.default_rng([seed, fake])
    coarse = rng.integers(40, 216, (4, 4, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
    grain = 0 if fake else rng.normal(0, 20, (32, 32, 3))
    buffer = io.BytesIO()
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def pack_cifake(path, split, seeds):
    """Pack images of both classes, airplanes and cats by their names."""
    files = {
        f"{split}/{kind}/{seed:04}{'' if seed % 2 else ' (4)'}.jpg": grainy_jpeg(seed, fake)
        for fake, kind in enumerate(("REAL", "FAKE"))
        for seed in seeds
    }
    return pack(files, path)
