"""What each process of the test of `launched` runs: ``torchrun together_fit.py FOLDER SHARES``."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from cnnsvm import CNNEmbedder, FineTuning
from cnnsvm.features import finetuning
from cnnsvm.features.launching import launched
from cnnsvm.io.files import write_text


def images(n=32, seed=0):
    """Return small images, (n, 40, 40, 3), half of them with a pattern, their classes, groups."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 190, (n, 40, 40, 3)).astype(np.uint8)
    y = np.arange(n) % 2
    pixels[y == 1, ::2] += 40
    return list(pixels), y, np.arange(n) // 2


def fit(mode, cache_dir=None, epochs=3):
    """Train an embedder whose body is frozen ("head"), or whose batch norms learn ("full")."""
    torch.manual_seed(0)
    # a bias before batch norm changes nothing, so that its gradient is rounding error
    first, second = (torch.nn.Conv2d(n, 8, 3, stride=2, bias=False) for n in (3, 8))
    norms = torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(8)
    body = torch.nn.Sequential(first, norms[0], torch.nn.ReLU(), second, norms[1])
    pooled = torch.nn.Sequential(body, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    tuning = FineTuning(  # of 32 images 24 train, in three batches
        mode,
        epochs=epochs,
        learning_rate=0.01,
        augmentation="geometric",
        validation_fraction=0.25,
    )
    backbone = pooled if mode == "full" else "resnet18"
    embedder = CNNEmbedder(
        backbone,
        weights=None,
        finetune=tuning,
        crop_size=32,
        n_crops=2,
        batch_size=8,
        device="cpu",
        precision="float32",
        random_state=0,
        cache_dir=cache_dir,
    )
    pixels, y, groups = images()
    return embedder.fit(pixels, y, groups)


def leave(embedder, place):
    """Write the weights and the history of an embedder."""
    weights = {k: v.contiguous() for k, v in embedder.network_.state_dict().items()}
    save_file(weights, place.with_suffix(".safetensors"))
    write_text(place.with_suffix(".txt"), repr(embedder.history_))


def main():
    """Leave what the first process has learnt; die in an epoch if asked to."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    shares = tuple(map(float, sys.argv[2].split(",")))
    rank = int(os.environ["RANK"])
    if len(sys.argv) > 3 and rank == 1:
        validate = finetuning.FineTuner.validate

        def die(self):
            return os._exit(9) if len(self.history) == 1 else validate(self)

        finetuning.FineTuner.validate = die
    with launched("cpu", batch_shares=shares) as is_first:
        (folder / f"rank{rank}").touch()
        if is_first:
            leave(fit("full", folder / "cache"), folder / "full")
            if len(sys.argv) == 3:
                leave(fit("head", epochs=1), folder / "head")


if __name__ == "__main__":
    main()
