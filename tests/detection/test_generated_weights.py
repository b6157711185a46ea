"""The detector of generated images that ships: size, licence, and the same scores anywhere."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cnnsvm import CombinedDetector, InpaintDetector
from cnnsvm.io.bundle import SHIPPED

#: Sample of scikit-image -> probability of "generated", recorded when it was made.
RECORDED = {
    "astronaut.png": 0.09775,
    "chelsea.png": 0.01228,
    "coffee.png": 0.00409,
    "retina.jpg": 0.02701,
    "rocket.jpg": 0.00049,
    "motorcycle_left.png": 0.01850,
}
#: Processors add up in other orders; of a network of ten layers that reaches the fourth decimal.
TOLERANCE = 1e-3


def sample(name):
    (place,) = find_spec("skimage").submodule_search_locations
    return str(Path(place, "data", name))


@pytest.fixture(scope="module")
def shipped():
    return InpaintDetector.from_pretrained("generated", device="cpu")


def test_it_fits_into_the_package_with_its_licence():
    files = list(SHIPPED["generated"].iterdir())
    assert sum(path.stat().st_size for path in files) < 45_000_000
    assert "OpenAI" in (SHIPPED["generated"] / "LICENSE").read_text()


def test_scores_are_those_that_were_recorded(shipped):
    assert shipped.embedder_[0].precision == "float32"
    found = shipped.predict_proba([sample(name) for name in RECORDED])[:, 0]
    np.testing.assert_allclose(found, list(RECORDED.values()), atol=TOLERANCE)


def test_photographs_are_not_said_to_be_generated(shipped):
    assert "generated" not in shipped.verdict([sample(name) for name in RECORDED])


def test_saved_again_in_four_bits_it_says_the_same(shipped, tmp_path):
    again = InpaintDetector.from_pretrained(shipped.save_pretrained(tmp_path / "m", bits=4))
    paths = [sample(name) for name in list(RECORDED)[:2]]
    np.testing.assert_allclose(again.predict_proba(paths), shipped.predict_proba(paths), atol=1e-2)


def test_the_combined_detector_asks_all_that_ship_and_looks_at_every_pixel(shipped):
    combined = CombinedDetector.from_pretrained("cpu")
    assert combined.region.embedder is combined.generated.embedder_[0]
    path = sample("astronaut.png")
    assert combined.coverage(path) == combined.coverage(np.zeros((900, 1300, 3), np.uint8)) == 1
    whole = shipped.predict_proba([path])[0, 0]
    table = combined.explain([path])
    assert table["generated"][0] == pytest.approx(whole, abs=TOLERANCE)
    assert table[list(combined.classes_)].sum(axis=1)[0] == pytest.approx(1)
