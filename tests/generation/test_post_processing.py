import io

import numpy as np
import pytest
from PIL import Image

from cnnsvm.data.images import ImageError
from cnnsvm.generation.post_processing import KERNELS, PostProcessing, PostProcessingError


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("png", PostProcessing()),
        ("jpeg:90", PostProcessing(codec="jpeg", quality=90)),
        ("JPG:75", PostProcessing(codec="jpeg", quality=75)),
        ("webp", PostProcessing(codec="webp")),
        ("webp:80", PostProcessing(codec="webp", quality=80)),
        ("512", PostProcessing(size=512)),
        ("640x480, bicubic, jpeg:50", PostProcessing((640, 480), "bicubic", "jpeg", 50)),
    ],
)
def test_text_is_read_and_written_back(text, made):
    assert PostProcessing.parse(text) == made
    assert PostProcessing.parse(str(made)) == made


def test_square_size_has_one_form():
    assert PostProcessing(size=512) == PostProcessing(size=(512, 512))


@pytest.mark.parametrize(
    "text",
    ["", "gif", "jpeg", "jpeg:0", "jpeg:101", "jpeg:x", "png:9", "png:", "0", "0x5", "png,webp"],
)
def test_bad_text_is_refused(text):
    with pytest.raises(PostProcessingError):
        PostProcessing.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": (3,)},
        {"size": 2.5},
        {"size": True},
        {"resample": "cubic"},
        {"codec": "bmp"},
        {"codec": "webp", "quality": 80.5},
    ],
)
def test_bad_values_are_refused(values):
    with pytest.raises(PostProcessingError):
        PostProcessing(**values)


@pytest.mark.parametrize("text", ["png", "webp"])
def test_lossless_codecs_keep_every_pixel(text, image):
    made = PostProcessing.parse(text)
    np.testing.assert_array_equal(made.decode(made.encode(image)), image)


@pytest.mark.parametrize(("text", "name"), [("jpeg:90", "JPEG"), ("webp:80", "WEBP")])
def test_lossy_codecs_are_what_they_say(text, name, image):
    made = PostProcessing.parse(text)
    content = made.encode(image)
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.format == name
    assert (made.decode(content) != image).any()


def test_jpeg_has_the_quality_and_subsampling_that_it_states(image):
    with Image.open(io.BytesIO(PostProcessing.parse("jpeg:90").encode(image))) as opened:
        assert opened.quantization[0][0] == 3  # 16 at quality 50, times 0.2
        assert [component[1:3] for component in opened.layer] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_resize_is_pillows(kernel, image):
    expected = np.array(Image.fromarray(image).resize((20, 17), KERNELS[kernel]))
    np.testing.assert_array_equal(PostProcessing(resample=kernel).resize(image, (20, 17)), expected)


def test_apply_goes_to_the_working_size_and_back(image):
    made = PostProcessing(size=(20, 17), resample="bilinear")
    assert made.to_working_size(image).shape == (17, 20, 3)
    there_and_back = made.resize(made.resize(image, (20, 17)), (44, 30))
    np.testing.assert_array_equal(made.apply(image), there_and_back)
    assert (there_and_back != image).any()


def test_native_size_changes_nothing(image):
    np.testing.assert_array_equal(PostProcessing().apply(image), image)
    np.testing.assert_array_equal(PostProcessing(size=(44, 30)).apply(image), image)


def test_image_that_a_codec_cannot_hold_is_an_image_error():
    with pytest.raises(ImageError, match="20000x1 pixels cannot be written as webp"):
        PostProcessing(codec="webp").encode(np.zeros((1, 20000, 3), np.uint8))
