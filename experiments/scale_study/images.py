"""Images for a scan: drawn, linked under many names, and a detector that is fitted in seconds."""

import os
from pathlib import Path

import numpy as np

#: Images of a folder, and the most names that file systems give one file (ext4: 65,000).
A_FOLDER, MOST_NAMES = 1000, 60_000
_NOISE = {"real": 12, "fake": 4}  # what the detector learns to tell apart, of 255


def draw_image(rng: np.random.Generator, side: int, noise: float) -> np.ndarray:
    """Draw squares of colour with noise, uint8 (side, side, 3)."""
    coarse = rng.integers(0, 256, (4, 4, 3)).repeat(side // 4, 0).repeat(side // 4, 1)
    return np.clip(coarse + rng.normal(0, noise, coarse.shape), 0, 255).astype(np.uint8)


def draw_images(folder: Path, n_images: int, n_distinct: int, side: int, seed: int) -> Path:
    """Draw images, link them under so many names, and return the folder of these.

    A ValueError is raised if an image would have more names than file systems give one.
    """
    from cnnsvm.data.encoding import encode_image
    from cnnsvm.io.files import write_bytes

    n_distinct = min(n_distinct, n_images)
    if n_images > n_distinct * MOST_NAMES or side < 4:
        raise ValueError(
            f"{n_images} images of {n_distinct} drawn ones of {side} pixels: a file has at most "
            f"{MOST_NAMES} names, and a side 4 pixels or more. Raise --distinct or --side."
        )
    rng, drawn = np.random.default_rng(seed), []
    for number in range(n_distinct):
        noise = list(_NOISE.values())[number % 2]
        data = encode_image(draw_image(rng, side, noise), "JPEG", quality=90)
        drawn.append(write_bytes(folder / f"drawn/{number}.jpg", data))
    images = folder / "images"
    for number in range(n_images):
        if number % A_FOLDER == 0:
            os.makedirs(images / f"{number // A_FOLDER:05}")
        os.link(drawn[number % n_distinct], image_name(images, number))
    return images


def image_name(images: Path, number: int) -> str:
    """Return the path of an image by its number; sorted, they are in the order of the numbers."""
    return f"{images}/{number // A_FOLDER:05}/{number:08}.jpg"


def fit_small(folder: Path, seed: int) -> Path:
    """Fit the first layers of a ResNet-18 and a linear machine on 40 drawn images, and save it."""
    from cnnsvm import CNNEmbedder, InpaintDetector, TunedSVC

    rng = np.random.default_rng(seed)
    labels = list(_NOISE) * 20
    images = [draw_image(rng, 32, _NOISE[label]) for label in labels]
    embedder = CNNEmbedder(
        "resnet18",
        weights=None,
        finetune="none",
        truncate_at="layer1",
        crop_size=32,
        n_crops=1,
        device="cpu",
        random_state=seed,
    )
    machine = TunedSVC(kernel="linear", n_trials=1, cv=2)
    detector = InpaintDetector([embedder], machine, random_state=seed).fit(images, labels)
    return Path(detector.save_pretrained(folder))
