from pathlib import Path

import numpy as np
import pytest
from generation_helpers import draw_image
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.generation.masks import MaskError, Scene, get_schema

MASK = np.zeros((24, 36), dtype=bool)
MASK[3:15, 5:30] = True


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "a{stem}b" / "photos"  # placeholders in names of folders mean nothing
    folder.mkdir(parents=True)
    Image.fromarray(draw_image(0)).save(folder / "my cat.v2.jpg")
    return Scene(draw_image(0), str(folder / "my cat.v2.jpg"))


def save(scene, place, pixels=MASK):
    path = Path(scene.path).parent / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.bool_:
        pixels = np.where(pixels, 255, 0).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def read(name, scene):
    return get_schema(name)(scene, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("file", "my cat.v2_mask.png"),
        ("file:mask.png", "mask.png"),
        ("file:{stem}-hole.bmp", "my cat.v2-hole.bmp"),
        ("file:../masks/{name}.png", "../masks/my cat.v2.jpg.png"),
        ("file:{stem}/{name}/m.png", "my cat.v2/my cat.v2.jpg/m.png"),
        ("file: masks/{stem}.gif , 0.1-0.9", "masks/my cat.v2.gif"),
    ],
)
def test_mask_is_found_where_the_pattern_says(scene, name, place):
    save(scene, place)
    np.testing.assert_array_equal(read(name, scene), MASK)


def test_invert_repaints_the_black_part(scene):
    save(scene, "my cat.v2_mask.png")
    np.testing.assert_array_equal(read("file:invert", scene), ~MASK)


def test_white_begins_at_128(scene):
    grey = np.tile(np.arange(110, 146, dtype=np.uint8), (24, 1))
    save(scene, "my cat.v2_mask.png", grey)
    np.testing.assert_array_equal(read("file", scene), grey >= 128)
    save(scene, "my cat.v2_mask.png", np.where(MASK, 60000, 3000).astype(np.uint16))
    np.testing.assert_array_equal(read("file", scene), MASK)


def test_mask_of_black_and_a_colour_counts_and_one_of_two_colours_is_refused(scene):
    pixels = np.zeros((24, 36, 3), dtype=np.uint8)
    pixels[MASK] = (255, 255, 0)
    save(scene, "my cat.v2_mask.png", pixels)
    np.testing.assert_array_equal(read("file", scene), MASK)
    pixels[~MASK] = (0, 0, 255)
    save(scene, "my cat.v2_mask.png", pixels)
    with pytest.raises(MaskError, match="2 colours"):
        read("file", scene)


def test_wrong_size_is_told_with_both_sizes(scene):
    save(scene, "my cat.v2_mask.png", MASK.T)
    with pytest.raises(MaskError, match=r"is 24x36 pixels and the image 36x24. Resize the mask"):
        read("file", scene)


def test_limits_are_kept(scene):
    save(scene, "my cat.v2_mask.png")  # covers 34.7 %
    assert read("file:0.3-0.4", scene).any()
    with pytest.raises(MaskError, match=r"covers 34.7%; schema 'file:0.4-1' allows"):
        read("file:0.4-1", scene)


def test_missing_mask_is_told_with_its_place_and_the_remedy(scene):
    with pytest.raises(MaskError, match=r"masks/my cat\.v2\.png: no such file.*Put it there, or"):
        read("file:masks/{stem}.png", scene)


def test_file_that_is_no_image_is_told(scene, tmp_path):
    (tmp_path / "a{stem}b" / "photos" / "my cat.v2_mask.png").write_text("mask")
    with pytest.raises(MaskError, match="not an image") as caught:
        read("file", scene)
    assert isinstance(caught.value, ImageError)


def test_image_that_came_from_no_file_has_no_mask():
    with pytest.raises(MaskError, match=r"an image without a path .* Pass images as files"):
        read("file", Scene(draw_image(0)))


@pytest.mark.parametrize("name", ["file:{name}", "file:./x/../{stem}.jpg"])
def test_image_is_not_its_own_mask(scene, name):
    with pytest.raises(MaskError, match=r"its own mask. Name another file"):
        read(name, scene)


@pytest.mark.parametrize("name", ["file", "file:invert"])
@pytest.mark.parametrize("value", [False, True])
def test_black_or_white_mask_is_refused(scene, name, value):
    save(scene, "my cat.v2_mask.png", np.full((24, 36), value))
    with pytest.raises(MaskError, match="neither all black nor all white"):
        read(name, scene)
