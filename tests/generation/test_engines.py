import numpy as np
import pytest

from cnnsvm.data.images import ImageError
from cnnsvm.data.mask_shapes import MASK_SCHEMAS
from cnnsvm.generation.engines import ENGINES, Engine, EngineError, get_engine, one_by_one


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


@pytest.fixture
def mask():
    return MASK_SCHEMAS["random_patches"](40, 56, np.random.default_rng(1))


@pytest.mark.parametrize("name", ["opencv-telea", "opencv-ns", "opencv-telea:5", "opencv-ns:1"])
def test_opencv_repaints_the_hole_and_only_the_hole(name, image, mask):
    before = image.copy()
    output = get_engine(name)(image, mask, 0)
    np.testing.assert_array_equal(output[~mask], image[~mask])
    assert (output[mask] != image[mask]).any(axis=1).mean() > 0.95
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ["opencv-telea", "opencv-ns"])
@pytest.mark.parametrize("schema", MASK_SCHEMAS)
def test_opencv_does_not_see_what_was_in_the_hole(name, schema, image):
    mask = MASK_SCHEMAS[schema](40, 56, np.random.default_rng(1))
    other = image.copy()
    other[mask] = 255 - other[mask]
    np.testing.assert_array_equal(*(get_engine(name)(x, mask, 0) for x in (image, other)))


def test_opencv_refuses_a_hole_without_a_rim(image):
    with pytest.raises(ImageError, match="outside the mask"):
        get_engine("opencv-ns")(image, np.ones((40, 56), bool), 0)


def test_opencv_does_the_same_whatever_the_seed_and_the_order_of_channels(image, mask):
    for name in ("opencv-telea", "opencv-ns"):
        engine = get_engine(name)
        np.testing.assert_array_equal(engine(image, mask, 0), engine(image, mask, 7))
        flipped = engine(np.ascontiguousarray(image[:, :, ::-1]), mask, 0)[:, :, ::-1]
        np.testing.assert_array_equal(flipped, engine(image, mask, 0))


def test_methods_and_radii_differ(image, mask):
    outputs = [get_engine(n)(image, mask, 0) for n in ("opencv-telea", "opencv-ns")]
    outputs.append(get_engine("opencv-telea:9")(image, mask, 0))
    assert (outputs[0] != outputs[1]).any()
    assert (outputs[0] != outputs[2]).any()


def test_name_says_the_radius_unless_it_is_the_default():
    names = ("opencv-telea", "opencv-telea:3", "opencv-ns:05")
    assert [get_engine(name).name for name in names] == [
        "opencv-telea",
        "opencv-telea",
        "opencv-ns:5",
    ]


def test_engine_passes_through():
    engine = Engine("mine", one_by_one(lambda image, mask, seed: image))
    assert get_engine(engine) is engine


def test_unknown_engine_lists_what_there_is():
    with pytest.raises(EngineError, match=r"'magic'.*opencv-ns, opencv-telea"):
        get_engine("magic")


@pytest.mark.parametrize("radius", ["0", "101", "-1", "3.5", "x"])
def test_bad_radius_is_refused(radius):
    with pytest.raises(EngineError, match="1 to 100"):
        get_engine(f"opencv-telea:{radius}")


def test_prefix_chooses_the_factory_and_the_rest_is_its_argument(monkeypatch):
    made = []

    def factory(argument):
        made.append(argument)
        repaint = one_by_one(lambda image, mask, seed: image)
        return Engine(f"vae:{argument}", repaint, {"model_id": argument})

    monkeypatch.setitem(ENGINES, "vae", factory)
    assert get_engine("vae:owner/model:v2").details == {"model_id": "owner/model:v2"}
    assert made == ["owner/model:v2"]


@pytest.mark.parametrize(
    "output", [np.zeros((4, 4, 3)), np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), np.uint8), None]
)
def test_wrong_output_names_the_engine(output):
    engine = Engine("broken", one_by_one(lambda image, mask, seed: output))
    with pytest.raises(EngineError, match=r"'broken' must return uint8 \(4, 4, 3\)"):
        engine(np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=bool), 0)


@pytest.mark.parametrize("mask", [np.ones((4, 5), bool), np.ones((4, 4), np.uint8)])
def test_mask_that_does_not_fit_is_refused(mask):
    with pytest.raises(EngineError, match="a mask for an image"):
        get_engine("opencv-ns")(np.zeros((4, 4, 3), np.uint8), mask, 0)


def test_engine_that_writes_into_its_input_cannot_reach_the_callers_image():
    def scribble(image, mask, seed):
        image[mask] = 9
        return image

    image = np.zeros((4, 4, 3), np.uint8)
    assert Engine("scribbler", one_by_one(scribble))(image, np.eye(4, dtype=bool)).max() == 9
    assert image.max() == 0
