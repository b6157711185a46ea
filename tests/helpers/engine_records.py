"""Records of several engines, and a detector that is quick and notes what it sees."""

import cv2
import numpy as np
from PIL import Image
from sklearn.base import clone
from tiny_detector import statistics

from cnnsvm import InpaintDetector, TunedSVC
from cnnsvm.data.manifest import make_manifest, make_row

ENGINES = {"a": 0.26, "b:1": 0.3, "b:2?x=1": 0.4, "c": 0.6}
N_SOURCES = 12
FITTED, JUDGED = [], []


class TextureDetector(InpaintDetector):
    """A detector of a handful of statistics; it notes what it sees."""

    def fit(self, X, y=None, groups=None, auxiliary_labels=None):
        FITTED.append((list(X), list(y), list(groups)))
        return super().fit(X, y, groups, auxiliary_labels)

    def _look(self, X):
        JUDGED.append(list(X))
        return super()._look(X)


DETECTOR = TextureDetector(statistics(n_crops=1), TunedSVC(n_trials=1, cv=2), random_state=0)


def changed(**more):
    """Clone the detector with other parameters, also nested ones of its classifier."""
    return clone(DETECTOR).set_params(**more)


def draw_image(source):
    rng = np.random.default_rng(source)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)


def write_records(folder, engines, sources, prefix=""):
    rows = []
    for source in sources:
        real = draw_image(source)
        made = {("original", None): real}
        for engine, sigma in engines.items():
            fake = cv2.GaussianBlur(real, (0, 0), sigma)
            made["regenerated", engine] = fake
            made["spliced", engine] = np.hstack([fake[:, :20], real[:, 20:]])
        for (variant, engine), image in made.items():
            path = folder / f"{prefix}{source}-{len(rows)}.png"
            Image.fromarray(image).save(path)
            name, label = f"{prefix}{source}", int(variant != "original")
            rows.append(make_row(path, label, name, variant=variant, engine=engine, record=name))
    return make_manifest(rows)


def detector_of(judged, fit, held_out="", n_families=None):
    rows = judged[(judged["fit"] == fit) & (judged["held_out"] == held_out)]
    return rows if n_families is None else rows[rows["n_families"] == n_families]
