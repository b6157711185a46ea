"""The localiser that is installed with the package."""

import csv

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from cnnsvm import InpaintLocalizer
from cnnsvm.cli import main
from cnnsvm.generation.engines import get_engine
from cnnsvm.io.bundle import SHIPPED_LOCALIZER

MOST_BYTES = 4_000_000


@pytest.fixture(scope="module")
def localizer():
    return InpaintLocalizer.from_pretrained()


@pytest.fixture(scope="module")
def repainted():
    """A photograph that was not learnt from, and its mask."""
    image = astronaut()
    mask = np.zeros(image.shape[:2], dtype=bool)
    mask[:300, 345:] = True
    return get_engine("opencv-telea")(image, mask), mask


def test_it_is_small_and_says_what_it_learnt_from():
    assert sum(file.stat().st_size for file in SHIPPED_LOCALIZER.iterdir()) <= MOST_BYTES
    card = (SHIPPED_LOCALIZER / "README.md").read_text()
    assert "opencv-telea" in card
    assert "untouched" in card


def test_it_marks_what_a_known_engine_repainted(localizer, repainted):
    image, mask = repainted
    found, untouched = localizer.predict([image, astronaut()])
    assert found[mask].mean() > 0.9
    assert found[~mask].mean() < 0.05
    assert untouched.mean() < 0.05


def test_the_command_line_takes_it_where_no_model_is_named(repainted, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(repainted[0]).save(photos / "a.png")
    assert main(["localize", str(photos), str(tmp_path / "found")]) == 0
    with open(tmp_path / "found" / "localize.csv", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert 0.05 < float(row["repainted"]) < 0.6
    assert (tmp_path / "found" / "a.png.mask.png").is_file()
