import io

import numpy as np
import pytest
from generation_helpers import draw_image, tree
from PIL import Image

from cnnsvm.data.images import ImageError, load_image
from decoders.reduction import FACTORS, MAX_SIDE, MIN_SIDE, reduce, write_reduced


def as_jpeg(pixels, quality=60):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return load_image(buffer.getvalue())


def grid_strength(image):
    """Mean step across the borders of 8-pixel blocks against that of all other neighbours.

    Of the eight phases the strongest counts, as the grid of a crop may begin anywhere.
    """
    grey = image.astype(float).mean(axis=2)
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        at = np.arange(len(steps)) % 8
        ratios.append(max(steps[at == k].mean() / steps[at != k].mean() for k in range(8)))
    return float(np.mean(ratios))


@pytest.fixture
def originals(tmp_path):
    """Three JPEGs, two of one name."""
    paths = []
    for i, place in enumerate(("monet/a.jpg", "monet/b.jpg", "manet/a.jpg")):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_image(i, 180, 240)).save(path, quality=60)
        paths.append(path)
    return paths


def test_copies_belong_to_the_sources_of_their_originals(originals, tmp_path):
    made = write_reduced(originals, ["x", "y", "x"], tmp_path / "out")
    assert made["source_id"].tolist() == ["x", "y", "x"]
    assert made["label"].tolist() == [0, 0, 0]
    assert set(made["variant"]) == {"original"}
    assert made["path"].nunique() == 3
    for row in made.itertuples():
        pixels = load_image(row.path)
        assert pixels.shape == (row.height, row.width, 3)
        assert row.format == "PNG"
        assert max(FACTORS[0] * 180 - 1, MIN_SIDE) <= row.height <= FACTORS[1] * 180 + 1
        assert row.width == pytest.approx(240 / 180 * row.height, abs=1.5)


def test_the_copy_shows_the_same(originals, tmp_path):
    made = write_reduced(originals[:1], ["x"], tmp_path)
    original, copy = Image.open(originals[0]), Image.open(made["path"][0])
    back = np.asarray(original.resize(copy.size, Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(back - np.asarray(copy)).mean() < 3


def test_seed_and_content_alone_say_how(originals, tmp_path):
    first = write_reduced(originals, list("abc"), tmp_path / "1")
    backwards = write_reduced(originals[::-1], list("cba"), tmp_path / "2")
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert first["sha256"].tolist() == backwards["sha256"].tolist()[::-1]
    other = write_reduced(originals, list("abc"), tmp_path / "3", random_state=1)
    assert set(other["sha256"]).isdisjoint(first["sha256"])
    sizes = set(zip(first["width"], first["height"], strict=True))
    assert len(sizes) == 3  # each original has a factor of its own


def test_files_that_are_there_are_kept(originals, tmp_path, monkeypatch):
    first = write_reduced(originals, list("abc"), tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("decoders.reduction.reduce", None)  # not callable
    again = write_reduced(originals, list("abc"), tmp_path / "out")
    assert again.equals(first)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_another_content_under_an_old_name_is_made_anew(originals, tmp_path):
    write_reduced(originals[:1], ["a"], tmp_path / "out")
    Image.fromarray(draw_image(9, 180, 240)).save(originals[0])
    made = write_reduced(originals[:1], ["a"], tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert np.abs(load_image(made["path"][0]).mean() - draw_image(9, 180, 240).mean()) < 3


def test_an_original_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"none")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        write_reduced([tmp_path / "a.jpg"], ["a"], tmp_path / "out")


def test_as_many_names_as_paths(originals, tmp_path):
    with pytest.raises(ValueError, match="zip"):
        write_reduced(originals, ["a"], tmp_path)


def test_factors_fill_their_range():
    image = np.zeros((400, 400, 3), np.uint8)
    rng = np.random.default_rng(0)
    sides = [reduce(image, rng).shape[0] for _ in range(60)]
    assert FACTORS[0] * 400 - 1 <= min(sides) < 0.6 * 400
    assert 0.85 * 400 < max(sides) <= FACTORS[1] * 400 + 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((150, 300), (MIN_SIDE, 2 * MIN_SIDE)),  # 0.9 of 150 would be 135
        ((300, 140), (round(300 * MIN_SIDE / 140), MIN_SIDE)),
        ((136, 136), (136, 136)),
        ((100, 90), (100, 90)),  # smaller ones stay
        ((1, 1), (1, 1)),
        ((20, 700), (20, MAX_SIDE)),  # but long sides are cut
    ],
)
def test_small_images_stay_as_large_as_need_be(size, expected):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for seed in range(5):
        out = reduce(image, np.random.default_rng(seed))
        assert out.dtype == np.uint8
        if size == (300, 140):
            assert out.shape[1] == MIN_SIDE
        assert out.shape[:2] == expected


def test_of_long_sides_the_middle_is_kept():
    ramp = np.linspace(0, 255, 1200).astype(np.uint8)
    image = np.broadcast_to(ramp[None, :, None], (1200, 1200, 3)).copy()
    for seed in range(3):
        out = reduce(image, np.random.default_rng(seed))
        assert out.shape == (MAX_SIDE, MAX_SIDE, 3)
        assert out[0].astype(float).mean() == pytest.approx(127.5, abs=1)
        span = int(out[0, -1, 0]) - int(out[0, 0, 0])
        low, high = (255 * MAX_SIDE / (1200 * factor) for factor in FACTORS[::-1])
        assert low - 2 < span < high + 2


@pytest.mark.parametrize("seed", range(4))
def test_the_grid_of_an_old_jpeg_is_weaker_afterwards(seed):
    noise = np.random.default_rng(seed).normal(0, 8, (320, 320, 3))
    clean = np.clip(draw_image(seed, 320, 320) + noise, 0, 255).astype(np.uint8)
    old = as_jpeg(clean, quality=20)
    before, floor = grid_strength(old), grid_strength(clean)
    assert before > floor + 0.5  # there is a grid to be lost
    out = reduce(old, np.random.default_rng(seed))
    assert grid_strength(out) - 1 < 0.3 * (before - 1)
