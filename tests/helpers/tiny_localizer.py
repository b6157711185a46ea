"""Small networks of the architectures' contract, and images whose repainted part is smooth."""

import dataclasses

import cv2
import numpy as np
import torch
from torch import nn

from cnnsvm import InpaintLocalizer
from cnnsvm.features.augmentation import AUGMENTATIONS
from cnnsvm.features.preprocessing import high_pass
from cnnsvm.features.trainer import TrainingOptions
from cnnsvm.localization.trainer import LocalizerTrainer
from cnnsvm.localization.training import LocalizerTraining

#: Parameters of an `InpaintLocalizer` and of its training.
SETTINGS = {
    "architecture": "iidnet",
    "crop_size": 48,
    "tile_size": 64,
    "tile_overlap": 16,
    "precision": "float32",
    "random_state": 0,
}
TRAINING = {
    "epochs": 6,
    "crops_per_image": 2,
    "n_crops": 2,
    "learning_rate": 1e-2,
    "augmentation": "geometric",
}


def localizer(**changes):
    """Make an unfitted localiser; the parameters of its training may be among the changes."""
    given = SETTINGS | TRAINING | changes
    names = set(LocalizerTraining().get_params())
    training = LocalizerTraining(**{k: v for k, v in given.items() if k in names})
    return InpaintLocalizer(training=training, **{k: v for k, v in given.items() if k not in names})


class Tiny(nn.Module):
    """Three convolutions on high-pass residuals."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
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


def build_tiny(size=None, genotype=None):
    """Build what stands for an architecture in most tests."""
    return Tiny(None)


def make_trainer(network, pairs, fit, valid, **changes):
    """Make a trainer of a few short epochs."""
    usual = {
        "loss": "dice",
        "learning_rate": 1e-2,
        "weight_decay": 0.01,
        "epochs": 4,
        "patience": 5,
        "batch_size": 8,
        "crop_size": 32,
        "n_crops": 2,
        "augmentation": AUGMENTATIONS["full"],
        "warmup": 0.0,
        "threshold": 0.5,
        "random_state": 0,
        "n_jobs": 0,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    given = usual | changes
    of_options = [field.name for field in dataclasses.fields(TrainingOptions)]
    options = TrainingOptions(**{k: v for k, v in given.items() if k in of_options})
    own = ("loss", "max_restarts", "crops_per_image", "balance", "warmup")
    settings = LocalizerTraining(**{k: v for k, v in given.items() if k in own})
    return LocalizerTrainer(network, pairs, fit, valid, options, settings, given["threshold"])


def painting(seed, height=64, width=72):
    """Draw a noisy image, smooth inside a rectangle, and the mask of that."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 10, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((height, width), dtype=bool)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    mask[top : top + 28, left : left + 32] = True
    image[mask] = cv2.GaussianBlur(image, (0, 0), 1.5)[mask]
    return image, mask


def paintings(first, n):
    pairs = [painting(seed) for seed in range(first, first + n)]
    return [image for image, _ in pairs], [mask for _, mask in pairs]


def weights(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same_weights(a, b):
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=0)
