"""Small records with masks, whose repainted part is smooth."""

import cv2
import numpy as np
from PIL import Image

from cnnsvm.data.manifest import make_manifest, make_row

SIDE = 40


def write_records(folder, n_sources=6, engines=("a", "b")):
    """Write originals, spliced images of each engine, and regenerated ones of the last."""
    rows = []
    for source in range(n_sources):
        rng = np.random.default_rng(source)
        noise = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        mask[:, : SIDE // 2] = True
        place = folder / str(source)
        place.mkdir(parents=True)
        save(place / "original.png", noise)
        save(place / "mask.png", np.where(mask, 255, 0).astype(np.uint8))
        rows.append(make_row(place / "original.png", 0, str(source)))
        known = {"mask_path": str(place / "mask.png"), "mask_schema": "left"}
        for number, engine in enumerate(engines, start=1):
            smooth = cv2.GaussianBlur(noise, (0, 0), number)
            spliced = np.where(mask[..., None], smooth, noise)
            path = save(place / f"{engine}.png", spliced)
            rows.append(make_row(path, 1, str(source), variant="spliced", engine=engine, **known))
        path = save(place / "whole.png", smooth)
        rows.append(make_row(path, 1, str(source), variant="regenerated", engine=engine, **known))
    return make_manifest(rows)


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path
