import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError, load_image
from cnnsvm.features import reading
from cnnsvm.features.reading import Decoded, in_chunks, read_ahead, resize


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def paths(tmp_path):
    found = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(found):
        Image.fromarray(noise(20, 30, number)).save(path)
    return found


@pytest.mark.parametrize("n_jobs", [None, 1, 3, 20])
def test_images_come_in_their_order_whatever_the_threads(paths, n_jobs):
    given = [paths[0], noise(9, 9), *paths[1:]]
    for image, read in zip(given, read_ahead(Decoded(given, memory=0), n_jobs), strict=True):
        np.testing.assert_array_equal(read, load_image(image))


def test_a_bad_image_is_an_error_at_its_place(paths):
    paths[3].write_bytes(b"no image")
    read = read_ahead(Decoded(paths, memory=0), 2)
    for path in paths[:3]:
        np.testing.assert_array_equal(next(read), load_image(path))
    with pytest.raises(ImageError, match=r"3\.png"):
        next(read)


@pytest.mark.parametrize("n_jobs", [1, 4])
def test_no_more_images_are_held_than_threads_and_a_large_one_is_alone(monkeypatch, n_jobs):
    monkeypatch.setattr(reading, "LARGE", 300)
    lock, held = threading.Lock(), {"now": 0, "most": 0, "beside": 0}

    class Counted(Decoded):
        def __getitem__(self, index):
            with lock:
                held["now"] += 1
                held["most"] = max(held["most"], held["now"])
                if self.is_large(index):
                    held["beside"] = max(held["beside"], held["now"] - 1)
            return super().__getitem__(index)

    images = [noise(20, 20) if number % 5 == 3 else noise(9, 9) for number in range(25)]
    for image in read_ahead(Counted(images), n_jobs):
        time.sleep(0.001)
        with lock:
            held["now"] -= 1
        assert image.shape in ((9, 9, 3), (20, 20, 3))
    assert held["most"] <= n_jobs + 1
    assert held["beside"] == 0


def test_what_is_made_when_asked_for_is_made_once():
    made = []

    class Views(Sequence):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            made.append(index)
            return noise(9, 9, index)

    assert len(list(read_ahead(Decoded(Views(), memory=0)))) == 4
    assert made == [0, 1, 2, 3]


def test_pixels_in_memory_are_taken_as_they_are():
    image = noise(5, 5)
    assert Decoded([image])[0] is image
    with pytest.raises(ImageError, match="uint8"):
        Decoded([image.astype(float)])[0]
    assert Decoded([image[:, :, 0]])[0].shape == (5, 5, 3)


def test_chunks_hold_a_few_images_or_a_large_one(monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 3 * 100)
    monkeypatch.setattr(reading, "MOST_IN_CHUNK", 4)
    small, large = noise(3, 3), noise(10, 30)
    images = [small] * 5 + [large, small]
    chunks = list(in_chunks(images))
    assert [len(chunk) for chunk in chunks] == [4, 2, 1]
    assert [id(image) for chunk in chunks for image in chunk] == [id(image) for image in images]


@pytest.mark.parametrize("shape", [(300, 210), (37, 500), (64, 64), (1, 900)])
@pytest.mark.parametrize("size", [(64, 64), (500, 20), (210, 300)])
@pytest.mark.parametrize("strip", [1, 5000, 2**22])
def test_a_resize_in_strips_is_pillows(shape, size, strip, monkeypatch):
    monkeypatch.setattr(reading, "_STRIP", strip)
    image = noise(*shape)
    expected = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize(image, size), np.asarray(expected))
