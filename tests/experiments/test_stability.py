import numpy as np
import pytest
from PIL import Image
from script_runs import load_script

from cnnsvm import CombinedDetector
from cnnsvm.data.images import load_image


@pytest.fixture(scope="module")
def script():
    return load_script("stability")


def noisy(seed, height=80, width=120):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_twelve_deliveries_of_which_two_lose_nothing(script):
    pixels = noisy(0)
    arrived = dict(script.redeliver(pixels, 0))
    assert len(arrived) == 12
    for name in ("png", "turned by EXIF"):
        np.testing.assert_array_equal(load_image(arrived[name]), pixels)
    others = [
        load_image(copy) for name, copy in arrived.items() if name not in ("png", "turned by EXIF")
    ]
    assert not any(other.shape == pixels.shape and (other == pixels).all() for other in others)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("spliced", "spliced", "same"),
        ("spliced", "unsure", "unsure"),
        ("no_trace", "unsure", "unsure"),
        ("no_trace", "generated", "opposite"),
        ("spliced", "no_trace", "opposite"),
        ("spliced", "regenerated", "another fake"),
    ],
)
def test_what_becomes_of_a_verdict(script, before, after, expected):
    assert script.outcome(before, after) == expected


class Sizes:
    """Says no_trace of what has the size of the original, and spliced of all else."""

    def verdict(self, images):
        shapes = [load_image(image).shape[:2] for image in images]
        return ["no_trace" if shape == (80, 120) else "spliced" for shape in shapes]


def test_a_run_counts_opposites(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        Image.fromarray(noisy(seed)).save(tmp_path / "photos" / f"{seed}.png")
    monkeypatch.setattr(CombinedDetector, "from_pretrained", lambda device: Sizes())
    out = tmp_path / "out"
    arguments = [f"photos={tmp_path / 'photos'}", "--most", "2", "--out", str(out)]
    assert script.main(arguments) == 0
    said = capsys.readouterr().out
    # two resizes, the screenshot and the crop change the size of both images
    assert "Of 24 re-deliveries" in said
    assert " 8 turned" in said
    assert (out / "stability.csv").read_text().count("\n") == 25
