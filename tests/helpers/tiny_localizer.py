"""Small networks of the architectures' contract, and pictures whose repainted part is smooth."""

import types

import cv2
import numpy as np
import torch
from torch import nn

from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.residuals import high_pass
from cnnsvm.localization.trainer import LocalizerTraining

SETTINGS = {
    "architecture": "iidnet",
    "crop_size": 48,
    "tile_size": 64,
    "tile_overlap": 16,
    "epochs": 6,
    "crops_per_image": 2,
    "n_crops": 2,
    "learning_rate": 1e-2,
    "augmentation": "geometric",
    "precision": "float32",
    "random_state": 0,
}


class Tiny(nn.Module):
    """Three convolutions on high-pass residuals."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(9, 12, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(12, 12, 5, padding=2),
                nn.ReLU(),
                nn.Conv2d(12, 1, 5, padding=2),
            )

    def forward(self, pixels):
        return self.body(high_pass(pixels.float(), 8.0, ("across", "down", "square")) / 4).float()


class TinyNorm(Tiny):
    """The same with batch norm, whose statistics are no parameters."""

    def __init__(self, seed=0):
        super().__init__(seed)
        self.body.insert(1, nn.BatchNorm2d(12))


class Brightness(nn.Module):
    """Judge each pixel by its own values alone."""

    def forward(self, pixels):
        red, green, blue = pixels.float().unbind(1)
        return ((red + 2 * green + 3 * blue) / 128 - 4)[:, None]


def build_tiny(architecture, *, random_state=0, **options):
    assert architecture == "iidnet", architecture
    return Tiny(random_state)


#: Stands for `cnnsvm.localization.architectures`.
TINY_ARCHITECTURES = types.SimpleNamespace(build_network=build_tiny)


def training(**changes):
    usual = {
        "loss": "dice",
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "weight_decay": 0.01,
        "epochs": 4,
        "patience": 5,
        "max_restarts": 2,
        "batch_size": 8,
        "crop_size": 32,
        "n_crops": 2,
        "crops_per_image": 1,
        "balance": 0.5,
        "augmentation": AUGMENTATIONS["full"],
        "warmup": 0.0,
        "threshold": 0.5,
        "random_state": 0,
        "n_jobs": 0,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    return LocalizerTraining(**(usual | changes))


def painting(seed, height=64, width=72):
    """Draw a noisy picture, smooth inside a rectangle, and the mask of that."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 10, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((height, width), dtype=bool)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    mask[top : top + 28, left : left + 32] = True
    picture[mask] = cv2.GaussianBlur(picture, (0, 0), 1.5)[mask]
    return picture, mask


def paintings(first, n):
    pairs = [painting(seed) for seed in range(first, first + n)]
    return [picture for picture, _ in pairs], [mask for _, mask in pairs]


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same_weights(a, b):
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=0)
